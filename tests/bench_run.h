/* SPDX-License-Identifier: MIT */
/* tests/bench_run.h: runs a driver of bench/, and what judges by tests/bench_*_check.py whether its results are whole.
 */
#ifndef TESTS_BENCH_RUN_H
#define TESTS_BENCH_RUN_H

/* A command of the shell, in the tree's directory, with its build as $BUILD and $RESULTS, a directory that is gone
 * afterwards; no other knob of the drivers is set. Fails the test by the end of what it said; skips it where nobody
 * says where the tree is (run by hand). */
void bench_run(const char *command_fmt, ...) __attribute__((format(printf, 1, 2)));

#endif

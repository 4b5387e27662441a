/* SPDX-License-Identifier: MIT */
/* tests/fuzz_store.h: what of the store reads bytes that somebody else wrote, each as a function of one input.
 *
 * A target makes a store of its own, without a socket, feeds it the input, holds it to what must be true whatever the
 * input was, and gives everything back. It ends the process where something is untrue. `make fuzz` hands the targets to
 * libFuzzer, test_store_fuzz runs them over tests/corpus and random changes of it.
 */
#ifndef TESTS_FUZZ_STORE_H
#define TESTS_FUZZ_STORE_H

#include <stddef.h>
#include <stdint.h>

struct fuzz_target {
    const char *name; /* and the directory's in tests/corpus */
    void (*run)(const uint8_t *bytes, size_t length);
};

extern const struct fuzz_target fuzz_targets[];
extern const unsigned fuzz_target_count;

/* Ends the process with the sentence where `truth` is false. */
void fuzz_expect(int truth, const char *sentence);

/* fuzz_store_wire.c: connections of three domains and a ring page, as a script of what their peers do. */
void fuzz_store_wire(const uint8_t *bytes, size_t length);
/* fuzz_store.c: the record of a change, of which a journal's file is made. */
void fuzz_store_record(const uint8_t *bytes, size_t length);
/* … the stream of a live update. */
void fuzz_store_state(const uint8_t *bytes, size_t length);
/* What stands in the store can be written down, and read again to the same. */
struct store_engine;
void fuzz_store_again(const struct store_engine *g);

#endif

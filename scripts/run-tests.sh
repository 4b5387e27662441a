#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Runs the cmocka programs of $BUILD/tests one after another, each under a time limit, and closes with a line that
# counts tests. MODE=asan|tsan|valgrind says what stands around them; TEST=pattern picks some by name.
# What a test program prints goes to $BUILD/tests/<name>.log; a failure shows it.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
BUILD=${BUILD:-build}
MODE=${MODE:-}
DOMZERO_BUILD=$(realpath "$BUILD") || exit
export DOMZERO_BUILD DOMZERO_SOURCE=$PWD DOMZERO_TEST_MODE=$MODE
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=0:exitcode=99}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=0:exitcode=99:suppressions=$PWD/scripts/tsan.supp}
wrap=()
[[ $MODE == valgrind ]] && wrap=(valgrind -q --fair-sched=yes --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite --suppressions=scripts/valgrind.supp)
passed=0 failed=0 skipped=0 broken=()
start=$SECONDS
[[ -z $MODE ]] && { scripts/layers.sh || { echo "layer table violated"; exit 1; }; }
for t in "$BUILD"/tests/test_*; do
    name=${t##*/}
    [[ -x $t && -f tests/$name.c ]] || continue # its source may have gone since it was built
    [[ $name == *${TEST:-}* ]] || continue
    if [[ $MODE == valgrind ]] && grep -q "^$name\$" scripts/valgrind-skip.txt 2>/dev/null; then
        echo "skip $name (see scripts/valgrind-skip.txt)"
        continue
    fi
    t0=$SECONDS
    timeout --kill-after=5 "${TEST_TIMEOUT:-300}" "${wrap[@]}" "$t" > "$t.log" 2>&1
    rc=$?
    # A sanitizer may have spoken in a process that the test only started.
    if grep -qE 'ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|runtime error: ' "$t.log"; then rc=98; fi
    ok=$(grep -cE '^\[       OK \]' "$t.log")
    bad=$(grep -cE '^\[  FAILED  \] [a-z0-9_]+$' "$t.log")
    skip=$(grep -cE '^\[  SKIPPED \] [a-z0-9_]+$' "$t.log")
    bad=$((bad > 0 ? bad / 2 + bad % 2 : 0)) # cmocka names each failure twice
    skip=$((skip > 0 ? skip / 2 + skip % 2 : 0))
    ((rc == 0 && ok + skip == 0)) && { echo "$name ran no test" >> "$t.log"; rc=1; }
    ((rc != 0 && bad == 0)) && bad=1
    ((rc != 0)) && broken+=("$name")
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
    printf '%-4s %-32s %3d passed, %d failed, %d skipped  %ds\n' "$([[ $rc == 0 ]] && echo ok || echo FAIL)" "$name" "$ok" "$bad" "$skip" $((SECONDS - t0))
    ((rc != 0)) && { echo "---- $t.log (exit $rc)"; tail -n 60 "$t.log"; echo "----"; }
done
echo "$((SECONDS - start)) s${broken:+; failed: ${broken[*]}}"
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0 && passed > 0))

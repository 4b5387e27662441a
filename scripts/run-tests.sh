#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Runs the cmocka programs of $BUILD/tests, JOBS (1) at a time, each under a time limit, and closes with a line that counts
# tests. MODE=asan|tsan|valgrind says what stands around them; TEST=pattern picks some by name.
# What a test program prints goes to $BUILD/tests/<name>.log; a failure shows it.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
BUILD=${BUILD:-build}
MODE=${MODE:-}
DOMZERO_BUILD=$(realpath "$BUILD") || exit
export DOMZERO_BUILD DOMZERO_SOURCE=$PWD DOMZERO_TEST_MODE=$MODE
# What a sanitizer says goes to files, of any process that a test has started, daemons and those whose output is read too.
sanitizer_options() { # $1.<pid>: the files
    export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=0:exitcode=99:log_path=$1}
    export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1:log_path=$1}
    export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=0:exitcode=99:suppressions=$PWD/scripts/tsan.supp:log_path=$1}
}
wrap=()
[[ $MODE == valgrind ]] && wrap=(valgrind -q --fair-sched=yes --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite --suppressions=scripts/valgrind.supp)

# One program; what there is to say of it in one piece, and "exit-status ok failed skipped" in its .result.
run_one() {
    local t=$1 name=${1##*/} rc ok bad skip t0=$SECONDS
    rm -f "$t".said.[0-9]*
    sanitizer_options "$DOMZERO_BUILD/tests/$name.said"
    timeout --kill-after=5 "${TEST_TIMEOUT:-300}" "${wrap[@]}" "$t" > "$t.log" 2>&1
    rc=$?
    cat "$t".said.[0-9]* >> "$t.log" 2> /dev/null
    if grep -qE 'ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|runtime error: ' "$t.log"; then rc=98; fi
    ok=$(grep -cE '^\[       OK \]' "$t.log")
    bad=$(grep -cE '^\[  FAILED  \] [a-z0-9_]+$' "$t.log")
    skip=$(grep -cE '^\[  SKIPPED \] [a-z0-9_]+$' "$t.log")
    bad=$((bad > 0 ? bad / 2 + bad % 2 : 0)) # cmocka names each failure twice
    skip=$((skip > 0 ? skip / 2 + skip % 2 : 0))
    ((rc == 0 && ok + skip == 0)) && { echo "$name ran no test" >> "$t.log"; rc=1; }
    ((rc != 0 && bad == 0)) && bad=1
    echo "$rc $ok $bad $skip" > "$t.result"
    local verdict=ok shown=
    ((rc != 0)) && verdict=FAIL shown=$(echo "---- $t.log (exit $rc)"; tail -n 60 "$t.log"; echo "----")
    printf '%-4s %-32s %3d passed, %d failed, %d skipped  %ds\n%s' "$verdict" "$name" "$ok" "$bad" "$skip" $((SECONDS - t0)) "${shown:+$shown$'\n'}"
}

passed=0 failed=0 skipped=0 broken=() programs=()
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
    programs+=("$t")
    rm -f "$t.result"
    if ((${JOBS:-1} == 1)); then
        (run_one "$t") # before us, so that an interrupt reaches it
        continue
    fi
    while (($(jobs -rp | wc -l) >= JOBS)); do wait -n; done
    run_one "$t" &
done
wait
for t in "${programs[@]}"; do
    read -r rc ok bad skip 2> /dev/null < "$t.result" || { rc=1 ok=0 bad=1 skip=0; }
    ((rc != 0)) && broken+=("${t##*/}")
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
done
echo "$((SECONDS - start)) s${broken:+; failed: ${broken[*]}}"
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0 && passed > 0))

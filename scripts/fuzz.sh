#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Runs the fuzzer $1 over each of $TARGETS (all) for $SECONDS_EACH (60) seconds. What it learns stays in
# build/fuzz/corpus/<target>; KEEP=1 puts the smallest part of that which reaches as much into tests/corpus/<target>.
set -euo pipefail
fuzzer=$(realpath "$1")
cd "$(dirname "$0")/.."
for target in ${TARGETS:-wire record state}; do
    learned=build/fuzz/corpus/$target kept=tests/corpus/$target
    mkdir -p "$learned" "$kept"
    echo "fuzz $target: ${SECONDS_EACH:-60} s"
    FUZZ_TARGET=$target "$fuzzer" -max_total_time="${SECONDS_EACH:-60}" -max_len=2048 -timeout=20 -dict=tests/corpus/store.dict \
        -artifact_prefix="build/fuzz/$target-" -print_final_stats=0 -verbosity=0 "$learned" "$kept"
    if [[ -n ${KEEP:-} ]]; then
        FUZZ_TARGET=$target "$fuzzer" -merge=1 -max_len=1024 "$kept" "$learned" > /dev/null 2>&1
    fi
    echo "fuzz $target: $(find "$learned" -type f | wc -l) inputs known, nothing found"
done

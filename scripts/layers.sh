#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Holds every #include "room/…" to scripts/layers.txt; prints each edge that is not allowed and exits 1.
set -euo pipefail
cd "$(dirname "$0")/.."
declare -A allowed
while read -r room edges; do
    [[ $room == \#* || -z $room ]] || allowed[${room%:}]=" $edges "
done < scripts/layers.txt
bad=0
while IFS=: read -r file line text; do
    room=${file%%/*}
    [[ $file == include/* ]] && room=api
    to=$(sed -E 's/.*#include ["<]([a-z]+)\/.*/\1/' <<< "$text")
    [[ $to == domzero ]] && to=api
    [[ $room == "$to" || ${allowed[$room]:-} == *" * "* || ${allowed[$room]:-} == *" $to "* ]] && continue
    echo "$file:$line: $room may not include $to (scripts/layers.txt)"
    bad=1
done < <(git ls-files -co --exclude-standard '*.c' '*.h' | xargs grep -nE '#include ("[a-z]+/|<domzero/)' /dev/null)
exit $bad

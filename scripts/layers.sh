#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Holds every #include "room/…" to scripts/layers.txt; prints each edge that is not allowed and exits 1.
set -euo pipefail
cd "$(dirname "$0")/.."
declare -A allowed
while read -r room edges; do
    [[ $room == \#* || -z $room ]] || allowed[${room%:}]=" $edges "
done < scripts/layers.txt
mapfile -t sources < <(git ls-files -co --exclude-standard '*.c' '*.h' 2> /dev/null || find . -path ./build -prune -o -name '*.[ch]' -printf '%P\n')
((${#sources[@]})) || { echo "layers.sh found no sources"; exit 1; }
include='#[[:space:]]*include[[:space:]]*("([^"]*)"|<(domzero)/)'
bad=0
while IFS=: read -r file line text; do
    [[ $text =~ $include ]] || continue
    room=${file%%/*}
    [[ $room == include ]] && room=api
    to=${BASH_REMATCH[2]:-${BASH_REMATCH[3]}}
    [[ $to == *..* ]] || to=${to%%/*} # a path that climbs is no room
    [[ $to == domzero ]] && to=api
    [[ $room == "$to" || ${allowed[$room]:-} == *" * "* || ${allowed[$room]:-} == *" $to "* ]] && continue
    echo "$file:$line: $room may not include $to (scripts/layers.txt)"
    bad=1
done < <(grep -nE '#[[:space:]]*include' /dev/null "${sources[@]}")
exit $bad

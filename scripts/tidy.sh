#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# tidy.sh: clang-format, the layer table, SPDX lines, sizes of files (600 lines) and functions (70 lines), and clang-tidy.
set -uo pipefail
cd "$(dirname "$0")/.."
bad=0
say() { echo "$*"; bad=1; }
mapfile -t sources < <(git ls-files -co --exclude-standard '*.c' '*.h')

clang-format --dry-run --Werror "${sources[@]}" || say "clang-format: make format"
scripts/layers.sh || bad=1

mapfile -t owned < <(git ls-files -co --exclude-standard '*.c' '*.h' '*.sh' Makefile .ci/run)
for f in "${owned[@]}"; do
    head -2 "$f" | grep -q 'SPDX-License-Identifier: MIT' || say "$f: no SPDX line"
done
for f in "${sources[@]}"; do
    n=$(wc -l < "$f")
    ((n <= 600)) || say "$f: $n lines, 600 are the most"
done
ctags --fields=+ne-P --c-kinds=f -f - "${sources[@]}" 2> /dev/null |
    awk -F'\t' '{ s = e = 0; for (i = 4; i <= NF; i++) { if ($i ~ /^line:/) s = substr($i, 6); if ($i ~ /^end:/) e = substr($i, 5) }
        if (e && e - s + 1 > 70) { print $2 ":" s ": " $1 " has " e - s + 1 " lines, 70 are the most"; bad = 1 } } END { exit bad }' || bad=1

# One translation unit a job. The checks stand in .clang-tidy.
printf '%s\n' "${sources[@]}" | grep '\.c$' |
    xargs -P "$(nproc)" -I{} clang-tidy --quiet --warnings-as-errors='*' {} -- -std=gnu11 -I. -Iinclude -D_GNU_SOURCE -D__XEN_TOOLS__ \
        > build/tidy.log 2> /dev/null || { grep -E 'warning|error' build/tidy.log | head -40; bad=1; }
((bad == 0)) && echo "tidy: ${#sources[@]} files clean"
exit $bad

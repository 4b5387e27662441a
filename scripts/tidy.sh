#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# tidy.sh: clang-format, the layer table, SPDX lines, sizes of files (600 lines) and functions (70 lines), and clang-tidy.
# All are run whatever the others find; each finding is a line here, and the last line is the verdict. How the analyzer
# came to what it says stands in $BUILD/tidy.log.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
log=${BUILD:-build}/tidy.log
file_lines_max=600
export function_lines_max=70
for tool in clang-format clang-tidy ctags; do
    command -v "$tool" > /dev/null || { echo "tidy: no $tool here; scripts/deps.sh check tidy installs it" >&2; exit 1; }
done
mkdir -p "${log%/*}"
mapfile -t sources < <(git ls-files -co --exclude-standard '*.c' '*.h')
mapfile -t owned < <(git ls-files -co --exclude-standard '*.c' '*.h' '*.sh' Makefile .ci/run)
((${#sources[@]})) || { echo "tidy: git names no sources here; it needs the clone" >&2; exit 1; }

format() {
    clang-format --dry-run --Werror "${sources[@]}" 2>&1 | awk -F: '/: error: / && $1 != last { print $1 ":" $2 ": not as clang-format has it: make format"; last = $1 }'
    ((PIPESTATUS[0] == 0))
}

spdx() {
    local f bad=0
    for f in "${owned[@]}"; do
        head -2 "$f" | grep -q 'SPDX-License-Identifier: MIT' || { echo "$f: no SPDX line"; bad=1; }
    done
    return $bad
}

file_sizes() {
    wc -l "${sources[@]}" |
        awk -v max=$file_lines_max '$2 != "total" && $1 > max { print $2 ": " $1 " lines, " max " are the most"; bad = 1 } END { exit bad }'
}

function_sizes() {
    ctags --fields=+ne --excmd=number --langmap=C:.c.h --c-kinds=f -f - "${sources[@]}" |
        awk -F'\t' '{ s = e = 0; for (i = 4; i <= NF; i++) { if ($i ~ /^line:/) s = substr($i, 6); if ($i ~ /^end:/) e = substr($i, 5) }
            if (e) seen++
            if (e - s + 1 > ENVIRON["function_lines_max"]) { print $2 ":" s ": " $1 " has " e - s + 1 " lines, " ENVIRON["function_lines_max"] " are the most"; bad = 1 }
        } END { if (!seen) print "ctags tells no function'\''s end"; exit bad || !seen }'
}

# Plugins are built with other projects' headers. Where these are not here (make plugins) nothing can be said.
foreign_headers_missing() {
    case $1 in
    plugins/nbdkit-*) [[ ! -e /usr/include/nbdkit-plugin.h ]] ;;
    plugins/fio-*) [[ ! -e $fio_source/config-host.h ]] ;;
    *) false ;;
    esac
}
export fio_source=${BUILD:-build}/fio-src/tree

# One translation unit a job, what it says in one piece. The checks stand in .clang-tidy.
tidy_unit() {
    local said flags=(-std=gnu11 -I. -Iinclude -D_GNU_SOURCE -D__XEN_TOOLS__)
    [[ $1 != plugins/fio-* ]] || flags+=(-isystem "$fio_source" -include "$fio_source/config-host.h")
    said=$(clang-tidy --quiet --warnings-as-errors='*' "$1" -- "${flags[@]}" 2>&1) && return
    printf '==== %s\n%s\n' "$1" "$said"
    return 1
}
export -f tidy_unit
analyze() {
    local f units=()
    for f in "${sources[@]}"; do
        [[ $f == *.c ]] || continue
        if foreign_headers_missing "$f"; then echo "$f: not analyzed, its headers are not here"; else units+=("$f"); fi
    done
    # shellcheck disable=SC2016
    printf '%s\n' "${units[@]}" | xargs -P "$(nproc)" -I{} bash -c 'tidy_unit "$1"' _ {} > "$log" && return
    if ! grep -E ': (warning|error): ' "$log" | sed "s|^$PWD/||; s|^\./||; s/,-warnings-as-errors//" | sort -u; then
        tail -20 "$log" # it did not get as far as a finding
    fi
    echo "the paths to these: $log"
    return 1
}

failed=()
check() {
    "$2" || failed+=("$1")
}
check clang-format format
check layers scripts/layers.sh
check SPDX spdx
check "file sizes" file_sizes
check "function sizes" function_sizes
check clang-tidy analyze
if ((${#failed[@]})); then
    (IFS=,; echo "tidy: failed: ${failed[*]}" | sed 's/,/, /g')
    exit 1
fi
echo "tidy: ${#sources[@]} files clean"

#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# many.sh: GUESTS (256) guests with a disk each on one blk role; SECONDS_EACH (10) of load by all; DMA=copy for that
# strategy. What is printed:
# bench/many_disks.c. The images are sparse files in TMPDIR (/tmp), so what is measured is the daemon.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
build=$(realpath "${BUILD:-build}") || exit
guests=${GUESTS:-256}
dir=$(mktemp -d "${TMPDIR:-/tmp}/dzmXXXXXX") || exit
run=$dir/run
ulimit -n "$(ulimit -Hn)"
"$build/domzerod" --foreground --run-dir "$run" ${DOMZEROD_OPTIONS:-} > "$dir/log" 2>&1 &
daemon=$!
trap 'kill $daemon; wait $daemon; rm -rf "$dir"' EXIT
for ((i = 0; i < 600; i++)); do [[ -s $run/blk.pid ]] && break; sleep 0.05; done
for ((i = 0; i <= guests; i++)); do
    truncate -s 4M "$dir/disk$i.img"
    printf 'name = "vm%d"\ndisk = [ "format=raw,vdev=xvda,access=rw,target=%s" ]\n' "$i" "$dir/disk$i.img" > "$dir/vm.cfg"
    "$build/domzero" --run-dir "$run" create "$dir/vm.cfg" > "$dir/create.log" 2>&1 || { cat "$dir/create.log"; exit 1; }
    if [[ ${DMA:-} ]]; then
        "$build/domzero" --run-dir "$run" block-set "vm$i" xvda "dma=$DMA" > /dev/null || exit 1
    fi
done
"$build/bench/many_disks" "$run" "$guests" "${SECONDS_EACH:-10}" || { tail -5 "$dir/log"; exit 1; }

#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# torture.sh fio|ext4|cuts [short]: a disk under load while its blk role is killed (SIGKILL) every two seconds.
#
#   fio    8 threads, blocks of 4 KiB to 1 MiB at random, 10 GiB written and read back (short: 384 MiB); fio compares
#          checksums, once through the disk and once in the image, from outside
#   ext4   ext4 through nbdkit and nbdfuse, mounted by the kernel (loop device, as root) or else by fuse2fs; four minutes (short:
#          20 s) of tests/peer_fsx.c on it; then e2fsck -fn on the image, and the files in it against what was written
#
#   cuts   the same ext4 by the kernel on an image with a log (backend/blk/image_log.h); for cuts of the power wherever a file
#          had been synced, and some writes later: e2fsck -fp, which replays the journal and stops at anything unexpected, then
#          e2fsck -fn, and each file that had been synced
#
# FS=fuse2fs does without the kernel's ext4, SEED= repeats what peer_fsx did, KILL_EVERY= are other seconds.
# Exit status 77 and a sentence where what it takes is not here. The last line has the figures.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
what=${1:-} short=${2:-}
[[ $what == fio || $what == ext4 || $what == cuts ]] || { echo "usage: torture.sh fio|ext4|cuts [short]" >&2; exit 2; }
build=$(realpath "${BUILD:-build}") || exit
export LC_ALL=C
kill_every=${KILL_EVERY:-2}
pids=() # of ours, ended last to first
mounts=()
loop=''
noise='' # noise: the leader of a process group

skip() {
    echo "torture $what: skipped: $1"
    exit 77
}

for program in "$build/domzerod" "$build/domzero"; do [[ -x $program ]] || skip "no $program: make"; done
dir=$(mktemp -d "${TMPDIR:-/tmp}/dztXXXXXX") || exit
run=$dir/run

unmount() { # the last mounted: by the kernel, or by fuse
    local at=${mounts[-1]}
    unset 'mounts[-1]'
    for ((i = 0; i < 100; i++)); do
        umount "$at" 2> /dev/null || fusermount3 -u "$at" 2> /dev/null || fusermount -u "$at" 2> /dev/null
        mountpoint -q "$at" || return 0
        sleep 0.1
    done
    echo "torture $what: $at cannot be unmounted"
    return 1
}

cleanup() {
    local status=$? i
    [[ -z $noise ]] || kill -9 -- "-$noise" 2> /dev/null
    for ((i = ${#pids[@]} - 1; i > 0; i--)); do kill "${pids[i]}" 2> /dev/null; done # all but the daemon
    while ((${#mounts[@]})); do unmount || { umount -l "$at" 2> /dev/null; break; }; done
    [[ -z $loop ]] || losetup -d "$loop" 2> /dev/null
    ((${#pids[@]})) && kill "${pids[0]}" 2> /dev/null
    wait
    if ((status != 0 && status != 77)); then
        for log in "$dir"/*.log; do [[ $log == *.img.log ]] || tail -n 20 "$log" | sed "s|^|${log##*/}: |"; done
        echo "torture $what: failed; its files are in $dir"
    else
        rm -rf "$dir"
    fi
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

fail() {
    echo "torture $what: $1"
    exit 1
}

await() { # SECONDS COMMAND…
    local until=$((SECONDS + $1))
    shift
    until "$@" > /dev/null 2>&1; do
        ((SECONDS <= until)) || return 1
        sleep 0.05
    done
}

dom0_start() { # BYTES of the disk, its options
    "$build/domzerod" --foreground --run-dir "$run" > "$dir/domzerod.log" 2>&1 &
    pids+=($!)
    await 30 test -s "$run/blk.pid" || fail "domzerod does not serve"
    truncate -s "$1" "$dir/disk.img"
    printf 'name = "vm"\ndisk = [ "format=raw,vdev=xvda,access=rw,target=%s" ]\n' "$dir/disk.img" > "$dir/vm.cfg"
    [[ -z ${2:-} ]] || printf 'disk_options = [ "xvda,%s" ]\n' "$2" >> "$dir/vm.cfg"
    "$build/domzero" --run-dir "$run" create "$dir/vm.cfg" > /dev/null || fail "no guest"
}

in_vm() { exec "$build/domzero" --run-dir "$run" exec vm -- "$@"; }

killer() { # until it is ended itself; one line for each role that was killed
    local pid last=
    while sleep "$kill_every"; do
        pid=$(cat "$run/blk.pid") 2> /dev/null
        [[ -n $pid && $pid != "$last" ]] && kill -9 "$pid" 2> /dev/null && last=$pid && echo "$pid"
    done
}
killer_start() {
    killer > "$dir/kills" 2> /dev/null &
    killer_pid=$!
    pids+=($!)
}
killer_stop() {
    kill "$killer_pid"
    wait "$killer_pid" 2> /dev/null
    kills=$(wc -l < "$dir/kills")
    ((kills > 0)) || fail "it was over before the role was killed once"
}

torture_fio() {
    command -v fio > /dev/null || skip "no fio"
    [[ -r $build/fio-domzero.so ]] || skip "no fio engine: make plugins"
    local mib=640 rate=
    [[ -z $short ]] || { mib=24; rate=$'rate=3m,3m\n'; } # so that it lasts some kills
    dom0_start $((8 * mib))M
    cat > "$dir/job.fio" << END
[global]
rw=randwrite
verify=crc32c
verify_fatal=1
verify_state_save=0
bsrange=4k-1m
blockalign=4k
iodepth=16
size=${mib}m
offset_increment=${mib}m
randseed=11
fsync=256
thread=1
group_reporting=1
${rate}[job]
numjobs=8
END
    killer_start
    local start=$SECONDS
    (cd "$dir" && in_vm fio "--ioengine=external:$build/fio-domzero.so" --domzero_vdev=xvda job.fio) > "$dir/fio.log" 2>&1 ||
        fail "fio found an error"
    local took=$((SECONDS - start))
    killer_stop
    (cd "$dir" && fio --ioengine=psync --verify_only --filename=disk.img job.fio) > "$dir/image.log" 2>&1 || fail "the image is not what fio wrote"
    sed -n 's/^fio: domzero: xvda: //p' "$dir/fio.log"
    ((took > 0)) || took=1
    echo "torture fio: clean: $((16 * mib)) MiB in $took s, $((16 * mib / took)) MiB/s, blk killed $kills times"
}

ext4_mount() {
    mkdir "$dir/nbd" "$dir/ext4"
    nbdfuse "$dir/nbd" --unix "$dir/socket" > "$dir/nbdfuse.log" 2>&1 &
    pids+=($!)
    await 30 test -e "$dir/nbd/nbd" || fail "nbdfuse does not serve"
    mounts+=("$dir/nbd")
    [[ $what == cuts ]] || mkfs.ext4 -q -F "$dir/nbd/nbd" > "$dir/mkfs.log" 2>&1 || fail "mkfs.ext4"
    if [[ $by == fuse2fs ]]; then # hard_remove: else a file that is closed but not yet released is renamed, and its directory stays
        fuse2fs "$dir/nbd/nbd" "$dir/ext4" -o fakeroot,hard_remove > "$dir/fuse2fs.log" 2>&1 || skip "fuse2fs cannot mount"
    else
        loop=$(losetup -f --show --direct-io=on "$dir/nbd/nbd") || skip "no loop device"
        mount -t ext4 -o "$([[ $what == cuts ]] && echo nodiscard || echo discard)" "$loop" "$dir/ext4" || skip "the kernel does not mount ext4"
    fi
    mounts+=("$dir/ext4")
}

ext4_needs() {
    for program in nbdkit nbdfuse nbdinfo mkfs.ext4 e2fsck debugfs; do command -v "$program" > /dev/null || skip "no $program"; done
    [[ -c /dev/fuse && -w /dev/fuse ]] || skip "no /dev/fuse for us"
    [[ -r $build/nbdkit-domzero-plugin.so ]] || skip "no nbdkit plugin: make plugins"
    for program in peer_fsx peer_cuts; do [[ -x $build/tests/$program ]] || skip "no $build/tests/$program: make tests"; done
}

nbdkit_start() { # its filter
    (in_vm nbdkit -f -U "$dir/socket" "$build/nbdkit-domzero-plugin.so" xvda "$@") > "$dir/nbdkit.log" 2>&1 &
    pids+=($!)
    await 30 nbdinfo --size "nbd+unix:///?socket=$dir/socket" || fail "nbdkit does not serve"
}

ext4_unmount() { # writes everything out
    unmount || exit 1
    [[ -z $loop ]] || losetup -d "$loop" && loop=
    unmount || exit 1
}

torture_ext4() {
    ext4_needs
    local seconds=240 by="the kernel's ext4" kills filter=()
    [[ -z $short ]] || seconds=20
    if [[ ${FS:-} == fuse2fs ]] || ((EUID != 0)) || ! losetup -f > /dev/null 2>&1; then
        command -v fuse2fs > /dev/null || skip "no loop device to mount, and no fuse2fs"
        by=fuse2fs
        filter=(--filter=blocksize) # it writes parts of sectors
    fi
    dom0_start 512M
    nbdkit_start "${filter[@]}"
    ext4_mount
    mkdir "$dir/shadow" "$dir/found"
    killer_start
    "$build/tests/peer_fsx" "$dir/ext4" "$dir/shadow" "${SEED:-$$}" "$seconds" 4 > "$dir/fsx.log" 2>&1 || fail "an operation failed, or what was read is not what was written"
    ext4_unmount # with the role being killed on
    killer_stop
    e2fsck -fn "$dir/disk.img" > "$dir/e2fsck.log" 2>&1 || fail "e2fsck found errors"
    debugfs -R "rdump / $dir/found" "$dir/disk.img" > "$dir/debugfs.log" 2>&1
    rm -rf "$dir/found/lost+found"
    diff -r "$dir/shadow" "$dir/found" > "$dir/diff.log" 2>&1 || fail "the files in the image are not those that were written"
    echo "torture ext4: clean: $(tail -1 "$dir/fsx.log"), by $by; blk killed $kills times; e2fsck and the files in the image agree"
}

# File N is written, synced, given its name, and the directory synced: from then on it is there. In the log that is at mark[N].
synced_files() {
    local i
    for ((i = 1; i <= files; i++)); do
        head -c $((i * 7919 % 90000 + 1)) /dev/urandom > "$dir/shadow/f$i"
        cp "$dir/shadow/f$i" "$dir/ext4/new" && sync "$dir/ext4/new" && mv "$dir/ext4/new" "$dir/ext4/f$i" && sync "$dir/ext4" || return 1
        mark[i]=$(stat -c %s "$dir/disk.img.log")
    done
}

cut_judge() { # N, PLACE in the log
    local i
    "$build/tests/peer_cuts" "$dir/before.img" "$dir/disk.img.log" "$dir/cut.img" "$2" "$2" || fail "no cut could be made"
    e2fsck -fp "$dir/cut.img" > "$dir/e2fsck.log" 2>&1
    (($? <= 1)) || fail "a cut at $2, when $1 files were synced, leaves what e2fsck -p does not repair"
    e2fsck -fn "$dir/cut.img" > "$dir/e2fsck.log" 2>&1 || fail "a cut at $2, when $1 files were synced: e2fsck -fn finds errors"
    rm -rf "$dir/found"
    mkdir "$dir/found"
    for ((i = 1; i <= $1; i++)); do echo "dump /f$i $dir/found/f$i"; done > "$dir/dump"
    debugfs -f "$dir/dump" "$dir/cut.img" > "$dir/debugfs.log" 2>&1
    for ((i = 1; i <= $1; i++)); do
        cmp -s "$dir/shadow/f$i" "$dir/found/f$i" || fail "a cut at $2, when $1 files were synced, lost file $i"
    done
    ((++cuts))
}

torture_cuts() {
    ext4_needs
    if ((EUID != 0)) || ! losetup -f > /dev/null 2>&1; then skip "no loop device for the kernel to mount"; fi
    local by="the kernel's ext4" files=60 cuts=0 i mark=()
    [[ -z $short ]] || files=12
    dom0_start 24M image=log
    mkfs.ext4 -q -F "$dir/disk.img" > "$dir/mkfs.log" 2>&1 || fail "mkfs.ext4"
    cp "$dir/disk.img" "$dir/before.img"
    nbdkit_start
    ext4_mount
    mkdir "$dir/shadow" "$dir/ext4/noise" "$dir/noise"
    setsid "$build/tests/peer_fsx" "$dir/ext4/noise" "$dir/noise" "${SEED:-$$}" 100000 1 > "$dir/fsx.log" 2>&1 &
    noise=$!
    synced_files || fail "the files could not be written"
    kill -9 -- "-$noise" || fail "what was read is not what was written"
    wait "$noise" 2> /dev/null
    noise=
    ext4_unmount
    for ((i = 1; i <= files; i++)); do
        cut_judge "$i" "${mark[i]}"
        cut_judge "$i" $((mark[i] + RANDOM * 20))
    done
    echo "torture cuts: clean: $cuts cuts of the power, $(stat -c %s "$dir/disk.img.log") bytes of log, by $by"
}

"torture_$what"

#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# demo.sh: the main job, end to end, as whoever calls it: a guest process copies DEMO_MIB of seeded data onto its second disk and reads it
# back, through the dom0 daemon; then dom0 stops and e2fsck and cmp judge the images from outside.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$(realpath "${BUILD:-build}")
mib=${DEMO_MIB:-256}
dir=$(mktemp -d /tmp/dzXXXXXX)
export DOMZERO_RUN_DIR=$dir/run
PATH=$PATH:/sbin:/usr/sbin # e2fsprogs, for an ordinary user
daemon=
cleanup() {
    [[ -n $daemon ]] && kill "$daemon" 2> /dev/null
    rm -rf "$dir"
}
trap cleanup EXIT
step() { printf '\n\033[1m%s\033[0m\n' "$*"; }

step "1. Images: an ext4 file system with this project's sources, and an empty disk of $((mib + 64)) MiB"
mkdir "$dir/tree"
cp -r README.md ARCHITECTURE.md docs include examples "$dir/tree/"
mke2fs -q -t ext4 -L domzero -d "$dir/tree" "$dir/root.img" 64M
truncate -s "$((mib + 64))M" "$dir/data.img"
"$build/examples/05-copy-into-disk" --make "$dir/source.bin" --bytes "${mib}M" --seed 1
cp examples/demo.cfg "$dir/" # its targets are relative: root.img and data.img beside it
ls -lsh "$dir"/*.img "$dir/source.bin"

step "2. dom0 starts in $DOMZERO_RUN_DIR, as $(id -un)"
"$build/domzerod"
daemon=$(cat "$DOMZERO_RUN_DIR/domzerod.pid")
"$build/domzero" create "$dir/demo.cfg"
"$build/domzero" list
"$build/domzero" block-list demo

step "3. A guest process reads its first disk; while it does, xenstore shows the device connected"
"$build/domzero" exec demo -- "$build/examples/04-read-disk" --length $((64 << 20)) xvda |
    {
        dd bs=64k count=1 iflag=fullblock status=none # the pipe is full again behind it: the guest waits
        if command -v xenstore-ls > /dev/null; then
            export XENSTORED_PATH=$DOMZERO_RUN_DIR/xenstored/socket
            for d in /local/domain/0/backend/vbd/1/51712 /local/domain/1/device/vbd/51712; do
                echo "$d"
                xenstore-ls "$d" | sed 's/^/  /'
            done >&2
        fi
        cat
    } > "$dir/seen.img"
cmp "$dir/seen.img" "$dir/root.img"
echo "what the guest read is the image, byte for byte"

step "4. It copies $mib MiB onto its second disk and reads them back with CRC-32"
"$build/domzero" exec demo -- "$build/examples/05-copy-into-disk" --file "$dir/source.bin" --report "$dir/report" xvdb

step "5. dom0 stops"
"$build/domzero" destroy demo
kill "$daemon"
for ((i = 0; i < 400; i++)); do
    [[ -e $DOMZERO_RUN_DIR/domzerod.pid ]] || break
    sleep 0.05
done
[[ ! -e $DOMZERO_RUN_DIR/domzerod.pid ]] || { echo "domzerod (pid $daemon) did not stop within 20 s" >&2; exit 1; }
daemon=

step "6. From outside: e2fsck and cmp"
e2fsck -fn "$dir/root.img"
cmp -n "$((mib << 20))" "$dir/source.bin" "$dir/data.img"
echo "data.img holds the $mib MiB, byte for byte"

step "What the guest measured"
number() { sed -E "s/.*\"$1\": \{([^}]*)\}.*/\1/; s/.*\"$2\": ([0-9.]+).*/\1/" "$dir/report"; }
printf '%-8s%12s%10s%10s%12s%12s%22s\n' "" bytes seconds IOPS "p50 us" "p99 us" "notifications/request"
for way in write read; do
    printf '%-8s%12d%10s%10s%12s%12s%22s\n' "$way" "$((mib << 20))" "$(number "$way" seconds)" "$(number "$way" iops)" \
        "$(number "$way" p50_us)" "$(number "$way" p99_us)" "$(number "$way" notifications_per_request)"
done
cat << 'EOT'

Next: README.md has the same by hand; `make check` runs the tests; `make bench` compares with plain io_uring on the same file.
EOT

#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# peer-store.sh fetch                              the directory of Xen's programs (xenstored, oxenstored, test-xenstore …)
# peer-store.sh run c|ocaml|ours DIR [OPTION…]     a store in the foreground, all its files in DIR
#
# fetch takes Debian's xen-utils-4.17 through apt into build/peers, without installing it, and compiles what stands for
# Xen there (tests/peers/xenshim.c). Exit status 77 and a sentence where it cannot be had.
#
# run ends with exec: the caller has the process to kill. The same in DIR for each of the three:
#   socket      domain 0's socket, once it serves; `run` removes an old one
#   store.pid   the process that serves the store (of ours a child of the daemon's)
# How a guest is reached differs: of c and ocaml by ring.<domid> and FIFOs (xenshim.c), from INTRODUCE with any frame and port
# on; of ours by dom/<domid>/xenstored.sock.
set -euo pipefail
source=$(realpath "$(dirname "$0")/..")
build=$(realpath -m "${BUILD:-$source/build}")
peers=$source/build/peers
bin=$peers/root/usr/lib/xen-4.17/bin
shim=$peers/xenshim.so

cannot() {
    echo "no reference xenstored: $1" >&2
    exit 77
}

# From the archive that this machine installs from. Where it has no lists of packages, or old ones, with lists of our own.
package_get() {
    local private=(-o Dir::State::lists="$PWD/apt/lists" -o Dir::Cache="$PWD/apt/cache")
    local sandbox=()
    ((EUID != 0)) || sandbox=(-o APT::Sandbox::User=root)
    timeout 60 apt-get "${sandbox[@]}" -qq download xen-utils-4.17 > log 2>&1 && return
    mkdir -p apt/lists/partial apt/cache/archives/partial
    { timeout 120 apt-get "${sandbox[@]}" "${private[@]}" -qq update && timeout 60 apt-get "${sandbox[@]}" "${private[@]}" -qq download xen-utils-4.17; } >> log 2>&1
}

fetch() {
    command -v apt-get > /dev/null && command -v dpkg-deb > /dev/null || cannot "this is no Debian"
    [[ $(dpkg --print-architecture) == amd64 ]] || cannot "xen-utils-4.17 is looked for on amd64 only"
    mkdir -p "$peers"
    exec 9> "$peers/lock"
    flock 9
    if [[ ! -x $bin/xenstored ]]; then
        cd "$peers"
        rm -rf ./*.deb root.new
        package_get || cannot "xen-utils-4.17 cannot be downloaded: $(tail -1 log)"
        dpkg-deb -x xen-utils-4.17_*.deb root.new || cannot "xen-utils-4.17 does not unpack"
        rm -rf root apt ./*.deb
        mv root.new root
    fi
    if [[ ! $shim -nt $source/tests/peers/xenshim.c ]]; then
        "${CC:-gcc}" -std=gnu11 -O2 -Wall -Wextra -D_GNU_SOURCE -D__XEN_TOOLS__ -fPIC -shared -fvisibility=hidden -o "$shim.new" \
            "$source/tests/peers/xenshim.c" >&2 || cannot "xenshim.c does not compile"
        mv "$shim.new" "$shim"
    fi
    exec 9>&-
    echo "$bin"
}

# Debian's configuration of oxenstored (in xen-utils-common) but for the paths, and without its log of all accesses, which
# would cost it time.
ocaml_conf() {
    printf '%s\n' "pid-file = $1/ocaml.pid" "xenstored-log-file = $1/ocaml.log" "access-log-nb-files = 0" "persistent = false" \
        "test-eagain = false" "merge-activate = true" "perms-activate = true" "perms-watch-activate = true" \
        "conflict-burst-limit = 5.0" "conflict-max-history-seconds = 0.05" "conflict-rate-limit-is-aggregate = true" \
        "quota-activate = true" "quota-maxentity = 1000" "quota-maxsize = 2048" "quota-maxwatch = 100" \
        "quota-transaction = 10" "quota-maxrequests = 1024" "quota-path-max = 1024" "quota-maxoutstanding = 1024" \
        "quota-maxwatchevents = 1024" "xenstored-kva = /proc/xen/xsd_kva" "xenstored-port = /proc/xen/xsd_port"
}

run() {
    local which=$1 dir=$2
    shift 2
    mkdir -p -m 700 "$dir"
    dir=$(realpath "$dir")
    rm -f "$dir/socket"
    if [[ $which == ours ]]; then
        ln -s xenstored/socket "$dir/socket"
        exec "$build/domzerod" --foreground --run-dir "$dir" --role hypervisor,store "$@"
    fi
    fetch > /dev/null
    echo $$ > "$dir/store.pid"
    ocaml_conf "$dir" > "$dir/oxenstored.conf"
    # After the last program that is not the server's: the shim is not theirs.
    export XENSHIM_DIR=$dir XENSTORED_RUNDIR=$dir XENSTORED_PATH=$dir/socket LD_PRELOAD=$shim
    if [[ $which == c ]]; then
        exec "$bin/xenstored" -N --pid-file "$dir/c.pid" --internal-db=on "$@"
    fi
    exec "$bin/oxenstored" --no-fork --config-file "$dir/oxenstored.conf" "$@"
}

case ${1:-}:${2:-} in
fetch:) fetch ;;
run:c | run:ocaml | run:ours) run "$2" "${3:?DIR}" "${@:4}" ;;
*) sed -n 's/^# \(peer-store.sh .*\)/usage: \1/p' "$0" >&2; exit 2 ;;
esac

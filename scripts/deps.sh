#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# deps.sh build|check|check tidy|check valgrind …: makes sure that the Debian packages for a target are there. Missing ones are
# installed when we are root or have sudo without a password; otherwise they are named and the target stops.
set -uo pipefail
build=(gcc make libc6-dev libxen-dev liburing-dev zlib1g-dev libncurses-dev e2fsprogs xenstore-utils)
check=(libcmocka-dev python3 binutils)
tidy=(clang-format clang-tidy universal-ctags)
valgrind=(valgrind)
drivers=(python3)
report=(python3 gnuplot-nox)
bench=(python3 gnuplot-nox fio nbdkit qemu-utils qemu-system-common) # qemu-system-common: qemu-storage-daemon
plugins=(nbdkit nbdkit-plugin-dev libnbd-bin qemu-utils fio dpkg-dev fuse3 fuse2fs)
peers=(python3-pyxs)
fuzz=(clang-14 llvm-14) # llvm-14: names in what it finds
want=("${build[@]}")
for set in "$@"; do
    case $set in
    build) ;;
    check) want+=("${check[@]}") ;;
    tidy) want+=("${tidy[@]}") ;;
    bench) want+=("${bench[@]}") ;;
    drivers) want+=("${drivers[@]}") ;;
    report) want+=("${report[@]}") ;;
    plugins) want+=("${plugins[@]}") ;;
    peers) want+=("${peers[@]}") ;;
    fuzz) want+=("${fuzz[@]}") ;;
    valgrind) want+=("${valgrind[@]}") ;;
    *) echo "deps.sh: no package set $set" >&2; exit 2 ;;
    esac
done
command -v dpkg-query > /dev/null || exit 0 # not a Debian: the compiler will say what is missing
missing=()
for p in "${want[@]}"; do
    dpkg-query -W -f '${db:Status-Status}\n' "$p" 2> /dev/null | grep -qx installed || missing+=("$p")
done
((${#missing[@]})) || exit 0
as_root=(env DEBIAN_FRONTEND=noninteractive) # behind sudo, which clears the environment
if ((EUID != 0)); then
    if command -v sudo > /dev/null && sudo -n true 2> /dev/null; then
        as_root=(sudo -n "${as_root[@]}")
    else
        echo "domzero needs these Debian packages: ${missing[*]}" >&2
        echo "install them as root:  apt-get install ${missing[*]}" >&2
        exit 1
    fi
fi
echo "installing ${missing[*]}"
said=$(mktemp) || exit
trap 'rm -f "$said"' EXIT
{ "${as_root[@]}" apt-get update -qq && "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"; } > "$said" 2>&1 ||
    { tail -20 "$said" >&2; echo "apt-get install ${missing[*]} failed" >&2; exit 1; }

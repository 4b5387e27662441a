#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# check-install.sh: installs into a scratch DESTDIR and builds an example against what was installed, shared and static.
set -euo pipefail
cd "$(dirname "$0")/.."
dest=$(mktemp -d /tmp/dziXXXXXX)
trap 'rm -rf "$dest"' EXIT
make -s install DESTDIR="$dest" PREFIX=/usr
pc=$dest/usr/lib/pkgconfig/domzero.pc
read -ra libs < <(sed -n 's/^Libs: *//p' "$pc" | sed "s|\${libdir}|$dest/usr/lib|")
read -ra private < <(sed -n 's/^Libs\.private: *//p' "$pc")
gcc -std=gnu11 -I"$dest/usr/include" -o "$dest/shared" examples/04-read-disk.c "${libs[@]}" -lz
gcc -std=gnu11 -I"$dest/usr/include" -o "$dest/static" examples/04-read-disk.c "$dest/usr/lib/libdomzero.a" "${private[@]}" -lz
exported=$(nm -D --defined-only "$dest/usr/lib/libdomzero.so" | awk '$2 ~ /[TDBR]/ {print $3}' | sed 's/@.*//' | grep -v '^dz_' || true)
[[ -z $exported ]] || { echo "libdomzero.so exports what is not dz_*: $exported"; exit 1; }
static_names=$(nm --defined-only --extern-only "$dest/usr/lib/libdomzero.a" 2> /dev/null | awk 'NF == 3 {print $3}' | grep -v '^dz_' || true)
[[ -z $static_names ]] || { echo "libdomzero.a shows what is not dz_*: $static_names"; exit 1; }
LD_LIBRARY_PATH=$dest/usr/lib "$dest/shared" --help > /dev/null
"$dest/static" --help > /dev/null
plugin=$dest/usr/lib/nbdkit/plugins/nbdkit-domzero-plugin.so
if [[ -e $plugin ]] && command -v nbdkit > /dev/null; then
    nbdkit --dump-plugin "$plugin" | grep -qx 'name=domzero' || { echo "nbdkit does not load the installed plugin"; exit 1; }
fi
echo "install: libdomzero shared and static build a program; only dz_* is visible"

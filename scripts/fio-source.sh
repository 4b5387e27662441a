#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# fio-source.sh DIR: the headers that fio's engines are built with: DIR/tree is the source of the fio that is installed,
# configured. No Debian package has these headers, and an engine must be built with those of the very fio that loads it.
#
# The source comes through apt, from the archive that this machine installs from and with its key, but through a
# configuration, package lists and a cache of our own in DIR: no file of the machine is changed, and no root is needed.
# Exit status 1 and a sentence where it cannot be had.
set -euo pipefail
dir=${1:?usage: fio-source.sh DIR}

cannot() {
    echo "no fio engine: $1" >&2
    exit 1
}

version=$(dpkg-query -W -f '${source:Version}' fio 2> /dev/null) && [[ -n $version ]] || cannot "Debian's package fio is not installed"
[[ -f $dir/tree/config-host.h && $(cat "$dir/version" 2> /dev/null) == "$version" ]] && exit 0
command -v dpkg-source > /dev/null || cannot "dpkg-source is missing (package dpkg-dev)"
rm -rf "$dir"
mkdir -p "$dir/apt/lists/partial" "$dir/apt/cache/archives/partial"
cd "$dir"

key=/usr/share/keyrings/debian-archive-keyring.gpg
options=
[[ -r $key ]] && options="[signed-by=$key] "
apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' 'Component: main' |
    sort -u | sed "s|^|deb-src $options|" > apt/sources.list
[[ -s apt/sources.list ]] || cannot "apt knows no archive of Debian here (apt-get update?)"
private=(-o Dir::Etc::sourcelist="$PWD/apt/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$PWD/apt/lists" -o Dir::Cache="$PWD/apt/cache")
((EUID != 0)) || private+=(-o APT::Sandbox::User=root)
echo "fetching the source of fio $version"
{ apt-get "${private[@]}" -qq update && apt-get "${private[@]}" -qq source --download-only "fio=$version"; } > log 2>&1 ||
    cannot "its source package cannot be had: $(tail -1 log)"
dpkg-source -x ./*.dsc tree >> log 2>&1 || cannot "its source package does not unpack: $(tail -1 log)"
(cd tree && ./configure --disable-native) >> log 2>&1 || cannot "its configure fails: see $dir/log"
rm -rf apt
echo "$version" > version

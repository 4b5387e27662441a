#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# as-user.sh: as root: clones this tree for an ordinary user and runs the README's two commands there as that user.
set -euo pipefail
cd "$(dirname "$0")/.."
user=domzero-ci
id "$user" > /dev/null 2>&1 || useradd --system --no-create-home --shell /bin/bash "$user"
dir=$(mktemp -d /tmp/dzuXXXXXX)
trap 'rm -rf "$dir"' EXIT
git clone -q . "$dir/domzero"
chown -R "$user" "$dir"
runuser -u "$user" -- env -i PATH="$PATH" HOME="$dir" XDG_RUNTIME_DIR="$dir" LC_ALL=C MAKEFLAGS="${MAKEFLAGS:-}" bash -c "cd '$dir/domzero' && make demo && make check"

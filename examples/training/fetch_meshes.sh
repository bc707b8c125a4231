#!/usr/bin/env bash
# Furniture meshes for voxels-8 (CC0 and CC-BY, in catalogues), from one Debian package.
# Needs apt-get and dpkg; run `apt-get update` first. Usage: fetch_meshes.sh DIR
set -euo pipefail
target=$(mkdir -p "${1:?usage: fetch_meshes.sh DIR}" && cd "$1" && pwd)
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT && cd "$work"
apt-get download sweethome3d-furniture
for package in ./*.deb; do dpkg -x "$package" "$target/train"; done

#!/usr/bin/env bash
# Brain volumes for the volume tokenizers: a human head to train on, a macaque held out, both from one package.
# Needs apt-get and dpkg; run `apt-get update` first. Usage: fetch_volumes.sh DIR
set -euo pipefail
target=$(mkdir -p "${1:?usage: fetch_volumes.sh DIR}" && cd "$1" && pwd)
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT && cd "$work"
apt-get download mricron-data
for package in ./*.deb; do dpkg -x "$package" "$target/train"; done

#!/usr/bin/env bash
# Photographs for the image tokenizers: training from Debian packages, held out from Python packages.
# Needs apt-get, dpkg and pip; run `apt-get update` first. Usage: fetch_images.sh DIR
set -euo pipefail
target=$(mkdir -p "${1:?usage: fetch_images.sh DIR}" && cd "$1" && pwd)
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT && cd "$work"
apt-get download mate-backgrounds gcompris-qt-data plasma-workspace-wallpapers ukui-wallpapers lomiri-wallpapers-20.04
for package in ./*.deb; do dpkg -x "$package" "$target/train"; done
pip download --quiet --no-deps --only-binary :all: scikit-image==0.25.2 scikit-learn==1.6.1
for wheel in ./*.whl; do python3 -m zipfile -e "$wheel" "$target/heldout"; done

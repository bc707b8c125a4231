#!/bin/sh
# Fetch the speech and music that benchmarks/audio.py measures on, and that no shipped tokenizer was trained on.
# Usage: benchmarks/fetch_heldout_sound.sh FOLDER     (needs a Debian or Ubuntu system after `apt-get update`)
set -eu
mkdir -p "$1"
cd "$1"
for package in fillets-ng-data-nl tuxpaint-stamps-default pocketsphinx-testdata supertux-data; do
    apt-get download "$package"
    dpkg-deb --extract "$package"_*.deb "$package"
    rm "$package"_*.deb
done

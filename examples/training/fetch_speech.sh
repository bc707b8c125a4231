#!/bin/sh
# Fetch speech and other sound to train audio tokenizers on, from Debian packages.
# Usage: examples/training/fetch_speech.sh FOLDER [all]
#     (needs a Debian or Ubuntu system after `apt-get update`)
# Without "all": Russian speech (BSD-like) and CC0 samples, about 200 MB, which `dmel-80hz` is fitted to.
# With it, 1.1 GB more: what the student of `semantic-stream` learned from; `lay_out_speech.py` sorts it by voice.
set -eu
mkdir -p "$1"
cd "$1"
packages="festvox-ru sonic-pi-samples"
if [ "${2:-}" = all ]; then
    # Prompts of telephone exchanges: one voice each, CC BY-SA 3.0.
    packages="$packages asterisk-core-sounds-en asterisk-core-sounds-en-g722 asterisk-core-sounds-es-g722"
    packages="$packages asterisk-core-sounds-fr-g722 asterisk-core-sounds-it-g722 asterisk-core-sounds-ru-g722"
    # Games and teaching programs: Czech (GPL), English (freeware), words in many languages (GPL).
    packages="$packages fillets-ng-data-cs flight-of-the-amazon-queen klettres-data tuxpaint-stamps-default gcin-voice"
    # Music, to be mixed in as noise.
    packages="$packages wesnoth-1.16-music warzone2100-music"
fi
for package in $packages; do
    [ -d "$package" ] && continue
    apt-get download "$package"
    dpkg-deb --extract "$package"_*.deb "$package"
    rm "$package"_*.deb
done

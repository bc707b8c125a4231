#!/bin/sh
# The sound that `codec-16khz` was trained on, by the packages' names, and the command that trains such a codec.
# Usage: examples/training/build_codec.sh FOLDER [MINUTES]    writes FOLDER/codec-16khz; 0.7 GB of packages, 1.8 GB of sound
# Needs a Debian or Ubuntu system after `apt-get update`, and ffmpeg's libraries: pip install 'multitok[video]'.
set -eu
folder=$1
minutes=${2:-120}
mkdir -p "$folder/packages"
(
    cd "$folder/packages"
    for package in festvox-ru fillets-ng-data-cs asterisk-core-sounds-es-g722 asterisk-core-sounds-fr-g722 \
        asterisk-core-sounds-it-g722 asterisk-core-sounds-ru-g722 gcin-voice klettres-data tuxpaint-stamps-default \
        sonic-pi-samples wesnoth-1.16-music warzone2100-music; do
        [ -d "$package" ] && continue
        apt-get download "$package"
        dpkg-deb --extract "${package}"_*.deb "$package"
        rm "${package}"_*.deb
    done
    # Danish and Greek are for measuring.
    find tuxpaint-stamps-default -name '*_da.ogg' -o -name '*_el.ogg' | xargs rm -f
)
multitok train codec "$folder/packages" --out "$folder/codec-16khz" --vocoder dmel-vocoder --minutes "$minutes"

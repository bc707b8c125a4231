#!/usr/bin/env bash
# Download and unpack the Debian packages that bpe-32k is trained and judged on (Debian 12 "bookworm", about 300 MB,
# 1.3 GB unpacked). Run `apt-get update` first. Licences: see checkpoints/bpe-32k/card.md.
#
#   bash fetch_text.sh DIR        makes DIR/<package>/usr/...
set -euo pipefail

out=$(mkdir -p "${1:?usage: fetch_text.sh DIR}" && cd "$1" && pwd)

train=(
  debian-handbook gnome-user-docs wesnoth-1.16-data
  libreoffice-help-{de,el,en-us,es,fr,hi,it,ja,ko,pt-br,ru,tr,vi,zh-cn}
  manpages manpages-dev manpages-{de,es,fr,ja,pl,ru,zh}
  fortunes fortunes-{br,cs,de,es,it,pl,ru,zh}
  python3.11-doc nodejs-doc libpython3.11-stdlib golang-1.19-src rust-src libstdc++-12-dev linux-libc-dev
)
heldout=(
  debian-reference-{de,en,es,fr,it,ja,pt,zh-cn} developers-reference-ru
  python3-networkx libeigen3-dev libjs-jquery
)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
for package in "${train[@]}" "${heldout[@]}"; do
  [ -d "$out/$package" ] && continue
  apt-get download -q "$package"
  mkdir "$package"
  dpkg -x "$package"_*.deb "$package"
  rm "$package"_*.deb
  mv "$package" "$out/$package"
done

#!/bin/sh
# Chromium, for the tests of pages. Where it may not be installed they are skipped.
set -eu

for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends chromium
else
    echo "There is no Chromium, so tests of pages are skipped (on Debian: sudo apt-get install chromium)" >&2
fi

#!/bin/sh
# The two shared libraries that no wheel brings: skia-python, which draws the bundled pictures, loads them.
set -eu
PATH="$PATH:/usr/sbin:/sbin" # ldconfig, for whom it is not on the path

if [ "$(uname)" != Linux ]; then exit 0; fi
if ldconfig -p 2>/dev/null | grep -q 'libEGL\.so\.1' && ldconfig -p | grep -q 'libGL\.so\.1'; then exit 0; fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    exec apt-get install -y -qq --no-install-recommends libegl1 libgl1
fi
echo "Please install libEGL.so.1 and libGL.so.1 (on Debian and Ubuntu: sudo apt-get install libegl1 libgl1)" >&2
exit 1

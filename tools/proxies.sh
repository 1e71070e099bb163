#!/bin/sh
# Put nginx and HAProxy, as Debian has them, into a folder of their own, for the tests of
# docs/DEPLOY.md:
#   tools/proxies.sh DIR
# Nothing is installed and no service starts.  Nothing is done where DIR is complete.
set -eu
dir=$1
[ ! -f "$dir/complete" ] || exit 0
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
chmod 755 "$tmp"
cd "$tmp"
apt-get -qq -o APT::Sandbox::User="$(id -un)" download nginx haproxy liblua5.3-0 \
    libopentracing-c-wrapper0 libopentracing1 >&2 # the rest is on every Debian system
for deb in ./*.deb; do
    dpkg -x "$deb" "$dir"
done
touch "$dir/complete"

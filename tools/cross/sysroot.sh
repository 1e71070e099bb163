#!/bin/sh
# Put arm64's jansson and cmocka, four Debian packages of 124 kB, into a folder of their own:
#   tools/cross/sysroot.sh DIR
# and DIR/meson.ini, the cross file that goes on top of tools/cross/aarch64.ini.  dpkg and
# apt of the machine are not changed and root is not needed: apt keeps the package lists of
# arm64 (9 MB to download; apt checks their signatures as ever) in a folder that goes when it
# is done.  Nothing is done where DIR is complete.
set -eu
dir=$1
[ ! -f "$dir/meson.ini" ] || exit 0
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/state/lists/partial" "$tmp/cache/archives/partial"
: >"$tmp/status"
apt() {
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 \
        -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none \
        -o Dir::State="$tmp/state" -o Dir::State::status="$tmp/status" \
        -o Dir::Cache="$tmp/cache" "$@"
}
cd "$tmp"
apt update >&2 || true # a source that has no arm64 does no harm
apt download libcmocka-dev libcmocka0 libjansson-dev libjansson4 >&2
for deb in ./*.deb; do
    dpkg -x "$deb" "$dir"
done
# The C library is the cross compiler's.
rm -rf "$dir/lib"
ln -s /usr/aarch64-linux-gnu/lib "$dir/lib"
cat >meson.ini <<END
[binaries]
exe_wrapper = ['qemu-aarch64', '-L', '$dir']

[properties]
sys_root = '$dir'
pkg_config_libdir = '$dir/usr/lib/aarch64-linux-gnu/pkgconfig'
END
mv meson.ini "$dir/meson.ini" # last: it says that the folder is complete

#!/bin/sh
# Install the Debian packages that runt needs, when some are missing.
#   tools/setup.sh build   to build and run
#   tools/setup.sh test    to run the tests too
# RUNT_NO_SETUP=1 skips all of this: the tools are there, however they came.
set -eu
[ -z "${RUNT_NO_SETUP:-}" ] || exit 0

build="gcc libc6-dev meson ninja-build pkg-config python3 ca-certificates
       libjansson-dev libcurl4-openssl-dev libssl-dev libedit-dev liblzma-dev
       zlib1g-dev libzstd-dev libmicrohttpd-dev libdnnl-dev libopenblas0-pthread"
test="clang libclang-rt-dev clang-format libcmocka-dev libsimde-dev git curl openssl
      libopenmpi-dev openmpi-bin zsh fish mandoc groff-base man-db"
# Another processor's compiler and emulators, 330 MB: without them, and on a machine that is
# not x86-64, the tests on emulated processors are left out.
[ "$(uname -m)" != x86_64 ] || test="$test gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
# For OpenAI's client and the page's tests, where no other node is installed.
command -v node >/dev/null 2>&1 || test="$test nodejs npm"
# For the page's tests, where no Chromium is installed: 230 MB, and its libraries.
browser=
for p in chromium-headless-shell chromium chromium-browser google-chrome; do
    ! command -v $p >/dev/null 2>&1 || browser=$p
done
[ -n "$browser" ] || test="$test chromium-headless-shell"
case "${1:-}" in
build) want=$build ;;
test) want="$build $test" ;;
*) echo "usage: tools/setup.sh build|test" >&2; exit 2 ;;
esac

list() { echo $want; }

if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
    echo "This is not a Debian system, so nothing was installed. runt needs what Debian" >&2
    echo "calls: $(list)" >&2
    echo "Install their equivalents, then run again with RUNT_NO_SETUP=1." >&2
    exit 1
fi

missing=
for p in $want; do
    dpkg-query -W -f '${Status}\n' "$p" 2>/dev/null | grep -q '^install ok installed' ||
        missing="$missing $p"
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "These Debian packages are missing, and neither root nor sudo is here to" >&2
        echo "install them:$missing" >&2
        exit 1
    fi
    as_root=sudo
fi
echo "Installing Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq
$as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null || {
    echo "apt-get could not install all of:$missing" >&2
    echo "(the names are Debian 12's; with their equivalents, set RUNT_NO_SETUP=1)" >&2
    exit 1
}

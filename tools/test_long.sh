#!/bin/sh
# The long campaigns: GPT-2 124M shapes end to end, a training run killed 50 times, hostile files
# through every verb, the server under load and behind proxies, its tests under ThreadSanitizer,
# the units on emulated processors, then every parser fuzzed for 30 minutes.
#   RUNT_FUZZ_SECONDS=60 make test-long   shortens the fuzzing
set -u
cd "$(dirname "$0")/.."
status=0
dir=build/test-gcc
[ -f $dir/build.ninja ] || CC=gcc meson setup $dir -Dwerror=true >/dev/null || exit 1
ninja -C $dir >/dev/null || exit 1
RUNT_LONG=1 meson test -C $dir --no-rebuild --verbose test_large || status=1
RUNT_KILLS=50 meson test -C $dir --no-rebuild --verbose test_train || status=1
sanitized=build/test-sanitize
[ -f $sanitized/build.ninja ] || CC=clang meson setup $sanitized -Dwerror=true \
    -Dbuildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false >/dev/null || exit 1
ninja -C $sanitized >/dev/null || exit 1
RUNT_LONG=1 meson test -C $sanitized --no-rebuild test_hostile_1 test_hostile_2 test_hostile_3 ||
    status=1
tools/proxies.sh build/proxies
RUNT_LONG=1 meson test -C $dir --no-rebuild --verbose test_page test_serve_load \
    test_serve_proxy || status=1
tools/test_threads.sh || status=1
tools/test_emulated.sh || status=1
tools/fuzz.sh -t "${RUNT_FUZZ_SECONDS:-1800}" -j "$(nproc)" || status=1
exit $status

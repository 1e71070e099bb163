#!/bin/sh
# The server's tests under ThreadSanitizer, in build/test-thread.
set -u
cd "$(dirname "$0")/.."
dir=build/test-thread
mkdir -p $dir
[ -f $dir/build.ninja ] ||
    CC=gcc meson setup $dir -Dwerror=true -Dbuildtype=debugoptimized -Db_sanitize=thread \
        -Db_lundef=false >$dir/setup.log || { tail -20 $dir/setup.log; exit 1; }
ninja -C $dir runt tests/serve_load tests/test_serve >$dir/build.log 2>&1 ||
    { tail -40 $dir/build.log; exit 1; }
exec meson test -C $dir --no-rebuild --print-errorlogs --suite serve

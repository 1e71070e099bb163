#!/bin/sh
# Every test with gcc; with clang, under AddressSanitizer and UBSan, units and fuzzing corpora
# again, and hostile files, abuse of the server and the chat only there; training over MPI, and
# where nvcc is, with CUDA; the kernels on emulated AArch64.
set -u
cd "$(dirname "$0")/.."
[ -n "${RUNT_TEST_DATA:-}" ] || echo "RUNT_TEST_DATA is not set: some tests will be skipped"

# one NAME COMPILER SUITES [meson options]: configure once, build, test.  A build that fails
# leaves no results, which the summary counts as a failure.
one() {
    name=$1 compiler=$2 suites=$3
    shift 3
    dir=build/test-$name
    rm -f "$dir/meson-logs/testlog.junit.xml"
    mkdir -p "$dir"
    since=$(date +%s)
    [ -f "$dir/build.ninja" ] ||
        CC=$compiler meson setup "$dir" -Dwerror=true "$@" >"$dir/setup.log" ||
        { tail -20 "$dir/setup.log"; return; }
    ninja -C "$dir" >"$dir/build.log" 2>&1 || { tail -40 "$dir/build.log"; return; }
    built=$(date +%s)
    # One more than cores: many tests wait for a clock, a browser or a process.
    meson test -C "$dir" --no-rebuild --num-processes $(($(nproc) + 1)) --print-errorlogs \
        $suites >"$dir/test.log" 2>&1 ||
        grep -vE '^ *[0-9]+/[0-9]+ .* (OK|SKIP) ' "$dir/test.log" | tail -60
    echo "$name: built in $((built - since)) s, tested in $(($(date +%s) - built)) s"
}

one gcc gcc "--no-suite hostile"
one sanitize clang "--suite unit --suite fuzz --suite hostile --no-suite once" \
    -Dbuildtype=debugoptimized -Db_sanitize=address,undefined \
    -Db_lundef=false
if command -v nvcc >/dev/null 2>&1 || [ -x /usr/local/cuda/bin/nvcc ]; then
    one parallel gcc "--suite mpi --suite cuda" -Dmpi=enabled -Dcuda=enabled -Dtests=disabled
else
    one parallel gcc "--suite mpi" -Dmpi=enabled -Dtests=disabled
fi
arm64=$(tools/test_emulated.sh arm64)
exec python3 tools/test_summary.py gcc=build/test-gcc sanitize=build/test-sanitize \
    parallel=build/test-parallel $arm64

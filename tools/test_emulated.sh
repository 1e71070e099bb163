#!/bin/sh
# Tests on processors that are not here, by QEMU's emulation of one program.
#   tools/test_emulated.sh          all of the below, then the summary
#   tools/test_emulated.sh arm64    the kernels on AArch64 alone, for tools/test.sh: what is
#                                   to be summed up (NAME=FILE) goes to standard output
#
#   arm64-neon     Cortex-A72, as in a Raspberry Pi 4       the kernels' tests
#   arm64-neondot  Cortex-A76: the dot product instruction  every unit test
#   x86-avx2       Haswell: AVX2 and nothing above it       every unit test
#   x86-nehalem    SSE4.2, no AVX                           every unit test
# With `arm64` neondot too runs the kernels' tests alone.
#
# QEMU takes an instruction that the processor lacks for illegal, so that a kernel that
# leaves its level dies.  test_kern_level checks that the level is the one named here.
# Without RUNT_TEST_DATA: its models would take an hour.
set -u
cd "$(dirname "$0")/.."
what=${1:-all}
results=
say() { echo "$@" >&2; }

# tests NAME BUILDDIR LEVEL CPU [TEST...]: run them on a processor; all units without TEST.
tests() {
    name=$1 dir=$2 level=$3 cpu=$4
    shift 4
    results="$results $name=$dir/meson-logs/$name.junit.xml"
    rm -f "$dir/meson-logs/$name.junit.xml"
    env -u RUNT_TEST_DATA RUNT_EMULATED=1 RUNT_EXPECT_LEVEL=$level QEMU_CPU=$cpu \
        meson test -C "$dir" --no-rebuild --print-errorlogs --logbase "$name" -t 8 \
        --suite unit "$@" >"$dir/$name.log" 2>&1 ||
        grep -vE '^ *[0-9]+/[0-9]+ .* (OK|SKIP) ' "$dir/$name.log" | tail -60 >&2
}

kern=$(cd tests && ls test_kern*.c | sed 's/\.c$//')
have() {
    for tool in "$@"; do
        command -v "$tool" >/dev/null 2>&1 || { say "no $tool: $missing"; return 1; }
    done
}

# build_arm64 [TARGET...]
build_arm64() {
    dir=build/test-arm64 root=build/sysroot-arm64
    missing="nothing is tested on AArch64"
    have aarch64-linux-gnu-gcc qemu-aarch64 || return
    if [ ! -f $dir/build.ninja ]; then
        tools/cross/sysroot.sh $root >build/sysroot.log 2>&1 ||
            { say "no arm64 packages ($(tail -1 build/sysroot.log)): $missing"; return 1; }
        meson setup $dir --cross-file tools/cross/aarch64.ini --cross-file $root/meson.ini \
            -Dwerror=true -Dhub=disabled -Dedit=disabled >build/arm64-setup.log 2>&1 ||
            { tail -20 build/arm64-setup.log >&2; results="$results arm64=$dir"; return 1; }
    fi
    # Nothing is left of an older build, which the summary would count.
    rm -f $dir/meson-logs/*.junit.xml
    ninja -C $dir "$@" >$dir/build.log 2>&1 ||
        { tail -40 $dir/build.log >&2; results="$results arm64=$dir"; return 1; }
}

mkdir -p build
case $what in
arm64)
    if build_arm64 $(echo "$kern" | sed 's|^|tests/|'); then
        tests arm64-neon build/test-arm64 neon cortex-a72 $kern
        tests arm64-neondot build/test-arm64 neondot cortex-a76 $kern
    fi
    echo $results
    ;;
all)
    if build_arm64; then
        tests arm64-neon build/test-arm64 neon cortex-a72 $kern
        tests arm64-neondot build/test-arm64 neondot cortex-a76
    fi
    dir=build/test-gcc missing="no other x86 processors are tested"
    if [ "$(uname -m)" = x86_64 ] && have qemu-x86_64; then
        [ -f $dir/build.ninja ] || CC=gcc meson setup $dir -Dwerror=true >/dev/null || exit 1
        ninja -C $dir >$dir/build.log 2>&1 || { tail -40 $dir/build.log >&2; exit 1; }
        export MESON_EXE_WRAPPER=qemu-x86_64
        tests x86-avx2 $dir avx2 Haswell
        # (OpenBLAS takes QEMU's own qemu64 for one that it is not, and dies)
        tests x86-nehalem $dir ref Nehalem
    fi
    [ -z "$results" ] || exec python3 tools/test_summary.py $results
    ;;
*) echo "usage: tools/test_emulated.sh [arm64]" >&2; exit 2 ;;
esac

#!/bin/sh
# Fuzz the parsers: tools/fuzz.sh [-t SECONDS] [-j JOBS] [TARGET...]
#
# Without targets all of them, JOBS (1) at a time, SECONDS (1800) each.  New inputs stay in
# build/fuzz/corpus-TARGET; executions and coverage are the last lines of
# build/fuzz/TARGET.log.  An input that fails is left in build/fuzz; add it to
# tests/fuzz/corpus/TARGET, where 'make test' replays it for ever.
set -eu
cd "$(dirname "$0")/.."
seconds=1800 jobs=1
while getopts t:j: o; do
    case $o in
    t) seconds=$OPTARG ;;
    j) jobs=$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))

dir=build/fuzz
[ -f $dir/build.ninja ] || CC=clang meson setup $dir -Dfuzz=true -Dbuildtype=debugoptimized \
    -Db_sanitize=address,undefined -Db_lundef=false -Dtests=disabled \
    -Dc_args=-fsanitize=fuzzer-no-link >/dev/null
ninja -C $dir >/dev/null

targets=${*:-$(cd $dir/tests && ls -d fuzz_*.p | sed 's/fuzz_//; s/\.p$//')}
one() {
    t=$1
    mkdir -p $dir/corpus-$t
    dict=
    [ -f tests/fuzz/$t.dict ] && dict=-dict=tests/fuzz/$t.dict
    $dir/tests/fuzz_$t -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
        -print_final_stats=1 -artifact_prefix=$dir/$t- $dict $dir/corpus-$t \
        tests/fuzz/corpus/$t >$dir/$t.log 2>&1 || { echo "$t: FAILED, see $dir/$t.log"; return 1; }
    cov=$(grep -o 'cov: [0-9]* ft: [0-9]*' $dir/$t.log | tail -1)
    n=$(sed -n 's/^stat::number_of_executed_units: *//p' $dir/$t.log)
    echo "$t: $n executions, $cov, $seconds s"
}

running=0 status=0 pids=
for t in $targets; do
    one "$t" &
    pids="$pids $!"
    running=$((running + 1))
    if [ $running -ge "$jobs" ]; then
        for p in $pids; do wait "$p" || status=1; done
        running=0 pids=
    fi
done
for p in $pids; do wait "$p" || status=1; done
exit $status

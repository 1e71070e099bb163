#!/usr/bin/env python3
"""`runt bench`: its flags, its three formats read back, its figures where they can be
counted; --profile of bench and generate; --kv of every verb that has it.  Prints TAP.

No case asks for a speed: the machine may be busy."""
import csv
import io
import json
import math
import os
import pty
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import (ROOT, RUNT, SLOW, TMP, case, environment, fails, main, misuse, note, path,
                 runt, test)

MINI = os.path.join(ROOT, "tests", "data", "mini")
HELDOUT = os.path.join(ROOT, "models", "heldout.txt")
N_CTX = 256  # of tiny-gpt2
COLUMNS = ["model", "test", "threads", "depth", "batch", "tokens", "tokens_per_second",
           "spread", "bytes_per_token", "roofline_fraction", "peak_fraction", "kv",
           "file_bytes", "load_seconds", "first_token_seconds", "peak_bytes",
           "bandwidth_bytes_per_second", "peak_ops_per_second", "ops_per_token",
           "ops_per_second", "level"]
TEXT = {"model", "test", "kv", "level"}
WHOLE = {"threads", "depth", "batch", "tokens", "file_bytes", "peak_bytes"}
ROOFLINE = {"roofline_fraction", "peak_fraction", "bandwidth_bytes_per_second",
            "peak_ops_per_second"}
OPERATIONS = ["embedding", "attn_qkv", "attention", "attn_output", "ffn_down", "head"]


def tiny(kind="f16"):
    p = path("tiny-%s.gguf" % kind)
    if not os.path.exists(p):
        runt("import", MINI, "--type", kind, "-o", p, "-q")
    return p


def odd():
    """Widths that are no multiples of a tile, a group or a stripe."""
    p = path("odd.gguf")
    if not os.path.exists(p):
        runt("init", "gpt2", "--layers", "3", "--heads", "5", "--embd", "100", "--vocab",
             "300", "--context", "64", "--seed", "1", "-o", p)
    return p


def bench(*args, models=None, **more):
    words = ["bench"]
    for m in models or [tiny()]:
        words += ["-m", m]
    r = runt(*words, "-o", "json", *args, **more)
    assert r.err == "", r
    return json.loads(r.out)


LEVELS = ("ref", "avx2", "avxvnni", "avx512vl", "avx512", "neon", "neondot")
QUICK = ("-t", "1", "-r", "1", "-p", "3", "-n", "2")


def close(a, b, part=1e-9):
    return abs(a - b) <= part * max(abs(a), abs(b))


def check_row(row, roofline=False, profile=False):
    want = COLUMNS + (["profile"] if profile else [])
    assert list(row) == want, list(row)
    for key in COLUMNS:
        value = row[key]
        if key in TEXT:
            assert isinstance(value, str) and value, (key, value)
        elif key in WHOLE:
            assert type(value) is int, (key, value)
        elif key in ROOFLINE and not roofline:
            assert value is None, (key, value)
        else:
            assert type(value) in (int, float) and math.isfinite(value), (key, value)
    assert row["test"] in ("tg", "pp") and row["kv"] in ("f16", "q8", "f32"), row
    assert row["level"] in LEVELS, row
    assert row["tokens_per_second"] > 0 and row["spread"] >= 0, row
    assert row["bytes_per_token"] > 0 and row["ops_per_token"] > 0, row
    assert 0 < row["load_seconds"] and row["peak_bytes"] > row["file_bytes"] // 2, row
    assert row["first_token_seconds"] > 0, row
    assert close(row["ops_per_second"], row["ops_per_token"] * row["tokens_per_second"])
    if roofline:
        assert close(row["roofline_fraction"], row["bytes_per_token"] *
                     row["tokens_per_second"] / row["bandwidth_bytes_per_second"]), row
        assert close(row["peak_fraction"],
                     row["ops_per_second"] / row["peak_ops_per_second"]), row


def shape_of(rows):
    return [(os.path.basename(r["model"]), r["test"], r["threads"], r["depth"], r["batch"],
             r["tokens"]) for r in rows]


# ---- flags and combinations ----

@test
def one_row_for_each_combination_in_order():
    rows = bench("-t", "1,2", "-d", "0,5", "-b", "1,3", "-p", "4", "-n", "2", "-r", "2")
    want = []
    for threads in (1, 2):
        for depth in (0, 5):
            want.append(("pp", threads, depth, 1, 4))
            want += [("tg", threads, depth, batch, 2 * batch) for batch in (1, 3)]
    assert [r[1:] for r in shape_of(rows)] == want, shape_of(rows)
    for row in rows:
        check_row(row)


@test
def long_names_are_the_short_ones():
    rows = bench("--threads=1", "--depth", "7", "--batch=2", "--n-prompt", "3", "--n-gen=2",
                 "--repetitions=1")
    assert [r[1:] for r in shape_of(rows)] == [("pp", 1, 7, 1, 3), ("tg", 1, 7, 2, 4)]
    rows = bench("-t1", "-d7", "-b2", "-p3", "-n2", "-r1")
    assert [r[1:] for r in shape_of(rows)] == [("pp", 1, 7, 1, 3), ("tg", 1, 7, 2, 4)]


@test
def depths_need_not_ascend():
    rows = bench("-d", "20,3,20,0", *QUICK)
    assert [r["depth"] for r in rows] == [20, 20, 3, 3, 20, 20, 0, 0]
    by_depth = {r["depth"]: r["bytes_per_token"] for r in rows if r["test"] == "tg"}
    again = [r["bytes_per_token"] for r in rows if r["test"] == "tg" and r["depth"] == 20]
    assert again[0] == again[1] > by_depth[3] > by_depth[0], rows


@test
def either_test_can_be_left_out():
    assert [r["test"] for r in bench(*QUICK, "-p", "0")] == ["tg"]
    assert [r["test"] for r in bench(*QUICK, "-n", "0")] == ["pp"]
    assert [r["test"] for r in bench(*QUICK, "-n", "0", "-b", "1,2,3")] == ["pp"]


@test
def one_repetition_has_no_spread():
    assert all(r["spread"] == 0 for r in bench(*QUICK))
    rows = bench(*QUICK, "-r", "4", "-p", "0")
    assert 0 < rows[0]["spread"], rows


@test
def defaults_are_what_the_help_says():
    text = runt("bench", "--help").out
    for option, default in (("--n-prompt", "512"), ("--n-gen", "128"),
                            ("--repetitions", "5"), ("--depth", "0"), ("--batch", "1"),
                            ("--kv", "auto"), ("--output", "md")):
        line = re.search(r"^.*%s .*$" % option, text, re.M).group(0)
        assert "default " + default in line, line
    rows = bench("-r", "1", "-d", "200", models=[tiny()])  # 56 positions are left
    assert [(r["test"], r["tokens"], r["batch"], r["depth"]) for r in rows] == \
        [("pp", 56, 1, 200), ("tg", 56, 1, 200)], rows
    assert rows[0]["threads"] >= 1
    rows = bench("-r", "1", "-t", "1", "-p", "0", "-d", "60", models=[tiny(), odd()])
    assert [r["tokens"] for r in rows] == [4, 4], "not what the smaller context holds"


@test
def what_fits_the_context_exactly_is_measured():
    rows = bench(*QUICK, "-d", str(N_CTX - 3))
    assert len(rows) == 2, rows


@test
def models_are_compared_row_by_row():
    rows = bench(*QUICK, "-b", "1,2", models=[tiny(), odd(), tiny("q8_0")])
    names = ["tiny-f16.gguf", "odd.gguf", "tiny-q8_0.gguf"]
    assert [r[0] for r in shape_of(rows)] == names * 3, shape_of(rows)
    assert [r["test"] for r in rows] == ["pp"] * 3 + ["tg"] * 6
    assert [r["batch"] for r in rows] == [1] * 6 + [2] * 3
    for row in rows:
        check_row(row)
        assert row["file_bytes"] == os.path.getsize(row["model"]), row


@test
def repetitions_of_two_models_alternate():
    """The progress line at a terminal names the model whose repetition has just ended.
    It is drawn at most every 0.1 s, so repetitions are made to take longer; one that was
    missed all the same does not hide the order."""
    master, slave = pty.openpty()
    for name in ("first.gguf", "second.gguf"):
        os.symlink(tiny("f32"), path(name))
    n_gen = 128
    rate = bench("-p", "0", "-n", "64", "-t", "1", "-r", "5")[0]["tokens_per_second"]
    batch = max(1, min(256, int(rate * 0.5 / n_gen)))
    p = subprocess.Popen([RUNT, "bench", "-m", "first.gguf", "-m", "second.gguf", "-p", "0",
                          "-n", str(n_gen), "-t", "1", "-r", "3", "-b", str(batch)], cwd=TMP,
                         env=environment(), stdout=subprocess.DEVNULL, stderr=slave)
    os.close(slave)
    shown = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:  # the other end is closed
            break
        shown += piece
    os.close(master)
    assert p.wait(300 * SLOW) == 0, shown
    seen = re.findall(r"(first|second)\.gguf", shown.decode())
    changes = sum(a != b for a, b in zip(seen, seen[1:]))
    # warm-up and three repetitions of two models: 7 changes; one model after the other: 3
    assert changes >= 5, seen


# ---- formats ----

@test
def csv_has_the_same_columns():
    args = ("bench", "-m", tiny(), *QUICK, "-d", "0,4", "-o", "csv")
    r = runt(*args)
    assert r.err == "", r
    table = list(csv.reader(io.StringIO(r.out)))
    assert table[0] == COLUMNS, table[0]
    assert len(table) == 5 and all(len(line) == len(COLUMNS) for line in table), table
    for line in table[1:]:
        row = dict(zip(COLUMNS, line))
        for key, value in row.items():
            if key in ROOFLINE:
                assert value == "", (key, value)
            elif key not in TEXT:
                assert math.isfinite(float(value)), (key, value)
        assert row["model"] == tiny() and row["threads"] == "1", row


@test
def names_that_need_quoting_survive():
    name = path('a "quoted", name|with | bars.gguf')
    if not os.path.exists(name):
        os.symlink(tiny(), name)
    assert bench(*QUICK, models=[name])[0]["model"] == name
    table = list(csv.reader(io.StringIO(runt("bench", "-m", name, *QUICK, "-o", "csv").out)))
    assert table[1][0] == name, table
    lines = runt("bench", "-m", name, *QUICK).out.split("\n")
    assert len(set(len(re.findall(r"(?<!\\)\|", x)) for x in lines[:4])) == 1, lines


def md_tables(text):
    """Every table as a list of rows of stripped cells, the rule checked and left out."""
    tables, lines = [], text.split("\n")
    i = 0
    while i < len(lines):
        if not lines[i].startswith("|"):
            i += 1
            continue
        j = i
        while j < len(lines) and lines[j].startswith("|"):
            assert lines[j].endswith("|") and len(lines[j]) == len(lines[i]), \
                "not aligned:\n" + "\n".join(lines[i:j + 1])
            j += 1
        rule = lines[i + 1]
        assert re.fullmatch(r"\|(-+:?\|)+", rule), rule
        table = [[c.strip() for c in x.strip("|").split("|")] for x in lines[i:j]]
        assert all(len(t) == len(table[0]) for t in table), table
        tables.append([table[0]] + table[2:])
        i = j
    return tables


@test
def markdown_is_the_default_and_aligned():
    r = runt("bench", "-m", tiny(), *QUICK, "-d", "0,4", "-b", "1,12")
    assert r.err == "", r
    tables = md_tables(r.out)
    assert len(tables) == 1 and len(tables[0]) == 1 + 6, r.out
    head = tables[0][0]
    assert head[:8] == ["model", "kv", "test", "threads", "depth", "batch", "tokens",
                        "tokens/s"], head
    for row in tables[0][1:]:
        for name, value in list(zip(head, row))[3:]:
            float(value), name
    again = runt("bench", "-m", tiny(), *QUICK, "-d", "0,4", "-b", "1,12", "-o", "md")
    assert md_tables(again.out)[0][0] == head


@test
def markdown_with_roofline_and_profile():
    r = runt("bench", "-m", tiny(), *QUICK, "--roofline", "--profile")
    tables = md_tables(r.out)
    assert len(tables) == 4, r.out
    head = tables[1][0]
    for name in ("machine's GB/s", "roofline", "machine's GOP/s", "peak"):
        assert name in head, head
    for row in tables[1][1:]:
        assert row[head.index("roofline")].endswith("%"), row
    for table in tables[2:]:
        check_profile_table(table)


# ---- figures that can be counted ----

def tensors(model):
    return {t["name"]: t for t in
            json.loads(runt("inspect", model, "--tensors", "-o", "json").out)["tensors"]}


def metadata(model, key):
    return json.loads(runt("inspect", model, "-o", "json").out)["metadata"]["gpt2." + key]


def r4_tile_bytes(n_cols):
    """fmt/r4.h: row scales, group scales, zeros up to 64; then the codes."""
    groups = -(-n_cols // 64)
    return -(-(32 + 16 * groups) // 64) * 64 + 512 * groups


def rows_bytes(t):
    """One row as the file has it; of R4 its share of a tile."""
    if t["type"] == "R4":
        return r4_tile_bytes(t["columns"]) // 16
    return {"F32": 4, "F16": 2, "BF16": 2, "Q8_0": 34 / 32, "Q5_0": 22 / 32,
            "Q4_0": 18 / 32, "Q4_1": 20 / 32}[t["type"]] * t["columns"]


def matrix_bytes(t):
    """What a product reads: tiles of 16 rows, groups of 64 columns; or rows of floats."""
    groups, tiles = -(-t["columns"] // 64), -(-t["rows"] // 16)
    group = {"Q4_0": 2 * 32 + 512, "Q4_1": 4 * 32 + 512, "Q8_0": 2 * 32 + 1024}
    group["Q5_0"] = group["Q8_0"]  # packed as such
    if t["type"] == "R4":
        return tiles * r4_tile_bytes(t["columns"])
    if t["type"] in group:
        return tiles * groups * group[t["type"]]
    return t["rows"] * rows_bytes(t)


def cache_bytes(model, kv):
    """Of one position, keys and values of all layers."""
    n_layer, n_head = metadata(model, "block_count"), metadata(model, "attention.head_count")
    n_dim = metadata(model, "embedding_length") // n_head
    padded = -(-n_dim // 4) * 4
    head = {"f32": 4 * n_dim, "f16": 2 * n_dim, "q8": 2 + padded}[kv]
    stripe = -(-16 * head // 32) * 32  # 16 positions, a multiple of 32 bytes
    return 2 * n_layer * n_head * stripe / 16


def pass_bytes(model):
    """Weights of one pass, without the rows of embeddings; and those of one token."""
    t = tensors(model)
    weights = sum(matrix_bytes(x) for name, x in t.items()
                  if name.startswith("blk.") and x["rows"] > 1)
    weights += matrix_bytes(t.get("output.weight", t["token_embd.weight"]))
    return weights, rows_bytes(t["token_embd.weight"]) + rows_bytes(t["position_embd.weight"])


@test
def bytes_per_token_are_those_that_are_read():
    for model in [tiny(k) for k in ("f32", "f16", "bf16", "q8_0", "q5_0", "q4_0", "q4_1",
                                  "r4")] + [odd()]:
        for kv in ("f16", "q8", "f32"):
            with case("bytes of %s with a cache of %s" % (os.path.basename(model), kv)):
                weights, own = pass_bytes(model)
                position = cache_bytes(model, kv)
                rows = bench("-t", "1", "-r", "1", "-p", "3", "-n", "2", "-d", "0,11", "-b",
                             "1,3", "--kv", kv, models=[model])
                for row in rows:
                    assert row["kv"] == kv, row
                    # positions that a token sees: its own, and on average half of n
                    if row["test"] == "pp":
                        want = (weights + (row["depth"] + 3) * position) / 3 + own
                    else:
                        want = weights / row["batch"] + own + (row["depth"] + 1.5) * position
                    assert close(row["bytes_per_token"], want), (row, want)


@test
def bytes_grow_with_depth_by_the_cache_of_a_position():
    for kind in ("q4_0", "f16"):
        for kv in ("f16", "q8", "f32"):
            rows = bench("-t", "2", "-r", "1", "-p", "0", "-n", "1", "-d", "0,64,128",
                         "--kv", kv, models=[tiny(kind)])
            at = [r["bytes_per_token"] for r in rows]
            want = 64 * cache_bytes(tiny(kind), kv)
            assert close(at[1] - at[0], want) and close(at[2] - at[1], want), (at, want)


@test
def operations_follow_from_the_shape():
    t = tensors(tiny())
    weights = sum(x["rows"] * x["columns"] for name, x in t.items()
                  if name.startswith("blk.") and x["rows"] > 1)
    head = t["token_embd.weight"]["rows"] * t["token_embd.weight"]["columns"]
    e, layers = metadata(tiny(), "embedding_length"), metadata(tiny(), "block_count")
    for row in bench("-t", "1", "-r", "1", "-p", "5", "-n", "3", "-d", "9", "-b", "1,2"):
        n = 5 if row["test"] == "pp" else 3
        want = 2 * weights + 4 * e * layers * (row["depth"] + (n + 1) / 2)
        want += 2 * head / (n if row["test"] == "pp" else 1)
        assert close(row["ops_per_token"], want), (row, want)


@test
def automatic_caches_are_named():
    for kind, kv in (("f32", "f32"), ("f16", "f32"), ("q8_0", "f16"), ("q4_0", "f16")):
        assert {r["kv"] for r in bench(*QUICK, models=[tiny(kind)])} == {kv}, kind


@test
def fractions_are_those_of_one_machine():
    # of 4 bits: the peak is that of such products
    rows = bench("-t", "1,2", "-r", "1", "-p", "4", "-n", "2", "-b", "1,2", "--roofline",
                 models=[tiny("q4_0")])
    assert len(rows) == 6
    for row in rows:
        check_row(row, roofline=True)
        note("%(test)s x %(batch)d on %(threads)d: %(roofline_fraction).3f of the bandwidth, "
             "%(peak_fraction).3f of the peak" % row)
        assert 0 < row["roofline_fraction"] < 1.5, row
        assert 0 < row["peak_fraction"] < 2, row  # of a machine that others use, too


# ---- profiles ----

def check_profile(rows, row):
    names = [r["name"] for r in rows]
    assert all(n in names for n in OPERATIONS) and len(set(names)) == len(names), names
    assert names[-1] == "between passes", names
    for r in rows:
        assert list(r) == ["name", "ms_per_token", "share", "bytes_per_token",
                           "bytes_per_second", "ops_per_token", "ops_per_second"], r
        assert all(math.isfinite(r[k]) and r[k] >= 0 for k in list(r)[1:]), r
    total = sum(r["share"] for r in rows)
    assert abs(total - 1) < 1e-6, total
    assert close(sum(r["bytes_per_token"] for r in rows), row["bytes_per_token"])
    assert close(sum(r["ops_per_token"] for r in rows), row["ops_per_token"])
    ms = sum(r["ms_per_token"] for r in rows)
    for r in rows:
        assert abs(r["ms_per_token"] - ms * r["share"]) < 1e-6 * ms, r
        if r["bytes_per_token"] and r["ms_per_token"]:
            assert close(r["bytes_per_second"],
                         r["bytes_per_token"] / r["ms_per_token"] * 1e3, 1e-6), r


def check_profile_table(table):
    assert table[0] == ["operation", "ms/token", "share", "MB/token", "GB/s", "Mop/token",
                        "GOP/s"], table[0]
    names = [r[0] for r in table[1:]]
    assert names[-1] == "all" and all(n in names for n in OPERATIONS), names
    shares = [float(r[2].rstrip("%")) for r in table[1:]]
    assert abs(sum(shares[:-1]) - 100) < 0.01 * len(shares) and shares[-1] == 100, shares
    ms = [float(r[1]) for r in table[1:]]
    assert abs(sum(ms[:-1]) - ms[-1]) < 1e-4 * len(ms) + 1e-3 * ms[-1], ms


@test
def a_profile_accounts_for_all_the_time():
    for threads in ("1", "2"):
        rows = bench("--profile", "-t", threads, "-r", "2", "-p", "4", "-n", "3", "-b", "1,2")
        for row in rows:
            check_row(row, profile=True)
            check_profile(row["profile"], row)
            # means of all repetitions beside their median: the same unless something broke
            ms = sum(r["ms_per_token"] for r in row["profile"])
            low, high = (1e3 / (row["tokens_per_second"] + s) for s in
                         (row["spread"], -row["spread"] * 0.999))
            assert low * 0.999 < ms and (high < 0 or ms < high * 1.001), (ms, row)


@test
def generate_shows_its_profile_on_stderr():
    plain = runt("generate", "-m", tiny(), "-p", "One day", "-n", "6", "--temp", "0")
    for more in ((), ("-o", "json"), ("-t", "2")):
        r = runt("generate", "-m", tiny(), "-p", "One day", "-n", "6", "--temp", "0",
                 "--profile", *more)
        if "json" in more:
            assert json.loads(r.out)["tokens"] == 6
        else:
            assert r.out == plain.out, r
        tables = md_tables(r.err)
        assert len(tables) == 2, r.err
        for table in tables:
            check_profile_table(table)
        assert "tokens of the prompt: 2\n" in r.err and "tokens drawn: 6\n" in r.err, r.err


# ---- errors ----

@test
def bad_lists_are_refused():
    for flag, low in (("-t", 1), ("-d", 0), ("-b", 1)):
        for bad in ("", ",", "1,", ",1", "1,,2", "1, 2", "a", "1a", "-1", "+1", "1.5", "0x2",
                    "1;2", "99999999999999999999", "1," * 32 + "1"):
            misuse("bench", "-m", tiny(), flag, bad, *QUICK[2:], words=[flag])
        if low:
            misuse("bench", "-m", tiny(), flag, "0", words=[flag, "from 1 to"])
            misuse("bench", "-m", tiny(), flag, "1,0", words=[flag, "from 1 to"])
            misuse("bench", "-m", tiny(), flag, "257", words=[flag, "256", "257"])
    misuse("bench", "-m", tiny(), "-d", "1048577", words=["-d", "1048576"])


@test
def bad_numbers_and_names_are_refused():
    for args, words in ((("-r", "0"), ["-r", "from 1"]), (("-r", "-1"), ["-r"]),
                        (("-r", "x"), ["-r", "'x'"]), (("-p", "-1"), ["-p"]),
                        (("-n", "-1"), ["-n"]), (("-n", "1e3"), ["-n"]),
                        (("-p", "0", "-n", "0"), ["nothing to measure"]),
                        (("-o", "xml"), ["md,csv,json", "'xml'"]),
                        (("-o", "text"), ["md,csv,json"]),
                        (("--kv", "f64"), ["f16, q8, f32, auto", "'f64'"]),
                        (("--profile", "-o", "csv"), ["--profile", "csv"]),
                        (("extra",), ["'extra'"])):
        misuse("bench", "-m", tiny(), *args, words=words)
    misuse("bench", words=["-m"])
    misuse("bench", *["-m", tiny()] * 33, words=["32"])


@test
def models_that_are_missing_or_broken():
    fails("bench", "-m", path("none.gguf"), words=["none.gguf"])
    fails("bench", "-m", tiny(), "-m", path("none.gguf"), *QUICK, words=["none.gguf"])
    fails("bench", "-m", MINI, words=["folder"])
    broken = path("broken.gguf")
    with open(tiny(), "rb") as f, open(broken, "wb") as g:
        g.write(f.read(100000))
    fails("bench", "-m", broken, words=["broken.gguf"])


@test
def a_depth_beyond_the_context_is_told_at_once():
    started = time.monotonic()
    fails("bench", "-m", tiny(), "-d", "0,250", "-n", "7", "-p", "0", "-r", "1000",
          words=["250", "7", "257", "256", "-n"])
    fails("bench", "-m", tiny(), "-d", "200", "-p", "57", "-r", "1000", "-n", "1",
          words=["200", "57", "257", "256", "-p"])
    fails("bench", "-m", tiny(), "-d", "256", words=["256"])
    fails("bench", "-m", tiny(), "-d", "1000000", words=["1000000", "256"])
    # the second model's context is the smaller one
    fails("bench", "-m", tiny(), "-m", odd(), "-d", "60", "-n", "5", "-p", "1", "-r", "1000",
          words=["odd.gguf", "60", "65", "64"])
    assert time.monotonic() - started < 60 * SLOW


@test
def an_interrupt_ends_it():
    p = subprocess.Popen([RUNT, "bench", "-m", tiny(), "-r", "1000", "-n", "200"],
                         env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(1.5 * SLOW)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=60 * SLOW)
    assert p.returncode == 130 and out == b"", (p.returncode, out, err)
    assert err == b"runt bench: interrupted\n", err


# ---- --kv of the other verbs ----

VERBS = {"generate": ("-p", "One day", "-n", "4", "--temp", "0"),
         "chat": ("-n", "4", "--temp", "0"),
         "eval": ("-f", HELDOUT, "--window", "64", "--max-tokens", "64", "-o", "json"),
         "bench": QUICK}


@test
def every_verb_with_a_session_takes_kv():
    for verb, args in VERBS.items():
        with case("--kv of " + verb):
            for kv in ("f16", "q8", "f32", "auto", "Q8"):
                runt(verb, "-m", tiny("q8_0"), *args, "--kv", kv, stdin="Once upon a time\n")
            for bad in ("f64", "", "q4", "f16,q8"):
                misuse(verb, "-m", tiny("q8_0"), *args, "--kv", bad, stdin="",
                       words=["--kv", "f16, q8, f32, auto"])
    with case("--kv of run"):
        runt("run", tiny("q8_0"), "-n", "2", "--kv", "q8", stdin="Once\n")
        misuse("run", tiny("q8_0"), "--kv", "f64", stdin="", words=["f16, q8, f32, auto"])


@test
def kv_reaches_the_session():
    def perplexity(model, *more):
        return json.loads(runt("eval", "-m", model, "-f", HELDOUT, "--window", "128",
                               "--max-tokens", "256", "-o", "json", *more).out)
    scores = {kv: perplexity(tiny(), "--kv", kv)["perplexity"] for kv in ("f32", "f16", "q8")}
    assert len(set(scores.values())) == 3, scores  # each rounds in its own way
    assert all(close(x, scores["f32"], 0.02) for x in scores.values()), scores
    assert perplexity(tiny())["perplexity"] == scores["f32"]
    assert perplexity(tiny("q8_0"))["perplexity"] == \
        perplexity(tiny("q8_0"), "--kv", "f16")["perplexity"]
    # the base keeps its own cache, so that a cache is compared with none
    same = perplexity(tiny(), "--base", tiny(), "--kv", "f32")
    other = perplexity(tiny(), "--base", tiny(), "--kv", "q8")
    assert same["kl_mean"] == 0 and other["kl_mean"] > 0, (same, other)
    assert other["base_perplexity"] == scores["f32"], other
    # generate: the cache that a token reads; chat: what is said when every bit counts
    read = {}
    for kv in ("f32", "f16", "q8"):
        r = runt("generate", "-m", tiny(), "--kv", kv, "--profile", *VERBS["generate"])
        row = [x for x in md_tables(r.err)[1] if x[0] == "attention"][0]
        read[kv] = float(row[3]) * 1e6 / cache_bytes(tiny(), kv)
    assert all(abs(x - read["f32"]) < 0.05 * x for x in read.values()), read
    said = {kv: runt("chat", "-m", tiny(), "--kv", kv, "-n", "200", "--temp", "1", "-s", "3",
                     stdin="One day\n").out for kv in ("f32", "f16", "q8", "auto")}
    assert said["auto"] == said["f32"], said
    assert len({said["f32"], said["f16"], said["q8"]}) > 1, said


if __name__ == "__main__":
    main()

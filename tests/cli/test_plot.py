#!/usr/bin/env python3
"""plot: a page that needs nothing else, whose points are the log's.  Prints TAP."""
import html.parser
import json
import math
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import (Skip, case, fails, limits, main, misuse, only, path, read, runt, test, write)

TITLES = ["Training loss", "Validation loss", "Gradient norm", "Learning rate",
          "Tokens per second"]
VOID = {"meta", "input", "br"}


class Page(html.parser.HTMLParser):
    """Elements, text, and the panels: title -> paths by class, labels and data."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.open = [], "", []
        self.panels, self.where = {}, None
        self.feed(text)
        self.close()
        assert not self.open, self.open
        assert list(self.panels) == [t for t in TITLES if t in self.panels], self.panels

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.elements.append((tag, attrs))
        if tag not in VOID and tag != "path" and tag != "i":
            self.open.append(tag)
        if tag == "figure":
            self.where = {"title": "", "paths": [], "data": ""}
        if tag == "path":
            self.where["paths"].append(attrs)

    def handle_startendtag(self, tag, attrs):
        assert tag == "path", tag
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        if tag in ("i", "path"):
            return
        assert self.open.pop() == tag, (tag, self.open)
        if tag == "figcaption":
            self.panels[self.where["title"]] = self.where
        if tag == "figure":
            self.where["data"] = json.loads(self.where["data"])

    def handle_data(self, data):
        if "script" in self.open and "figure" in self.open:
            self.where["data"] += data
        elif self.open[-1:] == ["figcaption"]:
            self.where["title"] += data
        elif self.open and self.open[-1] not in ("script", "style"):
            self.text += data

    def paths(self, title, kind, run=0):
        return [p["d"] for p in self.panels[title]["paths"]
                if p["class"].split()[0] == kind and p.get("data-run") == str(run)]

    def points(self, title, run=0):
        """{step: number} as the script reads them."""
        d = self.panels[title]["data"]["runs"][run]
        assert len(d["steps"]) == len(d["values"]) == len(set(d["steps"]))
        return dict(zip(d["steps"], d["values"]))


def drawn(d):
    return [tuple(map(float, p)) for p in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", d)]


def log(name, lines):
    os.makedirs(os.path.dirname(path(name)), exist_ok=True)
    return write(path(name), "".join(x if isinstance(x, str) else json.dumps(x) + "\n"
                                     for x in lines))


def page(*logs, extra=()):
    r = runt("plot", *logs, "-o", path("p.html"), *extra)
    assert r.raw == b"" and r.err == "", r
    text = read(path("p.html")).decode()
    return text, Page(text)


def steps(n, start=1):
    return [{"step": s, "loss": 3 + 2 / s, "lr": 1e-3 * s, "grad_norm": 1.5 + s % 3,
             "tokens_per_second": 1000 + s, **({"val_loss": 3.1 + 2 / s} if s % 10 == 0 else {})}
            for s in range(start, start + n)]


@test
def the_numbers_of_the_log():
    lines = steps(50)
    text, p = page(log("a.jsonl", lines))
    assert list(p.panels) == TITLES
    members = dict(zip(TITLES, ("loss", "val_loss", "grad_norm", "lr", "tokens_per_second")))
    main_tag = next(a for t, a in p.elements if t == "main")
    assert (float(main_tag["data-from"]), float(main_tag["data-to"])) == (1, 50)
    for title in TITLES:
        want = {x["step"]: x[members[title]] for x in lines if members[title] in x}
        with case("%s, for the script" % title):
            got = p.points(title)
            assert list(got) == list(want)
            assert all(math.isclose(got[s], want[s], rel_tol=1e-6) for s in want), got
        with case("%s, drawn" % title):
            kind = "raw" if p.paths(title, "raw") else "line"
            (d,) = p.paths(title, kind)
            at, data = drawn(d), p.panels[title]["data"]
            assert len(at) == len(want) and d.count("M") == 1, d
            for (x, y), (s, v) in zip(at, want.items()):
                assert abs(x - 1000 * (s - 1) / 49) < 0.06, (x, s)
                h = (v - data["lo"]) / (data["hi"] - data["lo"])
                assert abs(y - 1000 * (1 - h)) < 0.06 and 0 <= y <= 1000, (y, v)
    with case("the least is marked"):
        (ring,), (hole,) = p.paths(TITLES[1], "ring"), p.paths(TITLES[1], "hole")
        assert ring == hole and drawn(ring)[0] == drawn(p.paths(TITLES[1], "line")[0])[-1], ring
        assert "3.14 at step 50" in p.text
    with case("smoothed lines"):
        soft = p.panels[TITLES[0]]["data"]["runs"][0]["soft"]
        assert len(soft) == 5 and p.panels[TITLES[1]]["data"]["runs"][0]["soft"] == []
        (line,) = p.paths(TITLES[0], "line")
        assert [y for _, y in drawn(line)] == [round(1000 - h, 1) for h in soft[2]["heights"]]
        assert [y for _, y in drawn(p.paths(TITLES[0], "raw")[0])] == [
            round(1000 - h, 1) for h in soft[0]["heights"]]
    with case("the table"):
        for word in ("50", "3.0400", "3.1400", "at step 50", "1026"):
            assert word in p.text, word
    with case("ticks are numbers at their places"):
        spans = re.findall(r'<div class="xs">(.*?)</div>', text)[0]
        ticks = re.findall(r'<span style="left:([\d.]+)%">([\d.]+)</span>', spans)
        assert len(ticks) >= 4 and all(
            abs(float(at) - 100 * (float(label) - 1) / 49) < 0.01 for at, label in ticks), ticks


@test
def a_page_of_its_own():
    text, p = page(path("a.jsonl"))
    with case("nothing is loaded"):
        assert not [t for t, a in p.elements if t in ("link", "img", "iframe", "object", "base")]
        assert not [a for t, a in p.elements if {"src", "href", "xlink:href", "srcset"} & set(a)]
        assert "http" not in text and "@import" not in text and "url(" not in text
    with case("dark, small, printed"):
        for word in ("prefers-color-scheme: dark", "max-width: 40rem", "@media print",
                     'name="viewport"', '<meta charset="utf-8">'):
            assert word in text, word
    with case("it stands without the script"):
        tools = [a for t, a in p.elements if a.get("class") == "tools"]
        assert len(tools) == 1 and "hidden" in tools[0]  # what needs it appears with it
        assert all(len(p.paths(t, "line")) == 1 for t in TITLES)
    with case("the same bytes again"):
        page(path("a.jsonl"))
        assert read(path("p.html")).decode() == text
    with case("standard input"):
        runt("plot", "-", "-o", path("stdin.html"), stdin=read(path("a.jsonl")))
        assert Page(read(path("stdin.html")).decode()).points(TITLES[0]) == p.points(TITLES[0])
    with case("the script is a program"):
        if not shutil.which("node"):
            raise Skip("no node")
        script = text[text.rindex("<script>") + 8:text.rindex("</script>")]
        done = subprocess.run(["node", "--check", write(path("page.js"), script)],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@test
def several_runs():
    with case("names"):
        a, b = log("runs/a/log.jsonl", steps(5)), log("runs/b/log.jsonl", steps(9))
        _, p = page(a, b, path("a.jsonl"))
        legend = [a for t, a in p.elements if t == "button"]
        assert len(legend) == 3 and all(len(x["data"]["runs"]) == 3 for x in p.panels.values())
        # two are called a, and are told apart
        assert a in p.text and path("a.jsonl") in p.text and b not in p.text
        assert "at step 50" in p.text and len(p.points(TITLES[0], 1)) == 9
        assert p.points(TITLES[1], 0) == {} and p.paths(TITLES[1], "ring", 0) == []
    with case("names are text"):
        evil = log("<b>&\"'\u00e9\x01 --></script><script>alert(1)</script>".replace("/", "\u2215")
                   + ".jsonl", steps(5))
        text, p = page(evil, extra=("--title", "<script>x</script>&amp;"))
        assert "<b>&\"'\u00e9\ufffd --></script>" in p.text.replace("\u2215", "/")
        assert "<script>x</script>&amp;" in p.text
        assert len([t for t, _ in p.elements if t == "script"]) == 5
        assert "<b>&\"" not in text and "<script>x" not in text and "alert(1)</s" not in text
    with case("a name that is not UTF-8"):
        os.mkdir(os.fsencode(path("")) + b"\xff\xfe")
        shutil.copy(path("a.jsonl"), os.fsencode(path("")) + b"\xff\xfe/log.jsonl")
        _, p = page(os.fsencode(path("")) + b"\xff\xfe/log.jsonl")
        assert "\ufffd\ufffd" in p.text
    with case("more than there are colours"):
        logs = [log("many/%d.jsonl" % i, steps(3)) for i in range(20)]
        _, p = page(*logs)
        kinds = {x["class"] for x in p.panels[TITLES[0]]["paths"] if "line" in x["class"]}
        assert len(kinds) == 20, kinds


@test
def what_a_log_may_hold():
    with case("many steps are thinned, extremes stay"):
        lines = steps(20000)
        lines[7000]["loss"], lines[9000]["loss"] = 2.5, 4.5
        _, p = page(log("long.jsonl", lines))
        points = p.points(TITLES[0])
        assert len(points) <= 2000 and points[7001] == 2.5 and points[9001] == 4.5
        assert set(points) >= set(range(1, 51))  # for the logarithmic axis
        assert len(drawn(p.paths(TITLES[0], "raw")[0])) == len(points)
        assert len(p.points(TITLES[1])) <= 2000
        assert os.path.getsize(path("p.html")) < 500000
    with case("null leaves a gap, and a number between two a dot"):
        lines = steps(30)
        lines[10]["loss"] = lines[12]["loss"] = None
        del lines[20]["loss"]  # not measured: the line goes on
        _, p = page(log("gaps.jsonl", lines))
        for kind in ("raw", "line"):
            (d,) = p.paths(TITLES[0], kind)
            assert d.count("M") == 3 and d.count("h0") == 1 and len(drawn(d)) == 27, d
        assert p.points(TITLES[0])[11] is None and 21 not in p.points(TITLES[0])
    with case("a run that diverges"):
        lines = steps(40)
        for x in lines[30:]:
            x["loss"] = 10 ** (x["step"] - 30)
        lines[-1]["loss"] = lines[-2]["loss"] = None
        _, p = page(log("diverging.jsonl", lines))
        data = p.panels[TITLES[0]]["data"]
        assert 5 <= data["hi"] < 7, data["hi"]
        assert "up to 100M, beyond the scale" in p.text and "100M then not a number" in p.text
        assert all(0 <= y <= 1000 for _, y in drawn(p.paths(TITLES[0], "raw")[0]))
        assert p.points(TITLES[0])[38] == 1e8  # to be read under the pointer
    with case("a run that went on from earlier"):
        again = [dict(x, loss=9.0) for x in steps(10, start=21)]
        _, p = page(log("resumed.jsonl", steps(35) + again))
        assert list(p.points(TITLES[0])) == list(range(1, 31)) and p.points(TITLES[0])[30] == 9
    with case("a last line that was cut short"):
        for end in ('{"step": 5, "lo', '{"step": 5, "loss"', "{", "\0\0\0\0"):
            _, p = page(log("cut.jsonl", steps(4) + [end]))
            assert list(p.points(TITLES[0])) == [1, 2, 3, 4], end
        _, p = page(log("whole.jsonl", steps(4) + ['{"step": 5, "loss": 1}']))
        assert list(p.points(TITLES[0])) == [1, 2, 3, 4, 5]
    with case("one step"):
        _, p = page(log("one.jsonl", steps(1)))
        assert p.paths(TITLES[0], "line")[0].endswith("h0") and TITLES[1] not in p.panels
    with case("numbers without measure"):
        _, p = page(log("far.jsonl", [
            '{"step": 9223372036854775806, "loss": 1e17, "lr": 1e-310, "grad_norm": 1e-300}\n',
            '{"step": 9223372036854775807, "loss": 100000000000000016, "grad_norm": 9e99}\n']))
        for x in p.panels.values():
            assert all(re.fullmatch(r"[MLHh\d. ]*", a["d"]) for a in x["paths"]), x["paths"]
    with case("other members"):
        _, p = page(log("more.jsonl", [dict(x, note="<x>", time=[1]) for x in steps(3)]))
        assert list(p.points(TITLES[0])) == [1, 2, 3]


@test
def what_is_refused():
    good = log("good.jsonl", steps(3))
    for name, lines, words in (
            ("an empty log", [], ["no numbers"]),
            ("a log of steps alone", [{"step": 1}], ["no numbers"]),
            ("nothing but a line that was cut short", ['{"step": 1, "loss'], ["no numbers"]),
            ("not JSON", steps(1) + ["hello\n"] + steps(1), ["line 2"]),
            ("not JSON at the end, but whole", steps(2) + ["hello\n"], ["line 3"]),
            ("no step", [{"loss": 1}], ["line 1", "training log"]),
            ("a step below 0", [{"step": -1}], ["line 1", "step"]),
            ("a step that is a half", [{"step": 1.5}], ["line 1", "step"]),
            ("a list", ["[1, 2]\n"], ["line 1"]),
            ("a loss in words", steps(2) + [{"step": 3, "loss": "low"}],
             ["line 3", "loss is not a number"]),
            ("a member twice", ['{"step": 1, "loss": 1, "loss": 2}\n'], ["line 1"]),
            ("bytes", ["\0\x01\x02\n" * 4], ["line 1"])):
        with case(name):
            bad = log("bad.jsonl", lines)
            fails("plot", bad, "-o", path("no.html"), words=[bad, *words])
            fails("plot", good, bad, "-o", path("no.html"), words=words)
            assert not os.path.exists(path("no.html"))
    with case("no such log"):
        fails("plot", path("none"), "-o", path("no.html"), words=[path("none")])
    with case("a folder"):
        fails("plot", path("runs"), "-o", path("no.html"), words=[path("runs")])
    with case("nowhere to write"):
        fails("plot", good, "-o", path("no/where.html"), words=["no/where.html"])
    with case("the page in place of a log"):
        before = read(good)
        fails("plot", good, "-o", good, words=[good, "is a log"])
        assert read(good) == before
    with case("a full disk"):
        os.mkdir(path("disk"))
        fails("plot", good, "-o", path("disk/p.html"), words=["cannot write"],
              preexec=limits(file_size=2000))
        only(path("disk"))
    with case("no -o"):
        misuse("plot", good, words=["-o"])
    with case("no log"):
        misuse("plot", "-o", path("no.html"), words=["too few"])


main()

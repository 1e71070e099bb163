#!/usr/bin/env python3
"""plot: a page that needs nothing else, whose points are the log's.  Prints TAP."""
import html.parser
import json
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import case, fails, main, misuse, path, read, runt, test

LEFT, RIGHT, TOP, BOTTOM = 70, 884, 12, 262


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def log(name, lines):
    with open(path(name), "w", encoding="utf-8") as f:
        f.writelines(x if isinstance(x, str) else json.dumps(x) + "\n" for x in lines)
    return path(name)


def page(*logs, extra=()):
    runt("plot", *logs, "-o", path("p.html"), *extra)
    text = read(path("p.html")).decode()
    panels = [json.loads(x) for x in
              re.findall(r'<script type="application/json">(.*?)</script>', text)]
    return text, Page(text), panels


def steps(n, start=1):
    return [{"step": s, "loss": 3 + 2 / s, "lr": 1e-3, "grad_norm": 1.5,
             "tokens_per_second": 1000 + s, **({"val_loss": 3.1 + 2 / s} if s % 10 == 0 else {})}
            for s in range(start, start + n)]


@test
def what_it_draws():
    with case("the log's numbers"):
        text, p, panels = page(log("a.jsonl", steps(50)))
        assert len(panels) == 5
        points = panels[0]["runs"][0]["points"]
        assert [x[0] for x in points] == list(range(1, 51))
        assert all(abs(y - (3 + 2 / s)) < 1e-4 for s, y in points), points
        assert [x[0] for x in panels[1]["runs"][0]["points"]] == [10, 20, 30, 40, 50]
    with case("at their places"):
        d = [a["d"] for t, a in p.tags if t == "path"][0]
        drawn = [tuple(map(float, x)) for x in re.findall(r"[ML]([\d.]+) ([\d.]+)", d)]
        assert len(drawn) == 50 and d.count("M") == 1
        assert drawn[0][0] == LEFT and drawn[-1][0] == RIGHT, drawn
        # straight in both axes: three points decide the scale, all others must fit it
        ys = [3 + 2 / s for s in range(1, 51)]
        slope = (drawn[-1][1] - drawn[0][1]) / (ys[-1] - ys[0])
        assert slope < 0 and all(abs(drawn[0][1] + slope * (y - ys[0]) - at[1]) < 0.11
                                 for y, at in zip(ys, drawn))
        assert all(TOP <= y <= BOTTOM for _, y in drawn)
    with case("needs nothing else"):
        assert not re.search(r"(?:src|href|url)\s*[=(]\s*[\"']?(?!#|\(?#)(?:https?:)?//", text)
        assert not [t for t, a in p.tags if t in ("link", "img", "iframe") or "src" in a]
        assert "viewport" in text and "prefers-color-scheme" in text
    with case("several runs, a title, hostile names"):
        evil = log("<b>&'\".jsonl", steps(5))
        text, p, panels = page(path("a.jsonl"), evil, extra=("--title", "<script>x</script>"))
        assert [len(x["runs"]) for x in panels] == [2] * 5
        assert "<b>&" not in text and "<script>x" not in text
        assert "<b>&'\".jsonl" in "".join(p.text)
    with case("many steps are thinned, extremes stay"):
        lines = steps(20000)
        lines[7000]["loss"], lines[9000]["loss"] = 2.5, 4.5
        _, _, panels = page(log("long.jsonl", lines))
        points = dict(map(tuple, panels[0]["runs"][0]["points"]))
        assert len(points) <= 1500 and points[7001] == 2.5 and points[9001] == 4.5
        assert os.path.getsize(path("p.html")) < 400000
    with case("no numbers leave gaps"):
        lines = steps(30)
        lines[10]["loss"] = None
        del lines[20]["loss"]
        _, p, panels = page(log("gaps.jsonl", lines))
        assert len(panels[0]["runs"][0]["points"]) == 28
        assert [a["d"] for t, a in p.tags if t == "path"][0].count("M") == 3
    with case("a run that went on from earlier"):
        again = [dict(x, loss=9.0) for x in steps(10, start=21)]
        _, _, panels = page(log("resumed.jsonl", steps(30) + again))
        points = panels[0]["runs"][0]["points"]
        assert [x[0] for x in points] == list(range(1, 31)) and points[-1][1] == 9
    with case("a last line that is cut short"):
        _, _, panels = page(log("cut.jsonl", steps(4) + ['{"step": 5, "lo']))
        assert len(panels[0]["runs"][0]["points"]) == 4
    with case("one step"):
        page(log("one.jsonl", steps(1)))
    with case("the same bytes again"):
        page(path("a.jsonl"))
        first = read(path("p.html"))
        page(path("a.jsonl"))
        assert first == read(path("p.html"))


@test
def what_is_refused():
    good = log("good.jsonl", steps(3))
    for name, lines, words in (
            ("an empty log", [], ["no line"]),
            ("not JSON", steps(1) + ["hello\n"] + steps(1), ["line 2"]),
            ("no step", [{"loss": 1}], ["line 1", "training log"]),
            ("a step that is none", [{"step": -1}], ["line 1"]),
            ("a list", ["[1, 2]\n"], ["line 1"])):
        with case(name):
            fails("plot", log("bad.jsonl", lines), "-o", path("no.html"),
                  words=[path("bad.jsonl"), *words])
            fails("plot", good, path("bad.jsonl"), "-o", path("no.html"), words=words)
            assert not os.path.exists(path("no.html"))
    with case("no such log"):
        fails("plot", path("none"), "-o", path("no.html"), words=[path("none")])
    with case("nowhere to write"):
        fails("plot", good, "-o", path("no/where.html"), words=["no/where.html"])
    with case("no -o"):
        misuse("plot", good)


if __name__ == "__main__":
    main()

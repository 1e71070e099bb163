#!/usr/bin/env python3
"""What is drawn by a JSON schema parses and is valid: hundreds of random schemas, random
logits, and a validator that is written here.  Prints TAP."""
import datetime
import json
import os
import random
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import SLOW, Skip, main, note, test

CONSTRAINED = os.environ.get("RUNT_CONSTRAINED")


# ---- a validator ----

TYPES = {
    "null": lambda v: v is None,
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: is_number(v) and v == int(v),
    "number": lambda v: is_number(v),
    "string": lambda v: isinstance(v, str),
    "array": lambda v: isinstance(v, list),
    "object": lambda v: isinstance(v, dict),
}
UUID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"


def is_number(v):
    return isinstance(v, (int, float)) and not isinstance(v, bool)


def same(a, b):
    """JSON's equality: 1 is 1.0, but true is not 1."""
    if is_number(a) and is_number(b):
        return a == b
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b


def has_format(text, name):
    try:
        if name == "date":
            return bool(re.fullmatch(r"\d{4}-\d\d-\d\d", text) and
                        datetime.date.fromisoformat(text))
        if name == "time":
            return bool(re.fullmatch(r"\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", text) and
                        datetime.time.fromisoformat(text))
        if name == "date-time":
            day, _, time = text.partition("T")
            return has_format(day, "date") and has_format(time, "time")
    except ValueError:
        return False
    return bool(re.fullmatch(UUID, text))


def lookup(root, ref):
    at = root
    for step in ref.split("/")[1:]:
        at = at[step.replace("~1", "/").replace("~0", "~")]
    return at


def valid(s, v, root):
    if s is True or s == {}:
        return True
    if s is False:
        return False
    def ok(part, value=v):
        return valid(part, value, root)
    if "type" in s:
        names = s["type"] if isinstance(s["type"], list) else [s["type"]]
        if not any(TYPES[n](v) for n in names) and not (v is None and s.get("nullable")):
            return False
    if "enum" in s and not any(same(v, e) for e in s["enum"]):
        return False
    if "const" in s and not same(v, s["const"]):
        return False
    if is_number(v) and not (
            v >= s.get("minimum", v) and v <= s.get("maximum", v) and
            ("exclusiveMinimum" not in s or v > s["exclusiveMinimum"]) and
            ("exclusiveMaximum" not in s or v < s["exclusiveMaximum"])):
        return False
    if isinstance(v, str) and not (
            s.get("minLength", 0) <= len(v) <= s.get("maxLength", len(v)) and
            ("pattern" not in s or re.search(s["pattern"], v)) and
            ("format" not in s or has_format(v, s["format"]))):
        return False
    if isinstance(v, list):
        first = s.get("prefixItems", [])
        if not s.get("minItems", 0) <= len(v) <= s.get("maxItems", len(v)):
            return False
        if not all(ok(first[i] if i < len(first) else s.get("items", True), e)
                   for i, e in enumerate(v)):
            return False
    if isinstance(v, dict):
        if not all(k in v for k in s.get("required", [])):
            return False
        own = s.get("properties", {})
        if not all(ok(own[k] if k in own else s.get("additionalProperties", True), e)
                   for k, e in v.items()):
            return False
    return (all(ok(p) for p in s.get("allOf", [])) and
            ("anyOf" not in s or any(ok(p) for p in s["anyOf"])) and
            ("oneOf" not in s or sum(ok(p) for p in s["oneOf"]) == 1) and
            ("$ref" not in s or ok(lookup(root, s["$ref"]))))


@test
def the_validator_can_say_no():
    for schema, value in [
            ({"type": "integer"}, 1.5), ({"type": "integer"}, True), ({"enum": [1]}, True),
            ({"type": ["string", "null"]}, 1), ({"const": [1]}, [2]), ({"minimum": 3}, 2),
            ({"exclusiveMaximum": 3}, 3), ({"minLength": 2}, "é"), ({"pattern": "^a$"}, "ab"),
            ({"format": "date"}, "2023-02-29"), ({"format": "time"}, "24:00:00Z"),
            ({"format": "uuid"}, "0"), ({"minItems": 1}, []), ({"items": {"type": "null"}}, [1]),
            ({"prefixItems": [{"const": 1}]}, [2]), ({"required": ["a"]}, {}),
            ({"properties": {"a": False}}, {"a": 1}), ({"additionalProperties": False}, {"b": 1}),
            ({"oneOf": [{}, {"type": "null"}]}, None), ({"anyOf": [False]}, 1),
            ({"allOf": [{}, {"maximum": 1}]}, 2), ({"$ref": "#/$defs/x", "$defs": {"x": False}}, 1)]:
        assert not valid(schema, value, schema), (schema, value)


# ---- random schemas ----

NAMES = ["a", "b", "ab", "id", "x y", "é", "q\"", "a/b"]
PATTERNS = [r"^[a-z]{2,4}$", r"ab+c", r"^\d{3}-\d{4}$", r"^(?:a|bc)*\.$", r"^x|y$", r"^\w+\s\W$",
            r"^[^\d\s]+$", r"^.$", r"\S\D", r"^(é|€|[\u0041-\u0043])+?$", r"^$", r"[\"\\/]{2,}",
            r"^\x41\t?[^a-z]{0,3}$", r"^[^\"]*$"]


class Maker:
    def __init__(self, seed):
        self.r = random.Random(seed)
        self.defs = {}

    def chance(self, p):
        return self.r.random() < p

    def value(self, depth=0):
        r = self.r
        kind = r.randrange(9 if depth < 2 else 7)
        if kind == 7:
            return [self.value(depth + 1) for _ in range(r.randrange(3))]
        if kind == 8:
            return {n: self.value(depth + 1) for n in r.sample(NAMES, r.randrange(3))}
        return [None, True, False, r.randint(-20, 20), r.choice([0.1, -2.5, 1e-9, 3.0, 1e300]),
                r.choice(["", "ab", "é\n\"\\", "2020-02-29", "\u0001"]), r.choice(NAMES)][kind]

    def integer(self):
        r, s = self.r, {"type": "integer"}
        lo = r.choice([-1000, -17, -1, 0, 1, 5, 99, 12345678901])
        for key, at in (("minimum", lo), ("exclusiveMinimum", lo - 1), ("minimum", lo - 0.5)):
            if self.chance(0.3):
                s[key] = at
        for key, at in (("maximum", lo), ("exclusiveMaximum", lo + 1), ("maximum", lo + 0.5)):
            if self.chance(0.3):
                s[key] = at + r.choice([0, 1, 9, 100, 12345])
        return s

    def number(self):
        s = {"type": "number"}
        lo = self.r.choice([-1000, -3, 0, 7])
        if self.chance(0.5):
            s["minimum"] = lo
        if self.chance(0.5):
            s["maximum"] = lo + self.r.choice([0, 1, 12, 5000])
        return s

    def string(self):
        r, s = self.r, {"type": "string"}
        if self.chance(0.25):
            s["format"] = r.choice(["date", "time", "date-time", "uuid"])
        elif self.chance(0.4):
            s["pattern"] = r.choice(PATTERNS)
        else:
            if self.chance(0.5):
                s["minLength"] = r.randrange(4)
            if self.chance(0.5):
                s["maxLength"] = s.get("minLength", 0) + r.randrange(12)
        return s

    def array(self, depth):
        r, s = self.r, {"type": "array"}
        if self.chance(0.4):
            s["prefixItems"] = [self.schema(depth + 1) for _ in range(r.randint(1, 3))]
        if self.chance(0.8):
            s["items"] = self.schema(depth + 1) if self.chance(0.8) else r.choice([True, False])
        if self.chance(0.4):
            s["minItems"] = r.randrange(4)
        if self.chance(0.4):
            s["maxItems"] = s.get("minItems", 0) + r.randrange(4)
        return s

    def object(self, depth):
        r, s = self.r, {"type": "object"}
        if self.chance(0.85):
            s["properties"] = {n: self.schema(depth + 1)
                               for n in r.sample(NAMES, r.randrange(5))}
        if self.chance(0.5):
            known = list(s.get("properties", {})) or NAMES
            s["required"] = r.sample(known, min(len(known), r.randrange(3)))
            if self.chance(0.2):
                s["required"].append("more")
        if self.chance(0.5):
            s["additionalProperties"] = (r.choice([True, False]) if self.chance(0.6)
                                         else self.schema(depth + 1))
        return s

    def tagged(self, depth):
        """oneOf, told apart by a constant, by type, or by what is required."""
        branches = []
        for i in range(self.r.randint(2, 3)):
            s = self.object(depth)
            how = self.r.randrange(3)
            s["properties"] = {**s.get("properties", {}), "kind": {"const": i}}
            s["required"] = list(set(s.get("required", []) + ["kind"]))
            branches.append(s if how else {"type": ["null", "boolean", "integer"][i]})
        return {"oneOf": branches}

    def both(self, depth):
        """Two schemas that are to hold at once."""
        a = self.object(depth)
        b = {"properties": {n: self.schema(depth + 1) for n in self.r.sample(NAMES, 2)}}
        if self.chance(0.3):
            b["required"] = [self.r.choice(NAMES)]
        return {"allOf": [a, b]} if self.chance(0.5) else {**b, "allOf": [a]}

    def reference(self, depth):
        name = self.r.choice("pqr")
        if name not in self.defs:
            self.defs[name] = None  # in the making: may refer to itself
            self.defs[name] = self.schema(depth + 1)
        return {"$ref": "#/$defs/" + name}

    def schema(self, depth=0):
        r = self.r
        if depth > 3:
            return r.choice([{"type": "boolean"}, {"const": self.value()}, self.integer()])
        kind = r.randrange(14)
        if kind == 0:
            return {"enum": [self.value() for _ in range(r.randint(1, 4))]}
        if kind == 1:
            return r.choice([{"const": self.value()}, {}, True,
                             {"type": "string", "enum": ["x", 1, "2020-01-01", "é"],
                              "format": "date"},
                             {"enum": [1, "ab", "abc", None], "maxLength": 2, "minimum": 0}])
        if kind == 2:
            return {"type": r.sample(list(TYPES), 2)}
        if kind == 3:
            return {"type": r.choice(list(TYPES)), "nullable": True, "title": "t",
                    "description": "d", "default": 1, "examples": [2]}
        if kind == 4:
            return {"anyOf": [self.schema(depth + 1) for _ in range(r.randint(1, 3))]}
        if kind == 5:
            return self.tagged(depth)
        if kind == 6:
            return self.both(depth)
        if kind == 7:
            return self.reference(depth)
        return [self.integer, self.number, self.string, lambda: self.array(depth),
                lambda: self.object(depth), lambda: self.object(depth)][kind - 8]()


def document(seed):
    m = Maker(seed)
    s = m.schema()
    if m.defs:
        s = {**(s if isinstance(s, dict) else {}), "$defs": m.defs}
    return s


# ---- drawing ----

def draw(schemas, n, seed):
    """For each schema n answers: ("T", text), ("E", error) or ("L", "")."""
    if not CONSTRAINED:
        raise Skip("RUNT_CONSTRAINED is not set")
    lines = "".join(json.dumps(s) + "\n" for s in schemas)
    p = subprocess.run([CONSTRAINED, str(seed), str(n)], input=lines.encode(),
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=600 * SLOW)
    assert p.returncode == 0 and not p.stderr, (p.returncode, p.stderr[-2000:])
    out = [(line[:1], line[2:]) for line in p.stdout.decode("utf-8").split("\n")[:-1]]
    assert len(out) == n * len(schemas), len(out)
    return [out[i * n:(i + 1) * n] for i in range(len(schemas))]


@test
def what_is_drawn_is_valid():
    n_valid = n_long = 0
    refused = {}
    for seed in range(8):
        schemas = [document(1000 * seed + i) for i in range(100)]
        for s, answers in zip(schemas, draw(schemas, 4, seed + 1)):
            for kind, text in answers:
                if kind == "T":
                    value = json.loads(json.loads(text))
                    assert valid(s, value, s), "%s\n%s" % (json.dumps(s), text)
                    n_valid += 1
                elif kind == "L":
                    n_long += 1
                else:
                    why = re.sub(r"^.*?: ", "", text)[:40]
                    refused[why] = refused.get(why, 0) + 1
    note("%d valid, %d too long, refused: %s" % (n_valid, n_long, refused))
    known = ("no value can satisfy", "this schema refers to itself", "this branch of 'oneOf'",
             "two different 'pattern'", "two different 'format'", "'pattern' and 'format'",
             "'minLength' and 'maxLength'", "'minimum' is supported", "'maximum' is supported",
             "'exclusiveM")
    for why in refused:
        assert why.startswith(known), why
    assert n_valid > 2000 and n_long < 100, (n_valid, n_long)


@test
def several_texts_come_of_one_schema():
    """Not only the shortest: optional things come and do not, numbers differ."""
    s = {"type": "object", "properties": {
        "a": {"type": "integer", "minimum": 1, "maximum": 30}, "b": {"type": "boolean"},
        "c": {"enum": ["x", "y"]}}, "required": ["a"]}
    values = [json.loads(json.loads(text)) for row in draw([s] * 60, 4, 99) for _, text in row]
    assert len({v["a"] for v in values}) > 10
    assert {v.get("b") for v in values} == {None, True, False}
    assert {v.get("c") for v in values} == {None, "x", "y"}


if __name__ == "__main__":
    main()

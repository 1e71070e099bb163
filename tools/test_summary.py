#!/usr/bin/env python3
"""Add up Meson's test results and end with "N passed, N failed".

usage: test_summary.py NAME=BUILDDIR|NAME=FILE.xml...

Every case counts: a TAP test by its cases, any other as one.  Failed and skipped cases are
listed by name; a test program that died counts as a failed case.
"""
import json
import os
import sys
import xml.etree.ElementTree as ET


def cases(path):
    """(name, "passed" | "failed" | "skipped") for every case of a JUnit file."""
    for suite in ET.parse(path).getroot().iter("testsuite"):
        found = list(suite.iter("testcase"))
        for case in found:
            name = f'{suite.get("name").split(":")[-1]}: {case.get("name")}'
            if case.find("failure") is not None or case.find("error") is not None:
                yield name, "failed"
            elif case.find("skipped") is not None:
                yield name, "skipped"
            else:
                yield name, "passed"
        bad = int(suite.get("failures") or 0) + int(suite.get("errors") or 0)
        seen = sum(1 for c in found
                   if c.find("failure") is not None or c.find("error") is not None)
        if bad > seen:
            yield f'{suite.get("name")}: the program itself', "failed"


def died(build):
    """Tests whose cases all passed and whose program failed all the same, which JUnit leaves out."""
    path = f"{build}/meson-logs/testlog.json"
    if not os.path.exists(path):
        return
    with open(path, encoding="utf-8") as f:
        for test in map(json.loads, f):
            if test["result"] in ("ERROR", "TIMEOUT", "INTERRUPT") and \
                    not any(line.startswith("not ok") for line in test.get("stdout", "").splitlines()):
                yield f'{test["name"].split(":")[-1]}: the program itself', "failed"


def main():
    total = {"passed": 0, "failed": 0, "skipped": 0}
    skipped = set()
    for arg in sys.argv[1:]:
        name, build = arg.split("=", 1)
        count = {"passed": 0, "failed": 0, "skipped": 0}
        path = build if build.endswith(".xml") else f"{build}/meson-logs/testlog.junit.xml"
        try:
            results = [*cases(path), *died(build)]
        except (OSError, ET.ParseError) as e:
            results = [(f"{name}: no results ({e})", "failed")]
        for case, result in results:
            count[result] += 1
            if result == "failed":
                print(f"FAILED  [{name}] {case}")
            if result == "skipped":
                skipped.add(case)
        print(f"{name}: " + ", ".join(f"{n} {k}" for k, n in count.items()))
        for k, n in count.items():
            total[k] += n
    for case in sorted(skipped):
        print(f"skipped {case}")
    line = f'{total["passed"]} passed, {total["failed"]} failed'
    print(line + (f', {total["skipped"]} skipped' if total["skipped"] else ""))
    sys.exit(1 if total["failed"] or not total["passed"] else 0)


if __name__ == "__main__":
    main()

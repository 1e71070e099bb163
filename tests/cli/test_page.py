#!/usr/bin/env python3
"""The page of `runt serve` in headless Chromium (tests/page): against a mock server that fails
on demand, and against the real one.  The browser's driver and the rules of accessibility are
installed into build/page (tests/page/package.json pins them); without node, npm, the registry
or Chromium the cases are skipped.  Prints TAP.

    test_page.py NAME ...   only these files of tests/page, as talk or real"""
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from serve_fixture import Server, main, slow, tiny
from tap import ROOT, SLOW, Skip, case, test

FOLDER = os.path.join(ROOT, "build", "page")
FILES = os.path.join(ROOT, "tests", "page")
SOURCES = os.path.join(ROOT, "src", "serve")
LIMIT = 1200  # seconds for one file of cases


def browser():
    for name in ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"):
        if shutil.which(name):
            return shutil.which(name)
    raise Skip("Chromium is not there")


def install():
    """The folder with the packages; raises Skip where they cannot be had."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        raise Skip("node or npm is not there")
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    if int(re.match(r"v(\d+)", version).group(1)) < 18:
        raise Skip("node %s is older than 18" % version.strip())
    os.makedirs(FOLDER, exist_ok=True)
    lock = os.path.join(FILES, "package-lock.json")
    installed = os.path.join(FOLDER, "node_modules", ".package-lock.json")
    if os.path.exists(installed) and os.path.getmtime(installed) > os.path.getmtime(lock):
        return
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(os.path.join(FILES, name), os.path.join(FOLDER, name))
    done = subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                          cwd=FOLDER, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True)
    if done.returncode:
        shutil.rmtree(os.path.join(FOLDER, "node_modules"), ignore_errors=True)
        raise Skip("npm cannot install playwright-core and axe-core: " +
                   " ".join(done.stderr.split())[-200:])


def wanted(name):
    if sys.argv[1:] and name not in sys.argv[1:]:
        raise Skip("not asked for")


def run(name, which="", url=""):
    """The cases of a file as cases of ours."""
    wanted(name)
    env = dict(os.environ, RUNT_NPM=FOLDER, RUNT_CHROMIUM=browser(), RUNT_URL=url,
               RUNT_SLOW=str(2 * SLOW))
    install()
    done = subprocess.run([shutil.which("node"), os.path.join(FILES, name + ".mjs"), which],
                          env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=LIMIT * SLOW)
    found = re.findall(r"^(ok|not ok) \d+ - (.*)\n((?:# .*\n)*)", done.stdout, re.M)
    for state, title, why in found:
        with case("page: " + title):
            assert state == "ok", why
    with case("page: all cases of %s %s" % (name, which)):
        plan = re.search(r"^1\.\.(\d+)$", done.stdout, re.M)
        assert plan and int(plan.group(1)) == len(found) > 0, done.stdout[-3000:]


@test
def the_page_has_no_inline_handlers():
    """The policy allows inline scripts, not what depends on it beyond that."""
    page = open(os.path.join(SOURCES, "page.html"), encoding="utf-8").read()
    assert not re.search(r"<[^>]*\son\w+\s*=", page)
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
    assert not re.search(r'href="javascript:', page)


@test
def models_texts_never_become_html():
    for name in sorted(os.listdir(SOURCES)):
        if name.startswith("page") and name.endswith(".js"):
            text = open(os.path.join(SOURCES, name), encoding="utf-8").read()
            found = re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|"
                              r"\beval\(|new Function|createContextualFragment", text)
            assert not found, (name, found.group(0))
            assert text.count("\n") <= 700, name


@test
def conversations():
    run("talk")


@test
def what_the_browser_keeps():
    run("keep")


@test
def what_goes_wrong():
    run("faults")


@test
def texts_that_nobody_expects():
    run("hostile")


@test
def how_small_can_it_go():
    run("small")


@test
def for_everybody():
    run("access")


@test
def with_the_real_server():
    wanted("real"), browser(), install()
    models = ["-m", "f16=" + tiny("f16"), "-m", "q8=" + tiny("q8_0")]
    with Server(*models, "--temp", "0.55", model="q4=" + tiny()) as s:
        run("real", "^plain:", "http://127.0.0.1:%d/" % s.port)
    with Server("--parallel", "1", "--queue", "0", model=slow()) as s:
        run("real", "^slow:", "http://127.0.0.1:%d/" % s.port)
    with Server("--api-key", "secret") as s:
        run("real", "^key:", "http://127.0.0.1:%d/" % s.port)
    with Server(template=None) as s:
        run("real", "^base:", "http://127.0.0.1:%d/" % s.port)


if __name__ == "__main__":
    main()

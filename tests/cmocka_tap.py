#!/usr/bin/env python3
"""Run a cmocka program and mend its TAP: cmocka 1.1 reports a skipped test as "not ok",
which Meson counts as a failure.  MESON_EXE_WRAPPER is the emulator to run it by, if any:
Meson sets it in a cross build, tools/test_emulated.sh in others."""
import os
import re
import shlex
import subprocess
import sys

command = shlex.split(os.environ.get("MESON_EXE_WRAPPER", "")) + sys.argv[1:]
with subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                      errors="replace") as child:
    for line in child.stdout:
        skip = re.match(r"not ok (\d+) # SKIP (.*)", line)
        if skip:
            line = f"ok {skip[1]} - {skip[2]} # SKIP\n"
        elif not re.match(r"(not )?ok |1\.\.|#", line):
            line = "# " + line  # a test's own message
        print(line, end="", flush=True)
sys.exit(child.returncode)

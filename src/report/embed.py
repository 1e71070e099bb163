"""Files as strings of C: embed.py OUT NAME.css NAME.gbnf NAME.js."""
import json
import os
import sys

names = {".css": "style", ".gbnf": "grammar", ".js": "script"}
with open(sys.argv[1], "w", encoding="utf-8") as out:
    for path in sys.argv[2:]:
        base, end = os.path.splitext(os.path.basename(path))
        out.write("static const char %s_%s[] =\n" % (base, names[end]))
        with open(path, encoding="ascii") as f:
            out.writelines("    %s\n" % json.dumps(line) for line in f)
        out.write("    ;\n")

"""The page as one string of C: embed_page.py OUT page.html [page.css] [page.js].

The page names its style and script as files, so that it can be opened from the folder;
here they become part of it."""
import os
import re
import sys

files = {}
for path in sys.argv[2:]:
    with open(path, encoding="utf-8") as f:
        files[os.path.basename(path)] = f.read()
page = files["page.html"]
page = re.sub(r'<link rel="stylesheet" href="([^"]+)">',
              lambda m: "<style>\n%s</style>" % files[m.group(1)], page)
page = re.sub(r'<script src="([^"]+)"( defer)?></script>',
              lambda m: "<script>\n%s</script>" % files[m.group(1)], page)
escapes = {ord('"'): '\\"', ord("\\"): "\\\\", ord("?"): "\\?"}
with open(sys.argv[1], "w", encoding="ascii") as out:
    out.write("static const char serve_page[] =\n")
    for line in page.encode().splitlines():
        out.write('    "%s\\n"\n' % "".join(
            escapes.get(c) or (chr(c) if 32 <= c < 127 else "\\%03o" % c) for c in line))
    out.write("    ;\n")

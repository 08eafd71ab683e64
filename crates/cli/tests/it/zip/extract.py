"""Extracts an archive into a folder and prints path and content of every file there is then, as JSON."""
import json
import os
import sys
import zipfile

archive, folder = sys.argv[1:]
with zipfile.ZipFile(archive) as opened:
    assert opened.testzip() is None
    opened.extractall(folder)
found = {}
for path, _, names in os.walk(folder):
    for name in names:
        full = os.path.join(path, name)
        with open(full, encoding="utf-8") as content:
            found[os.path.relpath(full, folder)] = content.read()
json.dump(found, sys.stdout)

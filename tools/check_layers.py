#!/usr/bin/env python3
"""Prints which folder of vitrail/ includes which, and fails on an include that points up (docs/layers.md)."""
import argparse
import collections
import pathlib
import re
import sys

LAYERS = {
    "core": 0,
    "config": 1, "kernels": 1, "comm": 1,
    "io": 2, "patching": 2, "ops": 2,
    "data": 3, "nn": 3,
    "models": 4,
    "parallel": 5,
    "train": 6,
    "app": 7,
}
WITHOUT_TORCH = {"core", "config", "kernels", "comm", "io"}
# models/ may know of data/ only the types it shares with it.
ONLY_HEADER = {("models", "data"): "vitrail/data/batch.h"}

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quiet", action="store_true", help="print only what is wrong")
arguments = parser.parse_args()

root = pathlib.Path(__file__).resolve().parent.parent / "vitrail"
edges, wrong = collections.Counter(), []
for path in sorted(root.rglob("*")):
    if path.suffix not in {".h", ".cpp", ".cu", ".cuh"}:
        continue
    folder = path.relative_to(root).parts[0]
    if folder not in LAYERS:
        wrong.append(f"{path}: folder {folder} has no layer")
        continue
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if folder in WITHOUT_TORCH and re.match(r"#include <(ATen|torch|c10)/", line):
            wrong.append(f"{path}:{number}: {folder} must not use torch")
        found = re.match(r'#include "(vitrail/(\w+)/[^"]+)"', line)
        if not found or found[2] == folder:
            continue
        header, target = found[1], found[2]
        edges[folder, target] += 1
        if LAYERS.get(target, 99) >= LAYERS[folder]:
            wrong.append(f"{path}:{number}: {folder} (layer {LAYERS[folder]}) includes {header} (layer {LAYERS.get(target)})")
        if ONLY_HEADER.get((folder, target), header) != header:
            wrong.append(f"{path}:{number}: {folder} may include only {ONLY_HEADER[folder, target]} of {target}/")
if not arguments.quiet:
    for folder in LAYERS:
        targets = ", ".join(f"{t} ({n})" for (f, t), n in sorted(edges.items()) if f == folder)
        print(f"{LAYERS[folder]} {folder:9} -> {targets or '-'}")
for line in wrong:
    print(line, file=sys.stderr)
sys.exit(bool(wrong))

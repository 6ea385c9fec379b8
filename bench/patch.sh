#!/usr/bin/env bash
# `vitrail bench patch` beside the published way in Python (bench/peers/adaptive_python.py) on the same images, by turns, three times
# each. Writes a JSON object a run and prints medians and ratios: tree and tokens together (the edge map apart, as the published
# numbers are), paste, and the edge map beside OpenCV. The peer has one thread and counts its CPU time, as the rows of one thread
# do; rows of more threads (THREADS, default all cores) count the time that passes. About 2 minutes on 2 cores, 1 GB a thread.
# usage: bench/patch.sh VITRAIL OUT_DIR [CASE...]     cases: image256 rgb512 image4096 volume64 volume128 (default: all)
set -euo pipefail
cd "$(dirname "$0")/.."
vitrail=$1 out=$2
shift 2
python=${PYTHON:-.venv/bin/python3} seconds=${SECONDS_A_STEP:-0.5}
[ $# -gt 0 ] || set -- image256 rgb512 image4096 volume64 volume128
cases=$(IFS=,; echo "$*")
mkdir -p "$out"
{ grep -m1 "model name" /proc/cpuinfo; nproc; cat /proc/loadavg; } > "$out/machine.txt"
for run in 1 2 3; do
  "$vitrail" bench patch --device cpu --threads "${THREADS:-0}" --cases "$cases" --seconds "$seconds" --images "$out/images" --json "$out/ours.$run.json" > "$out/ours.$run.txt"
  $python bench/peers/adaptive_python.py "$out/images" --cases "$cases" --seconds "$seconds" --json "$out/peer.$run.json" > "$out/peer.$run.txt"
done
cat /proc/loadavg >> "$out/machine.txt"
$python - "$out" "$@" <<'PY'
import json, statistics, sys
out, cases = sys.argv[1], sys.argv[2:]
ours = [json.load(open(f"{out}/ours.{run}.json")) for run in (1, 2, 3)]
peer = [json.load(open(f"{out}/peer.{run}.json")) for run in (1, 2, 3)]
case_of = lambda run, name: next(case for case in run["cases"] if case["name"] == name)
middle = lambda value: statistics.median(value(run) for run in range(3))
print(f"{ours[0]['machine']}, {ours[0]['cores']} cores; peer: {peer[0]['peer']}\nMilliseconds a sample, medians of 3 runs.\n")
print("| case | leaves ours, peer | threads | edge map | OpenCV | ratio | tree | tokens | peer's tree, tokens | ratio | paste | peer's | ratio | labels | whole "
      "| samples/s |\n|" + "---|" * 16)
for name in cases:
    for place, times in enumerate(case_of(ours[0], name)["times"]):
        us = {key: middle(lambda run: case_of(ours[run], name)["times"][place][key]) for key in times if key.endswith("_ms")}
        them = {key: middle(lambda run: case_of(peer[run], name)[key]) for key in ("edge_map_ms", "tree_ms", "serialise_ms", "paste_ms")}
        ratio = lambda a, b: f"{a / b:.3g}"
        # A volume's edge map is another thing: OpenCV's is slice by slice.
        print(f"| {name} | {times['leaves']:.0f}, {case_of(peer[0], name)['leaves']} | {times['threads']} | {us['edge_map_ms']:.3g} | {them['edge_map_ms']:.3g} "
              f"| {ratio(them['edge_map_ms'], us['edge_map_ms'])} | {us['tree_ms']:.3g} | {us['serialise_ms']:.3g} "
              f"| {them['tree_ms']:.3g}, {them['serialise_ms']:.3g} "
              f"| {ratio(them['tree_ms'] + them['serialise_ms'], us['tree_ms'] + us['serialise_ms'])} | {us['paste_ms']:.3g} | {them['paste_ms']:.3g} "
              f"| {ratio(them['paste_ms'], us['paste_ms'])} | {us['labels_ms']:.3g} | {us['whole_ms']:.3g} | {1e3 / us['whole_ms']:.0f} |")
PY

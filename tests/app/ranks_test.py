"""`vitrail train` on several ranks that do not agree, or one of which stalls or dies: one clear message, in time.

usage: ranks_test.py CASE
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

from program import MPIRUN, VITRAIL, make_workplace

LIMIT_S = 20.0
MPI = [MPIRUN, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]


def finish(command, **more):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **more)
    return done.returncode, done.stdout + done.stderr


def must(condition, what, text):
    if not condition:
        sys.exit(f"{what}\n{text}")


def another_recipe(recipe, _):
    ours, theirs = [VITRAIL, "train", recipe], [VITRAIL, "train", recipe, "train.steps=30"]
    code, text = finish(MPI + ["-n", "2"] + ours + [":", "-n", "2"] + theirs)
    must(code == 2, f"exit code {code}", text)
    lines = [line for line in text.splitlines() if "[handshake]" in line]
    must(len(lines) == 1 and "ranks 2, 3 differs" in lines[0] and "steps: 30" in lines[0], "handshake's line", text)
    print(lines[0])


def recipe_errors_once(recipe, _):
    for override, words in (("train.stepz=3", "stepz"), ("data.batch_size=33", "data.batch_size")):
        code, text = finish(MPI + ["-n", "4", VITRAIL, "train", recipe, override])
        must(code == 2, f"exit code {code}", text)
        lines = [line for line in text.splitlines() if words in line]
        must(len(lines) == 1, f"printed {len(lines)} times", text)
        print(lines[0])


def ranks_of(name):
    """Process ids by rank of the job whose command line holds the name."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open(f"/proc/{pid}/cmdline").read().split("\0")
            if words[0] == VITRAIL and f"run.name={name}" in words:
                variables = dict(v.split("=", 1) for v in open(f"/proc/{pid}/environ").read().split("\0") if "=" in v)
                found[int(variables["OMPI_COMM_WORLD_RANK"])] = int(pid)
        except (OSError, KeyError):
            pass
    return found


def losing_a_rank(recipe, folder, layout, how):
    name = f"lost-{how}-{os.getpid()}"
    command = MPI + ["-n", "4", VITRAIL, "train", recipe, f"run.name={name}", "train.steps=100000", "model.num_heads=4",
                     "model.depth=4", "logging.html=false"] + layout
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                           env=dict(os.environ, VITRAIL_COMM_TIMEOUT_S="3"))
    metrics = os.path.join(folder, "runs", name, "metrics.jsonl")
    start = time.time()
    while job.poll() is None and time.time() - start < 60 and not (os.path.exists(metrics) and os.path.getsize(metrics) > 500):
        time.sleep(0.1)
    if job.poll() is not None:
        must(False, "ended before it began", job.communicate()[0])
    start = time.time()
    victim = ranks_of(name)[3]
    os.kill(victim, signal.SIGSTOP if how == "stall" else signal.SIGKILL)
    try:
        text = job.communicate(timeout=60)[0]
    except subprocess.TimeoutExpired:
        job.kill()
        must(False, "hangs", job.communicate()[0])
    finally:
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            pass
    seconds = time.time() - start
    lines = [line for line in text.splitlines() if re.search(r"\[comm\].* rank [0-9, ]*\b3\b.*\(in \w+ #", line)]
    must(lines, "no line names rank 3 and a collective", text)
    must(seconds < LIMIT_S, f"took {seconds:.0f} s", text)
    must(job.returncode in ([5] if how == "stall" else [5, 137]), f"exit code {job.returncode}", text)
    print(f"{' '.join(layout)}, {how}: {seconds:.1f} s, {len(lines)} lines: {lines[0]}")


LAYOUTS = {"zero3": ["parallel.strategy=zero3"], "tensor": ["parallel.strategy=none", "parallel.tensor=4"],
           "pipeline": ["parallel.strategy=none", "parallel.pipeline=4", "train.micro_batches=4"]}


def main():
    case = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        recipe = make_workplace(folder)
        if case in LAYOUTS:
            for how in ("stall", "kill"):
                losing_a_rank(recipe, folder, LAYOUTS[case], how)
        else:
            {"another_recipe": another_recipe, "recipe_errors_once": recipe_errors_once, "trace": trace}[case](recipe, folder)


def trace(recipe, folder):
    path = os.path.join(folder, "trace.json")
    code, text = finish(MPI + ["-n", "2", VITRAIL, "train", recipe, "parallel.strategy=zero3", "eval.every_epochs=0", "--trace", path])
    must(code == 0, f"exit code {code}", text)
    events = json.load(open(path))["traceEvents"]
    ranges = [e for e in events if e["ph"] == "X"]
    must({e["pid"] for e in ranges} == {0, 1}, "ranks", text)
    for name in ("forward blocks.0", "backward blocks.2", "optimizer"):
        count = sum(e["name"] == name and e["cat"] == "compute" for e in ranges)
        must(count == 6, f"{name} is there {count} times, not in 3 steps of 2 ranks", text)
    print(len(ranges), "ranges in lanes", sorted({e["cat"] for e in ranges}))


main()

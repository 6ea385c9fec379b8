"""`vitrail plan` and `vitrail bench comm` as a user runs them.

usage: plan_test.py CASE   (a function below); VITRAIL names the program
"""

import json
import os
import sys
import tempfile

from program import must, run

USAGE = 2
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
HUGE = os.path.join(ROOT, "recipes", "bench", "vit_huge.yaml")
H200 = os.path.join(ROOT, "bench", "machines", "h200-8.yaml")


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def page(folder):
    """Text for people, JSON for programs; both say the same."""
    path = os.path.join(folder, "plan.json")
    done = must(["plan", HUGE, "--machine", H200, "--gpus", 8, "--json", path, "parallel.strategy=zero3"])
    for word in ("replicate 1 x shard 8", "weights in slots", "all_gather", "images/s", "fits"):
        check(word in done.stdout, f"{word} is not in\n{done.stdout}")
    plan = json.load(open(path))
    check(plan["mesh"]["shard"] == 8 and plan["gpus"] == 8, plan["mesh"])
    total = sum(item["bytes"] for item in plan["memory"]) / 2**30
    check(abs(total - plan["peak_gib"]) < 1e-6, (total, plan["peak_gib"]))
    parts = plan["ms"]
    left = parts["step"] - parts["compute"] - parts["exposed_communication"] - parts["bubble"] - parts["optimizer"]
    check(abs(left) < 1e-6, parts)
    shown = must(["plan", HUGE, "--machine", H200, "--gpus", 8, "--json", "-", "parallel.strategy=zero3"])
    check(json.loads(shown.stdout) == plan, "--json - prints another plan")


def large(folder):
    """A hundred billion parameters on a thousand GPUs, on this machine, at once."""
    done = must(["plan", HUGE, "--machine", H200, "--gpus", 1024, "--json", "-", "model.embed_dim=12288",
                 "model.depth=56", "model.num_heads=64", "model.patch_size=14", "data.batch_size=2048", "parallel.strategy=zero3",
                 "parallel.tensor=8", "train.recompute=block"], timeout=60)
    plan = json.loads(done.stdout)
    check(abs(plan["parameters"] / 1e9 - 101.5) < 0.6, plan["parameters"])
    check(done.seconds < 20, f"{done.seconds} s")


def search(folder):
    """What is proposed can be pasted and planned again."""
    path = os.path.join(folder, "best.json")
    done = must(["plan", HUGE, "--machine", H200, "--gpus", 4, "--search", "--json", path])
    best = json.load(open(path))
    lines = done.stdout[done.stdout.index("train: {"):]
    words = [word.split("{")[-1].strip("},") for word in lines.replace(": ", "=").replace("\n", " ").split() if "=" in word]
    train = [w for w in words if w.split("=")[0] in ("micro_batches", "recompute")]
    parallel = [w for w in words if w not in train and w.split("=")[1]]
    again = must(["plan", HUGE, "--machine", H200, "--gpus", 4, "--json", "-"] + ["train." + w for w in train] +
                 ["parallel." + w for w in parallel])
    check(json.loads(again.stdout)["ms"] == best["ms"], (json.loads(again.stdout)["ms"], best["ms"], words))
    table = must(["plan", HUGE, "--machine", H200, "--gpus", 8, "--table"]).stdout
    check(all(word in table for word in ("ddp", "zero1", "zero2", "zero3", "hybrid")), table)


def rehearsal(folder):
    """The groups of the Hybrid-STOP example."""
    done = must(["plan", HUGE, "--machine", H200, "--gpus", 8, "--dry-run", "parallel.strategy=hybrid", "parallel.replicate=2",
                 "parallel.shard=2", "parallel.tensor=2"])
    for groups in ("{0,1}{2,3}{4,5}{6,7}", "{0,2}{1,3}{4,6}{5,7}", "{0,4}{1,5}{2,6}{3,7}", "{0,2,4,6}{1,3,5,7}"):
        check(groups in done.stdout, f"{groups} is not in\n{done.stdout}")


def bad(folder):
    """One clear line and exit code 2."""
    broken = os.path.join(folder, "broken.yaml")
    with open(broken, "w") as out:
        out.write("memory_gib: 80\ncopy_gbs: 3\n")
    for arguments, words in [
        (["--machine", "h2000-8"], ["[plan] --machine"]),
        (["--machine", broken], ["copy_gbs", "broken.yaml:2:1"]),
        (["--machine", H200, "--gpus", 7], ["data.batch_size", "7"]),
        (["--machine", H200, "--gpus", 8, "parallel.tensor=3"], ["parallel.tensor must divide model.num_heads"]),
        (["--machine", H200, "--gpus", 8, "parallel.pipeline=3"], ["must equal"]),
        (["--machine", H200, "--gpus", 0], ["--gpus"]),
        (["--machine", H200, "--search", "--table"], ["--search"]),
        (["--machine", H200, "--gpus", 8, "--search", "--gpu-memory", 1], ["no layout", "the smallest needs"]),
        (["--machine", H200, "--json", os.path.join(folder, "no", "x.json")], ["--json"]),
    ]:
        done = run(["plan", HUGE] + arguments)
        check(done.returncode == USAGE, f"{arguments}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        check(all(word in done.stderr for word in words), f"{arguments}: {done.stderr}")


def comm(folder):
    """Collectives of 2 ranks into a table that the planner reads."""
    path, table = os.path.join(folder, "comm.json"), os.path.join(folder, "here.yaml")
    must(["bench", "comm", "--largest", 1, "--seconds", 0.01, "--device", "cpu", "--json", path, "--table", table], ranks=2, cwd=ROOT)
    bench = json.load(open(path))
    check(bench["ranks"] == 2 and len(bench["fits"]) == 12, bench["fits"])
    check({p["kind"] for p in bench["points"]} >= {"all_reduce", "all_gather", "send_receive"}, "kinds")
    done = must(["plan", HUGE, "--machine", table, "--gpus", 2])
    check("here" in done.stdout, done.stdout)
    alone = run(["bench", "comm", "--device", "cpu"])
    check(alone.returncode == USAGE and "mpirun" in alone.stderr, alone.stderr)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as workplace:
        globals()[sys.argv[1]](workplace)

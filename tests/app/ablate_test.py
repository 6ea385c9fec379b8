"""`vitrail ablate` as a user runs it.

usage: ablate_test.py CASE   (a function below); VITRAIL names the program
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from program import command, make_workplace, metrics, must, run

USAGE, PREEMPTED = 2, 75

STUDY = """
name: tiny
base: tiny.yaml
output: {folder}/studies
set: [eval.every_steps=5, logging.html=false, logging.tensorboard=false, {more}]
seeds: {seeds}
metric: accuracy
factors:
  decatt: {{without: [], with: ["train.decatt={{weight: 1, blocks: [0, 1]}}"]}}
  rate: {{low: [train.optimizer.lr=1e-3], high: [train.optimizer.lr=1e-2]}}
{rest}
"""


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def write_study(folder, seeds="[0, 1]", more="train.steps=20", rest=""):
    make_workplace(folder)
    path = os.path.join(folder, "study.yaml")
    with open(path, "w") as out:
        out.write(STUDY.format(folder=folder, seeds=seeds, more=more, rest=rest))
    return path


def table(folder, name="tiny"):
    with open(os.path.join(folder, "studies", name, "results.csv"), newline="") as file:
        return list(csv.DictReader(file))


def study(folder):
    """Two factors, two seeds and a cell besides: every number of the table is the run's own; a second call does nothing."""
    rest = ("cells: {wide: [model.embed_dim=48]}\n"
            "exclude: [{decatt: with, rate: [high]}]\n"
            "controls: [{cell: wide, for: {rate: high}}, {cell: without_low}]\n")
    path = write_study(folder, rest=rest)
    listed = must(["ablate", path, "--dry-run"])
    check("4 cells, 8 runs" in listed.stdout and "with_high" not in listed.stdout, listed.stdout)
    check(not os.path.exists(os.path.join(folder, "studies")), "--dry-run wrote something")

    one = must(["ablate", path, "--jobs", 2, "--only", "wide/seed-0"])
    check("1 runs done, 0 failed, 7 missing" in one.stdout, one.stdout)
    done = must(["ablate", path, "--jobs", 2])
    print(f"7 runs, two at once: {done.seconds:.1f} s")
    rows = table(folder)
    check([row["cell"] for row in rows] == [c for c in ("wide", "without_low", "without_high", "with_low") for _ in "12"],
          [row["cell"] for row in rows])
    for row in rows:
        steps, evaluations = metrics(row["folder"])
        values = [e["metrics"]["accuracy"] for e in evaluations]
        check(len(values) == 4 and evaluations[-1]["step"] == 20, evaluations)
        check(row["state"] == "done" and float(row["accuracy_last"]) == values[-1], (row, values))
        check(float(row["accuracy_best"]) == max(values), (row, values))
        check(float(row["train_loss"]) == steps[-1]["loss"] and float(row["steps"]) == 20, row)
        seconds = sum(step["step_ms"] for step in steps) / 1000  # logged every step
        check(abs(float(row["train_seconds"]) - seconds) < 1e-9 * seconds, (row, seconds))
        settings = open(os.path.join(row["folder"], "recipe.yaml")).read()
        check(f"seed: {row['seed']}\n" in settings, row)
        check(("embed_dim: 48" in settings) == (row["cell"] == "wide"), row)
    first = {(row["cell"], row["seed"]): metrics(row["folder"])[0][0]["loss"] for row in rows}
    check(first["with_low", "0"] > first["without_low", "0"] + 1e-3, first)
    check(first["without_high", "1"] == first["without_low", "1"], "the learning rate changed the first loss")
    check(first["without_low", "1"] != first["without_low", "0"], "seeds are alike")

    page = json.load(open(os.path.join(folder, "studies", "tiny", "results.json")))
    cells = {cell["name"]: cell for cell in page["cells"]}
    last = {(row["cell"], row["seed"]): float(row["accuracy_last"]) for row in rows}
    differences = [last["without_high", seed] - last["wide", seed] for seed in "01"]
    found = cells["without_high"]["difference_to_control"]
    check(cells["without_high"]["control"] == "wide" and cells["with_low"]["control"] == "without_low", cells)
    check(abs(found["mean"] - sum(differences) / 2) < 1e-12 and found["count"] == 2, (found, differences))
    check(abs(found["spread"] - abs(differences[0] - differences[1]) / 2**0.5) < 1e-12, (found, differences))
    check(cells["wide"]["parameters"] > cells["with_low"]["parameters"] == cells["without_low"]["parameters"], cells)
    html = open(os.path.join(folder, "studies", "tiny", "report.html")).read()
    check("with_low" in html and "to control" in html and html.count("<svg") >= 9, "the page lacks something")
    check("http" not in html and "src=" not in html, "the page leads out")

    again = must(["ablate", path])
    check("begins" not in again.stdout and "8 runs done" in again.stdout, again.stdout)
    # Another recipe in the folder: the run is made anew.
    text = open(path).read().replace("train.steps=20", "train.steps=15")
    open(path, "w").write(text)
    anew = must(["ablate", path, "--only", "with_low/seed-1"])
    check("anew: its recipe has changed" in anew.stdout and "1 runs done, 0 failed, 7 missing" in anew.stdout, anew.stdout)


def wait_for(condition, what, seconds=60):
    end = time.time() + seconds
    while not condition():
        check(time.time() < end, f"waited in vain for {what}")
        time.sleep(0.02)


def lines_of(folder):
    return len(metrics(folder)[0]) if os.path.exists(os.path.join(folder, "metrics.jsonl")) else 0


def interrupt(folder):
    """A stopped study saves its runs, a killed one takes them along; the same command goes on."""
    path = write_study(folder, seeds="[0]", more="train.steps=300, checkpoint.every_steps=50")
    runs = [os.path.join(folder, "studies", "tiny", cell, "seed-0") for cell in ("without_low", "without_high")]
    both = ["ablate", path, "--jobs", 2, "--only", "without"]
    process = subprocess.Popen(command(both), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: all(lines_of(run) > 20 for run in runs), "steps")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    check(process.returncode == PREEMPTED and "run the same command again" in err, (process.returncode, out, err))
    stopped = [lines_of(run) for run in runs]
    check(all(count < 300 for count in stopped), stopped)
    for run_folder, count in zip(runs, stopped):
        check(os.path.isdir(os.path.join(run_folder, "checkpoints", f"step-{count:08}")), os.listdir(run_folder))

    process = subprocess.Popen(command(both), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: all(lines_of(run) > count + 5 for run, count in zip(runs, stopped)), "more steps")
    process.kill()
    process.communicate()
    # Children get SIGTERM when their parent is gone, save and end; then nothing grows any more.
    def is_quiet():
        before = [lines_of(run) for run in runs]
        time.sleep(0.5)
        return before == [lines_of(run) for run in runs]
    wait_for(is_quiet, "the end of the runs")
    check(all(lines_of(run) < 300 for run in runs), "the runs outlived the study")

    done = must(both)
    check("2 runs done" in done.stdout, done.stdout)
    for run_folder in runs:
        steps, _ = metrics(run_folder)
        check([step["step"] for step in steps] == list(range(1, 301)), "steps are missing or stand twice")
        check("resumed" in open(os.path.join(run_folder, "process.txt")).read(), "the run began anew")


def failing(folder):
    """A cell that fails is reported with its last line and the others go on; what failed is tried again."""
    rest = f"cells: {{lost: ['data.sources[0].root={folder}/later.csv.gz']}}\n"
    path = write_study(folder, seeds="[0]", rest=rest)
    done = run(["ablate", path, "--jobs", 2])
    check(done.returncode == 1 and "1 of 5 runs failed: lost/seed-0" in done.stderr, (done.returncode, done.stderr))
    check("later.csv.gz" in done.stderr and "4 runs done, 1 failed" in done.stdout, done.stdout + done.stderr)
    rows = {row["cell"]: row for row in table(folder)}
    check(rows["lost"]["state"] == "failed" and "exit code 3" in rows["lost"]["failure"], rows["lost"])
    check(rows["lost"]["accuracy_last"] == "" and rows["with_low"]["state"] == "done", rows)
    check("later.csv.gz" in open(os.path.join(folder, "studies", "tiny", "report.html")).read(), "the page hides the failure")
    shutil.copy(os.path.join(folder, "digits.csv.gz"), os.path.join(folder, "later.csv.gz"))
    again = must(["ablate", path])
    check(again.stdout.count("begins") == 1 and "5 runs done" in again.stdout, again.stdout)
    check({row["state"] for row in table(folder)} == {"done"}, table(folder))


def evaluations(folder):
    """Weights of one size are scored at others; the numbers are those of `vitrail eval`."""
    sizes = 'evaluations: {at 8: [], at 16: ["model.image_size=[16, 16]", model.weights.adapt=true]}\n'
    path = write_study(folder, seeds="[0]", more="train.steps=60", rest=sizes)
    must(["ablate", path, "--only", "_high"])
    row = {row["cell"]: row for row in table(folder)}["with_high"]
    check(row["accuracy@at 8"] == row["accuracy_last"], row)
    check(row["accuracy@at 16"] not in ("", row["accuracy_last"]), row)
    again = must(["eval", os.path.join(folder, "tiny.yaml"), "--weights", os.path.join(row["folder"], "weights.safetensors"),
                  "--json", "model.image_size=[16, 16]", "model.weights.adapt=true"])
    check(json.loads(again.stdout)["metrics"]["accuracy"] == float(row["accuracy@at 16"]), (row, again.stdout))
    print(f"8x8: {row['accuracy@at 8']}, the same weights at 16x16: {row['accuracy@at 16']}")
    check("begins" not in must(["ablate", path, "--only", "_high"]).stdout, "evaluations were made again")
    # One more evaluation: no training.
    text = open(path).read().replace("at 8: []", 'at 8: [], at 12: ["model.image_size=[12, 12]", model.weights.adapt=true]')
    open(path, "w").write(text)
    before = len(metrics(row["folder"])[1])
    must(["ablate", path, "--only", "with_high"])
    check(len(metrics(row["folder"])[1]) == before, "the run was trained again")
    check(table(folder)[3]["accuracy@at 12"] != "", table(folder)[3])


def bad(folder):
    """Studies that make no sense are refused before anything runs."""
    path = write_study(folder)
    good = open(path).read()

    def refused(old, new, message):
        check(old in good, old)
        open(path, "w").write(good.replace(old, new))
        done = run(["ablate", path])
        check(done.returncode == USAGE and message in done.stderr, (done.returncode, done.stderr, message))

    refused("metric: accuracy", "metrik: accuracy", "metrik is not a known key of a study; did you mean 'metric'?")
    refused("seeds: [0, 1]", "seeds: [0, 0]", "seeds holds 0 twice")
    refused("seeds: [0, 1]", "goal: best", "goal must be one of highest, lowest but got 'best'")
    refused("base: tiny.yaml", "base: other.yaml", "other.yaml must be a recipe file but there is no such file")
    refused("lr=1e-3]", "lr=fast]", "train.optimizer.lr must be a number but got 'fast'")
    refused("lr=1e-3]", "lr=fast]", "the cell without_low cannot run")
    refused("low: [train.optimizer.lr=1e-3]", "low: fast", "factors.rate.low must be a list")
    refused("base: tiny.yaml", "base: tiny.yaml\nexclude: [{rat: low}]", "exclude names the factor rat, which the study does not")
    refused("base: tiny.yaml", "base: tiny.yaml\ncontrols: [{cell: with-low}]",
            "controls name the cell with-low, which the study does not have; did you mean 'with_low'?")
    refused("name: tiny", "name: a/b", "name must be made of letters")
    open(path, "w").write(good)
    done = run(["ablate", path, "--only", "("])
    check(done.returncode == USAGE and "--only must be a regular expression" in done.stderr, done.stderr)
    check(not os.path.exists(os.path.join(folder, "studies")), "something was written")


CASES = {f.__name__: f for f in (study, interrupt, failing, evaluations, bad)}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="vitrail-ablate-") as place:
        CASES[sys.argv[1]](place)

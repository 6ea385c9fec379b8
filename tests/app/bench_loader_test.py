"""Runs `vitrail bench loader` on a small recipe. VITRAIL names the program."""

import json
import os
import tempfile

from program import make_workplace, must, run

KEYS = ["recipe", "date", "machine", "device", "cores", "workers", "prefetch", "batch_size", "image_size", "samples", "open_s",
        "first_batch_ms", "images", "seconds", "images_per_second", "gb_read_per_second", "gb_delivered_per_second",
        "wait_share", "cpu_us_per_image", "runs", "stages"]


def check(condition, message):
    if not condition:
        raise AssertionError(message)


with tempfile.TemporaryDirectory() as folder:
    recipe = make_workplace(folder)
    path = os.path.join(folder, "loader.json")
    brief = ["--runs", "2", "--batches", "5", "--warmup", "1"]
    done = must(["bench", "loader", recipe, *brief, "--json", path])
    found = json.load(open(path))
    check(list(found) == KEYS, f"keys are {list(found)}")
    check([r["images"] for r in found["runs"]] == [160, 160], f"runs {found['runs']}")
    check(found["device"] == "cpu" and found["machine"] and found["date"].endswith("Z"), f"{found}")
    check(0 <= found["wait_share"] <= 1, f"wait_share {found['wait_share']}")
    check(found["images_per_second"] in [r["images_per_second"] for r in found["runs"]], "the median is one of the runs")
    check(done.stdout.startswith("loader  ") and done.stdout.count("\n") == 1, f"one line for people: {done.stdout}")
    check(json.loads(must(["bench", "loader", recipe, *brief, "data.workers=0", "--json", "-"]).stdout)["workers"] == 0,
          "--json - prints the object; overrides count")
    refused = run(["bench", "loader", recipe, "--runs", "0"])
    check(refused.returncode == 2, f"--runs 0 ends with {refused.returncode}")
    missing = run(["bench", "loader", recipe, f"data.sources[0].root={folder}/none.csv.gz"])
    check(missing.returncode == 3 and "none.csv.gz" in missing.stderr, f"{missing.returncode} {missing.stderr}")
    print(f"  {done.stdout.strip()}")

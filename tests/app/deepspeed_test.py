"""`vitrail train --deepspeed` with the two files of the resolution-aware transformer, unchanged, on 1 and 2 ranks; `vitrail convert`.

usage: deepspeed_test.py CASE
"""

import json
import math
import os
import subprocess
import sys
import tempfile

from program import VITRAIL, command, make_workplace

FILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "config", "convert")


def run(arguments, ranks=1):
    return subprocess.run(command(arguments, ranks), capture_output=True, text=True, timeout=280)


def must(condition, what, done):
    if not condition:
        sys.exit(f"{what}\n{done.stdout}\n{done.stderr}")


def steps_of(folder, name):
    with open(os.path.join(folder, "runs", name, "metrics.jsonl")) as lines:
        records = [json.loads(line) for line in lines]
    return [record for record in records if "split" not in record]


def check_run(recipe, folder, file, micro, total, ranks):
    """One configuration: it trains, with the batch, rates and scale that it says."""
    name = f"{file[:-5]}-{ranks}"
    done = run(["train", recipe, "--deepspeed", os.path.join(FILES, file), f"run.name={name}", "train.steps=12"], ranks)
    must(done.returncode == 0, f"{name}: exit code {done.returncode}", done)
    pieces = total // micro // ranks
    must(f"{total} = {micro} samples x {pieces} pieces x {ranks} data rank" in done.stdout, f"{name}: the identity", done)
    must("train.precision=fp16" in done.stdout and "train.loss_scale.window=1000" in done.stdout, f"{name}: the table", done)
    steps = steps_of(folder, name)
    must(len(steps) == 12 and steps[-1]["samples"] == 12 * total, f"{name}: samples", done)
    for t, step in enumerate(steps):  # WarmupCosineLR of 100 steps, log
        expected = 1e-4 * math.log(t + 1) / math.log(100)
        must(abs(step["lr"] - expected) <= 1e-12, f"{name}: rate {step['lr']} at {t} for {expected}", done)
        must(step["loss_scale"] in (65536, 32768, 16384), f"{name}: loss scale {step['loss_scale']}", done)
    return [step["loss"] for step in steps]


def files_run_unchanged(recipe, folder):
    for file, micro, total in (("deepspeed_config.json", 4, 32), ("deepspeed_stage3_config.json", 2, 64)):
        one, two = (check_run(recipe, folder, file, micro, total, ranks) for ranks in (1, 2))
        worst = max(abs(a - b) / abs(a) for a, b in zip(one, two))
        # Samples meet in other products; fp16 rounds to 5e-4.
        print(f"{file}: loss {one[0]:.4f} -> {one[-1]:.4f}; 2 ranks against 1: {worst:.2g} (allowed 2e-3)")
        assert worst <= 2e-3, (one, two)


def the_batch_identity_is_refused(recipe, folder):
    path = os.path.join(folder, "odd.json")
    with open(path, "w") as out:
        json.dump({"train_batch_size": 30, "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 1}, out)
    for ranks in (1, 2):
        done = run(["train", recipe, "--deepspeed", path], ranks)
        must(done.returncode == 2, f"exit code {done.returncode}", done)
        lines = [line for line in done.stderr.splitlines() if "[config]" in line]
        must(len(lines) == 1 and "30 is not 4 x 1 x a whole number" in lines[0], "the message", done)
        print(lines[0])


def convert_writes_a_recipe(recipe, folder):
    output = os.path.join(folder, "out.yaml")
    file = os.path.join(FILES, "deepspeed_config.json")
    done = run(["convert", "--from", "deepspeed", file, recipe, "--output", output])
    must(done.returncode == 0 and "zero_optimization.reduce_bucket_size" in done.stdout, "convert", done)
    done = run(["check", output, "--no-origin"])
    must(done.returncode == 0 and "strategy: zero2" in done.stdout and "total_steps: 10000" in done.stdout, "check", done)
    alone = run(["convert", file, "--ranks", "2"])
    must(alone.returncode == 0 and "micro_batches: 4" in alone.stdout, "to stdout", alone)
    with open(output, "w") as out:
        out.write(alone.stdout)
    must(run(["check", output]).returncode == 0, "the table is comments", alone)
    demo = run(["convert", os.path.join(FILES, "torchtitan_demo.toml"), "--ranks", "20"])
    must(demo.returncode == 0 and "preset: mae3d_2b" in demo.stdout, "torchtitan-mae", demo)
    mae = run(["convert", os.path.join(FILES, "ucf_mae.yaml")])
    must(mae.returncode == 0 and "kind: mae" in mae.stdout, "ucf-vit", mae)
    bad = run(["convert", "nothing.json"])
    must(bad.returncode == 2 and "no such file" in bad.stderr, "a missing file", bad)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        globals()[sys.argv[1]](make_workplace(place), place)

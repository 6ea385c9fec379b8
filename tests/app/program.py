"""What the program-level tests share: a small data set, a small recipe, and ways to run the program."""

import gzip
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import time

VITRAIL = os.environ.get("VITRAIL", "build/bin/vitrail")
MPIRUN = shutil.which("mpirun")

RECIPE = """
run: {{name: tiny, output: {folder}/runs, seed: 3, device: cpu, threads: 1}}
model: {{kind: vit, image_size: [8, 8], patch_size: 2, in_channels: 1, num_classes: 10, embed_dim: 32, depth: 3,
        num_heads: 2, mlp_ratio: 2, drop_path_rate: 0.2}}
data:
  batch_size: 32
  workers: 1
  sources: [{{name: digits, reader: digits, root: {folder}/digits.csv.gz, split: [0.0, 0.8], augment: ["shift:1"]}}]
train:
  steps: 20
  optimizer: {{kind: adamw, lr: 3.0e-3, weight_decay: 0.05}}
  schedule: {{kind: constant, warmup_steps: 3}}
  clip_grad_norm: 1.0
checkpoint: {{every_steps: 10, keep: 0}}
eval:
  sources: [{{name: digits, reader: digits, root: {folder}/digits.csv.gz, split: [0.8, 1.0]}}]
logging: {{every_steps: 1}}
"""


def write_digits(path, count=403, seed=7):
    """A digits file whose classes differ by which pixels are bright; the count is prime to every batch size."""
    draw = random.Random(seed)
    shapes = [[draw.randint(2, 14) if draw.random() < 0.5 else 0 for _ in range(64)] for _ in range(10)]
    with gzip.open(path, "wt") as out:
        for i in range(count):
            label = i % 10
            values = [min(16, max(0, v + draw.randint(-2, 2))) for v in shapes[label]]
            out.write(",".join(str(float(v)) for v in values + [label]) + "\n")


def make_workplace(folder):
    """Data and recipe in an empty folder; returns the path of the recipe."""
    os.makedirs(folder, exist_ok=True)
    write_digits(os.path.join(folder, "digits.csv.gz"))
    recipe = os.path.join(folder, "tiny.yaml")
    with open(recipe, "w") as out:
        out.write(RECIPE.format(folder=folder))
    return recipe


def command(arguments, ranks=1):
    prefix = []
    if ranks > 1:
        prefix = [MPIRUN, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)]
    return prefix + [VITRAIL] + [str(a) for a in arguments]


def run(arguments, ranks=1, timeout=240, **options):
    """Runs the program; returns the finished process with texts and the seconds it took."""
    start = time.time()
    done = subprocess.run(command(arguments, ranks), capture_output=True, text=True, timeout=timeout, **options)
    done.seconds = time.time() - start
    return done


def must(arguments, ranks=1, **options):
    """Runs the program and insists on success."""
    done = run(arguments, ranks, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, arguments))} on {ranks} ranks: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def metrics(run_folder):
    """The lines of metrics.jsonl: steps and evaluations."""
    steps, evaluations = [], []
    with open(os.path.join(run_folder, "metrics.jsonl")) as lines:
        for line in lines:
            record = json.loads(line)
            (evaluations if "split" in record else steps).append(record)
    return steps, evaluations


def losses(run_folder):
    return {record["step"]: record["loss"] for record in metrics(run_folder)[0]}


def read_bytes(path):
    with open(path, "rb") as file:
        return file.read()


def safetensors_header(path):
    data = read_bytes(path)
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])

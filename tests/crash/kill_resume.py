"""A run that is killed again and again ends with the same bits as one that was left alone.

usage: kill_resume.py [--kills N] [--ranks N] [--seed N] [--keep]     (VITRAIL = the program)

1. an uninterrupted run that never saves on the way is the reference;
2. a run that saves every 2 steps is killed (kill -9; of one rank when there are several) at random moments, early
   ones while it starts, late ones while it trains and saves, and started again with --resume auto; each start must
   name the newest checkpoint there is as the one it goes on from;
3. its losses and final weights must equal the reference bit by bit;
4. a flipped byte, then a truncation of the newest checkpoint: it is named, skipped, and the end is the same again;
5. with every checkpoint damaged the program refuses to start over (exit code 4).
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "app"))
import program  # noqa: E402

RECIPE = """
run: {{name: {name}, output: {folder}/runs, seed: 3, device: cpu, threads: 1}}
model: {{kind: vit, image_size: [8, 8], patch_size: 2, in_channels: 1, num_classes: 10, embed_dim: 16, depth: 2,
        num_heads: 2, mlp_ratio: 2, drop_path_rate: 0.2}}
data:
  batch_size: 16
  workers: 1
  sources: [{{name: digits, reader: digits, root: {folder}/digits.csv.gz, augment: ["shift:1"]}}]
train:
  steps: {steps}
  ema_decay: 0.9
  optimizer: {{kind: adamw, lr: 3.0e-3, weight_decay: 0.05}}
  clip_grad_norm: 1.0
checkpoint: {{every_steps: {every}, keep: 3}}
logging: {{every_steps: 1, tensorboard: false, html: false}}
"""


def write_recipe(folder, name, steps, every):
    path = os.path.join(folder, name + ".yaml")
    with open(path, "w") as out:
        out.write(RECIPE.format(folder=folder, name=name, steps=steps, every=every))
    return path


def insist(holds, message):
    if not holds:
        sys.exit("kill_resume: " + message)


class Run:
    """One run folder and the starts of the program that work on it."""

    def __init__(self, folder, recipe, name, ranks):
        self.folder = os.path.join(folder, "runs", name)
        self.checkpoints = os.path.join(self.folder, "checkpoints")
        self.output = os.path.join(folder, name + ".out")
        self.recipe, self.ranks = recipe, ranks

    def steps(self):
        """Steps of the checkpoints in place, newest last."""
        names = os.listdir(self.checkpoints) if os.path.isdir(self.checkpoints) else []
        return sorted(int(n[5:]) for n in names if re.fullmatch(r"step-\d{8,}", n))

    def newest(self):
        steps = self.steps()
        return steps[-1] if steps else 0

    def start(self):
        out = open(self.output, "w")
        arguments = program.command(["train", self.recipe, "--resume", "auto"], self.ranks)
        return subprocess.Popen(arguments, stdout=out, stderr=subprocess.STDOUT)

    def text(self):
        with open(self.output) as file:
            return file.read()

    def resumed_from(self):
        """Step and path that the last start named; (0, "") when it began anew or died before saying so."""
        found = re.search(r"^resumed\s+step (\d+) of \d+, from (\S+)", self.text(), re.M)
        return (int(found.group(1)), found.group(2)) if found else (0, "")

    def finish(self):
        child = self.start()
        insist(child.wait(timeout=200) == 0, "the run must finish but:\n" + self.text())


def victim(child):
    """The process to kill: the program itself, or one of mpirun's ranks."""
    try:
        with open(f"/proc/{child.pid}/task/{child.pid}/children") as file:
            ranks = file.read().split()
    except OSError:
        ranks = []
    return int(random.choice(ranks)) if ranks else child.pid


def kill_once(run, late, draw):
    """Starts, kills at a random moment, waits for the end; returns the exit code."""
    before = run.newest()
    child = run.start()
    if late:  # once it has saved something new, at any moment of the next saves
        while child.poll() is None and run.newest() <= before:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.12))
    else:
        time.sleep(draw.uniform(0, 0.5))
    if child.poll() is None:
        try:
            os.kill(victim(child), signal.SIGKILL)
        except ProcessLookupError:
            pass
    return child.wait(timeout=100)


def check_resumed(run, expected):
    step, path = run.resumed_from()
    if not path:
        return False
    insist(step == expected and path.endswith(f"step-{expected:08}"),
           f"must resume from step {expected}, the newest, but took {step} ({path})")
    insist("skipped" not in run.text(), "a kill must not leave a damaged checkpoint but:\n" + run.text())
    return True


def kill_many(run, kills, draw):
    named, worst = 0, 0.0
    for number in range(kills):
        expected = run.newest()
        start = time.time()
        code = kill_once(run, number % 2 == 1, draw)
        worst = max(worst, time.time() - start)
        insist(code != 0, f"the run ended by itself after {number} kills; give it more steps")
        named += check_resumed(run, expected)
    print(f"{kills} kills, {named} starts had named their checkpoint, now at step {run.newest()}, "
          f"slowest round {worst:.1f} s", flush=True)


def expect_equal(run, reference):
    for name in ("weights.safetensors", "weights-ema.safetensors"):
        insist(program.read_bytes(os.path.join(run.folder, name)) == program.read_bytes(os.path.join(reference.folder, name)),
               f"{name} differs from the uninterrupted run's")
    ours, theirs = program.losses(run.folder), program.losses(reference.folder)
    insist(sorted(ours) == sorted(theirs), f"{len(ours)} logged steps, the uninterrupted run has {len(theirs)}")
    different = [step for step in theirs if ours[step] != theirs[step]]
    insist(not different, f"losses differ first at step {different[:1]}")
    difference = program.must(["checkpoint", "diff", run.folder, reference.folder]).stdout
    insist(" 0 differ" in difference, "checkpoint diff says:\n" + difference)


def damage_newest(run, how):
    path = os.path.join(run.checkpoints, f"step-{run.newest():08}", "rank-00000.safetensors")
    data = bytearray(program.read_bytes(path))
    if how == "flip":
        data[len(data) // 2] ^= 1
    else:
        del data[len(data) // 2 :]
    with open(path, "wb") as file:
        file.write(data)


def check_damage(run, reference):
    for how in ("flip", "truncate"):
        newest, previous = run.steps()[-1], run.steps()[-2]
        damage_newest(run, how)
        for options in ([], ["--full"]):
            refused = program.run(["checkpoint", "verify", run.folder, *options])
            if how == "truncate" or options:
                insist(refused.returncode == 4 and f"step-{newest:08}" in refused.stderr, "verify: " + refused.stderr)
        run.finish()
        insist(re.search(rf"^skipped \S*step-{newest:08}: .*rank-00000.safetensors", run.text(), re.M),
               f"the damaged checkpoint ({how}) must be named but:\n" + run.text())
        insist(run.resumed_from()[0] == previous, f"must resume from step {previous}")
        expect_equal(run, reference)
    for step in run.steps():
        with open(os.path.join(run.checkpoints, f"step-{step:08}", "manifest.json"), "a") as file:
            file.write(" ")
    refused = program.run(["train", run.recipe], run.ranks)
    insist(refused.returncode == 4 and "none of" in refused.stderr and "--resume never" in refused.stderr,
           f"all damaged: exit code {refused.returncode}\n{refused.stderr}")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--kills", type=int, default=30)
    arguments.add_argument("--ranks", type=int, default=1)
    arguments.add_argument("--steps", type=int, default=500)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--keep", action="store_true", help="leave the working folder")
    options = arguments.parse_args()
    draw = random.Random(options.seed)
    random.seed(options.seed)
    folder = tempfile.mkdtemp(prefix="vitrail-kill-")
    start = time.time()
    try:
        program.write_digits(os.path.join(folder, "digits.csv.gz"), count=203)
        reference = Run(folder, write_recipe(folder, "reference", options.steps, 0), "reference", options.ranks)
        reference.finish()
        run = Run(folder, write_recipe(folder, "killed", options.steps, 2), "killed", options.ranks)
        kill_many(run, options.kills, draw)
        run.finish()
        expect_equal(run, reference)
        check_damage(run, reference)
        left = [n for n in os.listdir(run.checkpoints) if ".tmp-" in n]
        insist(not left, f"left over: {left}")
        print(f"equal bit by bit after {options.kills} kills and 2 damaged checkpoints on {options.ranks} ranks, "
              f"{time.time() - start:.0f} s")
    finally:
        if options.keep:
            print("left in " + folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

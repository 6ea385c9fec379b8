"""The loss scaler of fp16 against DeepSpeed's, written here as a plain state machine: 10,000 random patterns of overflows with
several first scales, windows, hystereses and minima. Every state after every step has to be equal."""
import random
import subprocess
import sys

import numpy as np

RUNS = 10000


class Scaler:
    """deepspeed/runtime/fp16/loss_scaler.py, DynamicLossScaler.update_scale, as version 0.16 has it."""

    def __init__(self, scale, window, hysteresis, consecutive, minimum):
        self.scale, self.window, self.hysteresis, self.consecutive, self.minimum = scale, window, hysteresis, consecutive, minimum
        self.left, self.last, self.iteration = hysteresis, -1, 0

    def step(self, overflow):
        """False: overflow at the minimum, where DeepSpeed raises."""
        if overflow:
            if self.hysteresis == 1 or self.left == 1:
                if self.scale <= self.minimum:
                    return False
                self.scale = max(self.scale / 2.0, self.minimum)
            else:
                self.left -= 1
            self.last = self.iteration
        else:
            if self.consecutive:
                self.left = self.hysteresis
            if (self.iteration - self.last) % self.window == 0:
                if not self.consecutive:
                    self.left = self.hysteresis
                self.scale *= 2.0
        self.iteration += 1
        return True


def draw(random_run):
    """Options and a pattern; overflows come alone, in rows, or seldom."""
    options = (2.0 ** random_run.randint(0, 20), random_run.choice([1, 2, 3, 5, 10, 50, 1000]), random_run.randint(1, 5),
               random_run.random() < 0.5, random_run.choice([1.0, 0.25, 3.0, 16.0, 1024.0]))
    length, rate, keep = random_run.choice([5, 50, 200]), random_run.choice([0.0, 0.02, 0.1, 0.5, 0.9]), random_run.random()
    pattern, now = [], False
    for _ in range(length):
        now = now if random_run.random() < 0.5 * keep else random_run.random() < rate
        pattern.append(now)
    return options, pattern


def main():
    random_run = random.Random(7)
    runs = [draw(random_run) for _ in range(RUNS)]
    text = "".join(f"{o[0]!r} {o[1]} {o[2]} {int(o[3])} {o[4]!r} {''.join(str(int(x)) for x in p)}\n" for o, p in runs)
    raw = subprocess.run([sys.argv[1]], input=text.encode(), stdout=subprocess.PIPE, check=True).stdout
    found = np.frombuffer(raw, np.float64).reshape(-1, 5)
    place = steps = halved = doubled = failed = 0
    for number, (options, pattern) in enumerate(runs):
        scaler, failed_here = Scaler(*options), False
        for step, overflow in enumerate(pattern):
            before = scaler.scale
            if not failed_here:
                failed_here = not scaler.step(overflow)
            expected = [scaler.scale, scaler.left, scaler.last, scaler.iteration, float(failed_here)]
            assert found[place].tolist() == expected, f"run {number} {options}, step {step}: {found[place]} for {expected}"
            halved += scaler.scale < before
            doubled += scaler.scale > before
            place, steps = place + 1, steps + 1
        failed += failed_here
    assert place == len(found) and min(halved, doubled, failed) > 1000, (place, len(found), halved, doubled, failed)
    print(f"{RUNS} runs, {steps} steps: every state is equal; {halved} halvings, {doubled} doublings, {failed} runs ended at the minimum")


if __name__ == "__main__":
    main()

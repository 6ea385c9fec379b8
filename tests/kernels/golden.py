"""Writes golden_adamw.inc and golden_sgd.inc: three steps of torch's optimizers on three numbers.

run: python3 tests/kernels/golden.py
"""
import pathlib

import torch

here = pathlib.Path(__file__).parent


def train(make):
    decayed = torch.tensor([1.0, -0.5], requires_grad=True)
    free = torch.tensor([0.25], requires_grad=True)
    optimizer = make([{"params": [decayed], "weight_decay": 0.2}, {"params": [free], "weight_decay": 0.0}])
    for step in range(3):
        decayed.grad = torch.tensor([0.5, -1.0]) * (step + 1)
        free.grad = torch.tensor([0.01]) * (step + 1)
        optimizer.step()
    return torch.cat([decayed, free]).tolist()


for name, make in {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.1, betas=(0.9, 0.99), eps=1e-6, foreach=False),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, foreach=False),
}.items():
    values = ", ".join(f"{value:.9g}f" for value in train(make))
    (here / f"golden_{name}.inc").write_text(f"const float golden[] = {{{values}}};\n")

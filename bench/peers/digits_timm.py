#!/usr/bin/env python3
"""The peer of recipes/digits/vit.yaml: the same ViT by timm, trained the same way by plain PyTorch.

usage: digits_timm.py [--seed N] [--epochs 120] [--threads 2]
prints: seconds of training, held-out accuracy on the last 360 samples (other writers)
"""
import argparse
import gzip
import math
import time

import numpy
import timm
import torch

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--epochs", type=int, default=120)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--batch", type=int, default=64)
parser.add_argument("--data", default="data/digits/digits.csv.gz")
options = parser.parse_args()
torch.manual_seed(options.seed)
torch.set_num_threads(options.threads)

with gzip.open(options.data, "rt") as file:
    table = numpy.loadtxt(file, delimiter=",", dtype=numpy.float32)
image = (torch.tensor(table[:, :64]).reshape(-1, 1, 8, 8) / 16 - 0.5) / 0.5
label = torch.tensor(table[:, 64]).long()
train_count = len(image) - 360
test_image, test_label = image[train_count:], label[train_count:]
image, label = image[:train_count], label[:train_count]


def shift_each(batch):
    """Moves every sample by its own (dy, dx) in -1..1, filling with background."""
    padded = torch.nn.functional.pad(batch, (1, 1, 1, 1), value=-1.0)
    rows = torch.randint(0, 3, (len(batch), 1)) + torch.arange(8)
    columns = torch.randint(0, 3, (len(batch), 1)) + torch.arange(8)
    sample = torch.arange(len(batch))[:, None, None]
    return padded[sample, 0, rows[:, :, None], columns[:, None, :]][:, None]


model = timm.models.vision_transformer.VisionTransformer(
    img_size=8, patch_size=2, in_chans=1, num_classes=10, embed_dim=64, depth=4, num_heads=4,
    class_token=False, global_pool="avg")
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
steps = options.epochs * (train_count // options.batch)
warmup = steps // 20
schedule = torch.optim.lr_scheduler.LambdaLR(
    optimizer, lambda s: s / warmup if s < warmup else 0.5 * (1 + math.cos(math.pi * (s - warmup) / (steps - warmup))))

started = time.perf_counter()
for epoch in range(options.epochs):
    order = torch.randperm(train_count)
    for start in range(0, train_count - options.batch + 1, options.batch):
        index = order[start:start + options.batch]
        loss = torch.nn.functional.cross_entropy(model(shift_each(image[index])), label[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
seconds = time.perf_counter() - started
model.eval()
with torch.no_grad():
    accuracy = (model(test_image).argmax(1) == test_label).double().mean().item()
print(f"timm {timm.__version__} torch {torch.__version__} threads {options.threads} seed {options.seed}: "
      f"{seconds:.1f} s, held-out accuracy {100 * accuracy:.2f} %")

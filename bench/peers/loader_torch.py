#!/usr/bin/env python3
"""A class-per-folder source read by a PyTorch DataLoader: Pillow, torchvision transforms, worker processes.

The peer of `vitrail bench loader`: the same files, the same steps (decode, RGB, resize, crop, flip, to tensor, normalise), the
same batch, shuffled, with nothing behind it. Each number of workers is tried; all are printed, the best is the result.
"""
import argparse
import json
import os
import statistics
import time

import PIL
import torch
import torchvision
from torchvision import transforms

parser = argparse.ArgumentParser()
parser.add_argument("root", help="folder of class folders")
parser.add_argument("--size", type=int, nargs=2, required=True, help="height and width of the model's image")
parser.add_argument("--resize", type=int, nargs=2, help="resize to these sides first (bilinear, antialiased)")
parser.add_argument("--resized-crop", action="store_true", help="RandomResizedCrop to --size")
parser.add_argument("--crop", type=int, help="RandomCrop to --size with this padding")
parser.add_argument("--flip", action="store_true")
parser.add_argument("--mean", type=float, nargs=3, default=[0.5, 0.5, 0.5])
parser.add_argument("--std", type=float, nargs=3, default=[0.5, 0.5, 0.5])
parser.add_argument("--batch", type=int, default=256)
parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
parser.add_argument("--seconds", type=float, default=5)
parser.add_argument("--runs", type=int, default=1)
parser.add_argument("--warmup", type=int, default=8, help="batches before the first run")
parser.add_argument("--json")
options = parser.parse_args()

steps = []
if options.resize:
    steps.append(transforms.Resize(options.resize))
if options.resized_crop:
    steps.append(transforms.RandomResizedCrop(options.size))
if options.crop is not None:
    steps.append(transforms.RandomCrop(options.size, padding=options.crop))
elif not options.resized_crop:
    steps.append(transforms.CenterCrop(options.size))
if options.flip:
    steps.append(transforms.RandomHorizontalFlip())
steps += [transforms.ToTensor(), transforms.Normalize(options.mean, options.std)]
folder = torchvision.datasets.ImageFolder(options.root, transforms.Compose(steps))    # its loader converts to RGB


class Forever(torch.utils.data.Sampler):
    """One random order after another, so that no run meets the end of an epoch, where a DataLoader stands still."""

    def __iter__(self):
        while True:
            yield from torch.randperm(len(folder)).tolist()


def measure(workers):
    """images/s of each run."""
    loader = torch.utils.data.DataLoader(folder, options.batch, sampler=Forever(), num_workers=workers, drop_last=True,
                                         prefetch_factor=4, persistent_workers=True)
    batches = iter(loader)
    for _ in range(options.warmup + workers * 4):
        next(batches)
    rates = []
    for _ in range(options.runs):
        images, start = 0, time.perf_counter()
        while time.perf_counter() - start < options.seconds:
            images += len(next(batches)[0])
        rates.append(images / (time.perf_counter() - start))
    return rates


torch.set_num_threads(1)
tried = {workers: measure(workers) for workers in options.workers}
best = max(tried, key=lambda workers: statistics.median(tried[workers]))
result = {"peer": f"torch {torch.__version__} DataLoader, Pillow {PIL.__version__}, torchvision {torchvision.__version__}",
          "cores": len(os.sched_getaffinity(0)), "batch_size": options.batch, "samples": len(folder), "workers": best,
          "images_per_second": statistics.median(tried[best]), "runs": tried[best],
          "by_workers": {workers: statistics.median(rates) for workers, rates in tried.items()}}
print(json.dumps(result))
if options.json:
    with open(options.json, "w") as file:
        json.dump(result, file, indent=1)

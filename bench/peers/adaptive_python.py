#!/usr/bin/env python3
"""Adaptive patching as it is published: a list of leaves in Python, OpenCV per leaf for images, SciPy per leaf for volumes.

The peer of `vitrail bench patch`, on the images that one wrote with --images, one sample at a time on one core. Tree: the list is
scanned for the leaf with the most edge pixels, sums are taken from the pixels again, children take the parent's place (smallest
edge 2). Serialise: cv2.resize (bicubic) of each leaf of an image, RegularGridInterpolator of each leaf and channel of a volume,
and back. Edge map: OpenCV's GaussianBlur and Canny; of a volume slice by slice, which finds no edges between slices.
"""
import argparse
import json
import os
import platform
import statistics
import time

import cv2
import numpy as np
import scipy
from safetensors.numpy import load_file
from scipy.interpolate import RegularGridInterpolator

CASES = {"image256": (196, 8), "rgb512": (1024, 8), "image4096": (4096, 16), "volume64": (512, 4), "volume128": (4096, 8)}

parser = argparse.ArgumentParser()
parser.add_argument("images", help="folder of `vitrail bench patch --images`")
parser.add_argument("--cases", default=",".join(CASES))
parser.add_argument("--seconds", type=float, default=0.5, help="how long each step is repeated, 3 to 50 times; the median counts")
parser.add_argument("--json")
options = parser.parse_args()
cv2.setNumThreads(1)


def tree_of(edges, length):
    """Boxes (low, high) per axis; the most edge pixels first."""
    axes = edges.ndim
    value = lambda low, high: int(edges[tuple(slice(a, b) for a, b in zip(low, high))].sum())
    whole = ((0,) * axes, edges.shape)
    leaves = [(whole, value(*whole))]
    while len(leaves) < length:
        best = max(leaves, key=lambda leaf: leaf[1])
        (low, high), _ = best
        if high[0] - low[0] == 2:
            break
        at = leaves.index(best)
        middle = tuple((a + b) // 2 for a, b in zip(low, high))
        children = []
        for corner in np.ndindex(*[2] * axes):
            child = (tuple(m if c else a for c, a, m in zip(corner, low, middle)),
                     tuple(b if c else m for c, m, b in zip(corner, middle, high)))
            children.append((child, value(*child)))
        leaves = leaves[:at] + children + leaves[at + 1:]
    return [box for box, _ in leaves]


def resized(block, patch):
    """One leaf [sides..., C] as patch^k."""
    if block.ndim == 3:
        return cv2.resize(block, (patch, patch), interpolation=cv2.INTER_CUBIC).reshape(patch, patch, -1)
    return volume_resized(block, (patch,) * 3)


def volume_resized(block, to):
    grid = [np.linspace(0, n, n) for n in block.shape[:3]]
    places = np.stack(np.meshgrid(*[np.linspace(0, n, t) for n, t in zip(block.shape, to)], indexing="ij"), -1)
    return np.stack([RegularGridInterpolator(grid, block[..., c])(places) for c in range(block.shape[3])], -1)


def serialise(image, boxes, patch):
    return np.stack([resized(image[tuple(slice(a, b) for a, b in zip(low, high))], patch) for low, high in boxes])


def paste(tokens, boxes, shape):
    image = np.zeros(shape, np.float32)
    for token, (low, high) in zip(tokens, boxes):
        sides = [b - a for a, b in zip(low, high)]
        if len(sides) == 2:
            part = cv2.resize(token, sides[::-1], interpolation=cv2.INTER_CUBIC).reshape(*sides, -1)
        else:
            part = volume_resized(token, sides)
        image[tuple(slice(a, b) for a, b in zip(low, high))] = part
    return image


def edge_map(image):
    """image [sides..., C] in 0 ... 1."""
    data = np.round(image * 255).astype(np.uint8)
    canny = lambda picture: cv2.Canny(cv2.GaussianBlur(np.ascontiguousarray(picture), (3, 3), 0), 75, 125)
    return canny(data) if data.ndim == 3 else np.stack([canny(part) for part in data])


def median_ms(work):
    """Of one call, after one to warm up, and how many there were. CPU time of the one thread, so that other programs on the machine
    do not count against it."""
    work()
    clock, times, begin = time.process_time, [], time.process_time()
    while len(times) < 3 or (len(times) < 50 and clock() - begin < options.seconds):
        start = clock()
        work()
        times.append(clock() - start)
    return 1e3 * statistics.median(times), len(times)


def measure(name):
    length, patch = CASES[name]
    held = load_file(os.path.join(options.images, name + ".safetensors"))
    image = np.ascontiguousarray(np.moveaxis(held["image"], 0, -1))
    edges = held["edges"]
    boxes = tree_of(edges, length)
    tokens = serialise(image, boxes, patch)
    work = {"edge_map_ms": lambda: edge_map(image), "tree_ms": lambda: tree_of(edges, length),
            "serialise_ms": lambda: serialise(image, boxes, patch),
            "paste_ms": lambda: paste(tokens.astype(np.float32), boxes, image.shape)}
    found = {"name": name, "leaves": len(boxes), "runs": {}}
    for key, step in work.items():
        found[key], found["runs"][key] = median_ms(step)
    print(f"{name:10} {len(boxes):5} leaves  " + "  ".join(f"{key[:-3]} {found[key]:.3f} ms" for key in work), flush=True)
    return found


result = {"peer": f"Python {platform.python_version()}, NumPy {np.__version__}, OpenCV {cv2.__version__}, SciPy {scipy.__version__}",
          "threads": 1, "cases": [measure(name) for name in options.cases.split(",")]}
if options.json:
    with open(options.json, "w") as file:
        json.dump(result, file, indent=1)

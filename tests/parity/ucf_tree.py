"""Leaves of compat: ucf-vit against a plain form of UCF-VIT's rules, leaf by leaf, and their patches.

Usage: ucf_tree.py PROGRAM     (build/bin/ucf_tree)

The reference is written from a description of the published program: a list, of which the leaf with the
largest value is replaced in place by its children, until that leaf's edge is 2 or the list is long enough.
"""
import functools
import subprocess
import sys

import numpy as np


class Reference:
    """Boxes as (x1, x2, y1, y2[, z1, z2]); x is the last axis."""

    def __init__(self, domain, unit, length):
        self.domain, self.unit, self.axes = domain, unit, domain.ndim
        root = sum(((0, side) for side in domain.shape[::-1]), ())
        self.nodes = [[root, self.value(root)]]
        while len(self.nodes) < length:
            node = max(self.nodes, key=lambda n: n[1])  # the first of equals
            index = self.nodes.index(node)
            if node[0][1] - node[0][0] == 2:
                break
            parts = self.children(node[0])
            self.nodes = self.nodes[:index] + [[box, self.value(box)] for box in parts] + self.nodes[index + 1:]

    def value(self, box):
        spans = tuple(slice(box[2 * i], box[2 * i + 1]) for i in range(self.axes))[::-1]
        return int(self.domain[spans].sum(dtype=np.int64) / self.unit)

    def children(self, box):
        x1, x2, y1, y2 = box[:4]
        x, y = int((x1 + x2) / 2), int((y1 + y2) / 2)
        if self.axes == 2:
            return [(x1, x, y, y2), (x, x2, y, y2), (x1, x, y1, y), (x, x2, y1, y)]
        z1, z2 = box[4:]
        z = int((z1 + z2) / 2)
        return [(*xs, *ys, *zs) for zs in ((z1, z), (z, z2)) for ys in ((y1, y), (y, y2))
                for xs in ((x1, x), (x, x2))]

    def boxes(self, length):
        rows = np.zeros((length, 2 * self.axes), np.float32)
        for row, (box, _) in zip(rows, self.nodes):
            row[:self.axes], row[self.axes:] = box[0::2][::-1], box[1::2][::-1]
        return rows


def cubic_weights(t):
    a = -0.75
    near = lambda d: ((a + 2) * d - (a + 3)) * d * d + 1
    far = lambda d: ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return [far(1 + t), near(t), near(1 - t), far(2 - t)]


@functools.lru_cache
def axis_matrix(pixels, patch, axes):
    """[patch, pixels]: half-pixel bicubic for images, corner-aligned linear for volumes."""
    matrix = np.zeros((patch, pixels))
    for i in range(patch):
        place = (i + 0.5) * pixels / patch - 0.5 if axes == 2 else np.linspace(0, pixels - 1, patch)[i]
        base = int(np.floor(place))
        weights = cubic_weights(place - base) if axes == 2 else [0, 1 - (place - base), place - base, 0]
        for k, weight in enumerate(weights):
            matrix[i, min(max(base - 1 + k, 0), pixels - 1)] += weight
    return matrix


def patches(image, boxes, patch):
    out = np.zeros((len(boxes), patch ** image.ndim), np.float32)
    for row, box in zip(out, boxes.astype(int)):
        low, high = box[:image.ndim], box[image.ndim:]
        if (high == low).any():
            continue
        values = image[tuple(slice(a, b) for a, b in zip(low, high))].astype(np.float64)
        for axis in range(image.ndim):
            matrix = axis_matrix(values.shape[axis], patch, image.ndim)
            values = np.moveaxis(np.tensordot(matrix, values, (1, axis)), 0, axis)
        row[:] = values.ravel()
    return out


def ours(program, domain, image, unit, length, patch):
    words = [program, *map(str, (length, patch, unit, *domain.shape))]
    data = domain.astype(np.int32).tobytes() + image.astype(np.float32).tobytes()
    result = np.frombuffer(subprocess.run(words, input=data, stdout=subprocess.PIPE, check=True).stdout, np.float32)
    split = length * 2 * domain.ndim
    return result[:split].reshape(length, -1), result[split:].reshape(length, -1)


def random_case(random, axes):
    side = 2 ** random.integers(1, 8 if axes == 2 else 6)
    kind = random.integers(0, 4)
    shape = (side,) * axes
    if kind == 0:  # noise in 16 bits, where few cells hold a whole edge
        domain, unit = random.integers(0, 65536, shape), 255 << 16
    else:  # edges, a few or many
        domain, unit = (random.random(shape) < (0.001, 0.02, 0.3)[kind - 1]), 1
    length = 1 + (3 if axes == 2 else 7) * int(random.integers(0, 70))
    return domain.astype(np.int32), unit, length, int(random.integers(2, 9))


def main():
    program = sys.argv[1]
    random = np.random.default_rng(7)
    compared = padding = leaves = 0
    worst = 0.0
    for axes, cases in ((2, 40), (3, 20)):
        for case in range(cases):
            domain, unit, length, patch = random_case(random, axes)
            image = random.random(domain.shape, np.float32)
            reference = Reference(domain, unit, length)
            expected = reference.boxes(length)
            boxes, tokens = ours(program, domain, image, unit, length, patch)
            assert np.array_equal(boxes, expected), f"{axes}-D case {case}: {domain.shape} to {length}"
            worst = max(worst, np.abs(tokens - patches(image, boxes, patch)).max())
            compared, leaves = compared + 1, leaves + len(reference.nodes)
            padding += length - len(reference.nodes)

    def count(domain):
        boxes, _ = ours(program, domain, np.zeros(domain.shape), 1, 196, 4)
        return int((boxes[:, 2] > boxes[:, 0]).sum())

    blank, spot = np.zeros((256, 256), np.int32), np.zeros((64, 64), np.int32)
    spot[20:22, 36:38] = 1
    assert count(blank) == 22 and count(spot) == 16, (count(blank), count(spot))
    print(f"{compared} trees, {leaves} leaves and {padding} places of padding are equal; a blank image has 22, a spot 16")
    # Values of up to 1 in float, rounded after each axis: 3e-7.
    print(f"patches: worst difference {worst:.1e} (allowed 5e-7)")
    assert worst <= 5e-7


main()

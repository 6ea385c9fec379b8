"""`vitrail patch` against a peer written in SciPy and NumPy: edges, tree, boxes and tokens of images and volumes.

Edges, boxes and the number of leaves must be equal; tokens differ by the rounding of fp32 (see common.py). Where OpenCV
or PyTorch have the same resampling, leaves are compared with theirs too.
"""
import os

import cv2
import nibabel
import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file
from scipy import ndimage

from common import ALLOWED, folder, run

SMOOTH, DIFFERENCE = np.array([1, 2, 1]), np.array([-1, 0, 1])


def along(values, weights, mode):
    """weights[axis] along each axis."""
    for axis, taps in enumerate(weights):
        values = ndimage.correlate1d(values, taps, axis=axis, mode=mode)
    return values


def shifted(values, offset):
    """values at place + offset, 0 outside."""
    padded = np.pad(values, 1)
    return padded[tuple(slice(1 + o, 1 + o + n) for o, n in zip(offset, values.shape))]


def gradient(channel):
    """The parts of the Sobel gradient, and the norm: |gx| + |gy| of an image, the squared length of a volume."""
    k = channel.ndim
    total = 4**k
    smooth = (along(channel, [SMOOTH] * k, "mirror") + total // 2) // total
    parts = np.stack([along(smooth, [DIFFERENCE if a == axis else SMOOTH for a in range(k)], "nearest") for axis in range(k)])
    return parts, np.abs(parts).sum(0) if k == 2 else (parts**2).sum(0)


def edges_of(image, low=75, high=125):
    """Canny of uint8 [C, sides...] with the blur of 3."""
    parts, norm = gradient(image[0].astype(np.int64))
    for channel in image[1:]:
        other_parts, other = gradient(channel.astype(np.int64))
        parts, norm = np.where(other > norm, other_parts, parts), np.maximum(norm, other)
    k = norm.ndim
    if k == 3:
        low, high = 16 * low**2, 16 * high**2
    most = np.abs(parts).max(0)
    step = np.where(np.abs(parts) > np.tan(np.pi / 8) * most, np.sign(parts), 0)
    ridge = np.zeros(norm.shape, bool)
    for offset in np.ndindex(*[3] * k):
        d = np.array(offset) - 1
        if not d.any():
            continue
        here = (step == d.reshape(-1, *[1] * k)).all(0)
        first = d if tuple(d) < (0,) * k else -d
        before, after = shifted(norm, first), shifted(norm, -first)
        strict = k == 2 and d.all()  # OpenCV's diagonals
        ridge |= here & (norm > before) & ((norm > after) if strict else (norm >= after))
    groups, _ = ndimage.label(ridge & (norm > low), np.ones([3] * k))
    strong = np.unique(groups[ridge & (norm > high)])
    return np.isin(groups, strong[strong > 0]).astype(np.uint8)


def tree_of(edges, length, edge):
    """Boxes (low, high) in Morton order, by scanning all leaves at every step."""
    sides = np.array(edges.shape)
    root = edge
    while root < sides.max():
        root *= 2

    def children(low, size):
        half = size // 2
        found = [(low + np.array(corner) * half, half) for corner in np.ndindex(*[2] * len(sides))]
        return [part for part in found if (part[0] < sides).all()]

    def shrunk(low, size):
        while size > edge and len(parts := children(low, size)) == 1:
            low, size = parts[0]
        return low, size

    def value(low, size):
        return int(edges[tuple(slice(a, a + size) for a in low)].sum())

    leaves = [(*shrunk(np.zeros(len(sides), int), root),)]
    values = [value(*leaves[0])]
    while True:
        fits = [i for i, (low, size) in enumerate(leaves) if size > edge and len(leaves) - 1 + len(children(low, size)) <= length]
        if not fits:
            return np.array([[*low, *np.minimum(low + size, sides)] for low, size in leaves], np.float32)
        best = max(fits, key=lambda i: (values[i], leaves[i][1], -i))
        parts = [shrunk(*part) for part in children(*leaves[best])]
        leaves[best : best + 1], values[best : best + 1] = parts, [value(*part) for part in parts]


def kernel(x, method):
    """Weight of a value at distance x from a centre."""
    if method != "cubic":
        return np.maximum(0, 1 - x)
    near, far = (1.25 * x - 2.25) * x * x + 1, ((-0.75 * x + 3.75) * x - 6) * x + 3
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def taps(n, patch, method):
    """[patch, n]: half-pixel centres, the border goes on; area: the average where n shrinks."""
    matrix = np.zeros((patch, n))
    for i in range(patch):
        if n > patch and method == "area":
            low, high = i * n / patch, (i + 1) * n / patch
            for j in range(n):
                matrix[i, j] = max(0.0, min(high, j + 1) - max(low, j)) * patch / n
        else:
            near = np.arange(-3, n + 3)
            weights = kernel(abs(near - ((i + 0.5) * n / patch - 0.5)), method)
            np.add.at(matrix[i], np.clip(near, 0, n - 1), weights)
    return matrix


def block_of(image, box):
    k = image.ndim - 1
    return image[(slice(None), *(slice(a, b) for a, b in zip(box[:k], box[k:])))]


def tokens_of(image, boxes, patch, method):
    k = image.ndim - 1
    tokens = np.zeros((len(image), len(boxes), patch**k))
    for leaf, box in enumerate(boxes.astype(int)):
        block = block_of(image, box).astype(np.float64)
        for axis in range(k):
            block = np.moveaxis(np.tensordot(block, taps(block.shape[1 + axis], patch, method), (1 + axis, 1)), -1, 1 + axis)
        tokens[:, leaf] = block.reshape(len(image), -1)
    return tokens


def library_tokens(block, patch, method):
    """A leaf resampled by OpenCV or PyTorch; None where they follow another rule."""
    sides = np.array(block.shape[1:])
    if method == "area":
        if (sides > patch).all() and len(sides) == 2 and (sides % patch == 0).all():
            method = "average"
        elif (sides <= patch).all():
            method = "linear"
        else:
            return None
    if len(sides) == 2:
        flag = {"average": cv2.INTER_AREA, "cubic": cv2.INTER_CUBIC, "linear": cv2.INTER_LINEAR}[method]
        channels = [cv2.resize(np.ascontiguousarray(channel), (patch, patch), interpolation=flag) for channel in block]
        return np.stack(channels).reshape(len(block), -1)
    if method != "linear":
        return None
    volume = torch.from_numpy(np.ascontiguousarray(block))[None]
    return torch.nn.functional.interpolate(volume, size=(patch,) * 3, mode="trilinear", align_corners=False)[0].reshape(len(block), -1).numpy()


def compare_libraries(image, boxes, tokens, patch, method):
    """Worst difference from a library, for values of 255, and leaves compared."""
    worst, count = 0.0, 0
    for leaf, box in enumerate(boxes.astype(int)):
        theirs = library_tokens(block_of(image, box), patch, method)
        if theirs is None:
            continue
        worst, count = max(worst, abs(tokens[:, leaf] - theirs).max() / abs(image).max()), count + 1
    assert worst < 1e-5, f"a library's leaves differ by {worst:.1e} of the largest value"
    return worst, count


def compare(name, path, image, patch, length, bytes_of, method="area", min_leaf=0):
    where = folder()
    sides = list(image.shape[1:])
    recipe = os.path.join(where, "recipe.yaml")
    with open(recipe, "w") as file:
        file.write(f"model: {{kind: vit, image_size: {sides}, patch_size: {patch}, in_channels: {len(image)}, embed_dim: 48, "
                   f"depth: 1, num_heads: 4, adaptive: {{fixed_length: {length}, resample: {method}, min_leaf: {min_leaf}}}}}\n")
    output = os.path.join(where, "out.safetensors")
    run("patch", recipe, "--input", path, "--output", os.path.join(where, "out.png"), "--tokens", output)
    found = load_file(output)
    assert abs(found["image"] - image).max() < 1e-6, f"{name}: the image is not the one of the file"
    edges = edges_of(bytes_of)
    assert edges.any() and (found["edges"] == edges).all(), f"{name}: {int((found['edges'] != edges).sum())} edge pixels differ"
    boxes = tree_of(edges, length, min_leaf or patch)
    count = len(boxes)
    assert found["boxes"].shape == (length, 2 * len(sides)) and (found["boxes"][:count] == boxes).all(), f"{name}: other boxes"
    assert not found["boxes"][count:].any() and not found["tokens"][:, count:].any(), f"{name}: padding is not empty"
    wanted = tokens_of(image, boxes, patch, method)
    worst = np.linalg.norm(found["tokens"][:, :count] - wanted) / np.linalg.norm(wanted)
    library, leaves = compare_libraries(image, boxes, found["tokens"], patch, method)
    print(f"{name}, {method}: {int(edges.sum())} edge pixels and {count} boxes equal, tokens {worst:.1e} (allowed {ALLOWED:.0e}), "
          f"{leaves} leaves within {library:.1e} of a library's (allowed 1e-05)")
    assert worst < ALLOWED
    assert leaves > 0 or method == "cubic" and len(sides) == 3


def texture(sides, seed):
    """Blobs with sharp borders and a little noise, 0 ... 255."""
    generator = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(generator.standard_normal(sides), 5) > 0.03
    shades = ndimage.gaussian_filter(generator.standard_normal(sides), 9) * 600
    return np.clip(90 + 80 * blobs + shades + generator.normal(0, 4, sides), 0, 255).astype(np.uint8)


def image_case(sides, channels, patch, length, seed, **options):
    pixels = np.stack([texture(sides, seed + c) for c in range(channels)])
    path = os.path.join(folder(), "image.png")
    Image.fromarray(pixels[0] if channels == 1 else pixels.transpose(1, 2, 0)).save(path)
    image = (pixels.astype(np.float32) / 255 - 0.5) / 0.5
    compare(f"image {channels} x {sides}", path, image, patch, length, pixels, **options)


def volume_case(sides, patch, length, seed, **options):
    pixels = texture(sides, seed)
    path = os.path.join(folder(), "volume.nii.gz")
    values = pixels.astype(np.float32) / 255  # NIfTI values are taken as they are
    nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), np.eye(4)), path)
    image = (pixels[None].astype(np.float32) / 255 - 0.5) / 0.5
    compare(f"volume {sides}", path, image, patch, length, pixels[None], **options)


image_case((128, 128), 1, 4, 196, 1)
image_case((96, 160), 3, 8, 100, 2)
image_case((64, 64), 3, 8, 300, 3)  # fewer leaves than asked for
volume_case((32, 32, 32), 4, 120, 4)
volume_case((24, 40, 32), 4, 99, 5)
# Leaves smaller and larger than a patch, cut where the image ends.
for resample in ("area", "cubic", "linear"):
    image_case((88, 72), 3, 8, 151, 6, method=resample, min_leaf=3)
    volume_case((24, 32, 20), 4, 120, 7, method=resample, min_leaf=2)

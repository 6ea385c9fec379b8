"""`vitrail patch` and `vitrail bench patch` as a user runs them.

usage: patch_test.py CASE   (a function below); VITRAIL names the program
"""

import json
import os
import sys
import tempfile

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from program import must, run

USAGE, DATA = 2, 3


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def recipe(folder, sides, patch=4, channels=1, adaptive="fixed_length: 64", source="", model=""):
    path = os.path.join(folder, "recipe.yaml")
    tokens = "" if adaptive is None else f", adaptive: {{{adaptive}}}"
    with open(path, "w") as out:
        out.write(f"model: {{kind: vit, image_size: {list(sides)}, patch_size: {patch}, in_channels: {channels}, num_classes: 2, "
                  f"embed_dim: 24, depth: 1, num_heads: 2, class_token: false, pool: avg{tokens}{model}}}\n")
        if source:
            out.write(f"data: {{sources: [{{{source}}}]}}\ntrain: {{steps: 1}}\n")
    return path


def texture(sides, seed=3):
    """Blocks of two shades, shading and noise, 0 ... 255."""
    draw = np.random.default_rng(seed)
    blocks = draw.integers(0, 2, [max(n // 8, 1) for n in sides])
    for axis, n in enumerate(sides):
        blocks = blocks.repeat(-(-n // blocks.shape[axis]), axis).take(range(n), axis)
    return np.clip(70 + 90 * blocks + draw.normal(0, 3, sides), 0, 255).astype(np.uint8)


def patched(folder, path, input_path, *more):
    """Runs the verb; returns what it printed, the picture and the tensors."""
    output, tokens = os.path.join(folder, "out.png"), os.path.join(folder, "out.safetensors")
    done = must(["patch", path, "--input", input_path, "--output", output, "--tokens", tokens, *more])
    return done.stdout, np.asarray(Image.open(output)), load_file(tokens)


def tiles(boxes, sides):
    """Every pixel lies in one box."""
    k = len(sides)
    covered = np.zeros(sides, int)
    for box in boxes.astype(int):
        covered[tuple(slice(a, b) for a, b in zip(box[:k], box[k:]))] += 1
    return (covered == 1).all()


def png(folder, pixels, name="image.png"):
    path = os.path.join(folder, name)
    Image.fromarray(pixels).save(path)
    return path


def case_image(folder):
    """Leaves, picture and text belong together, and every option of the recipe counts."""
    image = texture((64, 64))
    path = png(folder, image)
    text, picture, found = patched(folder, recipe(folder, (64, 64)), path)
    check(text.startswith("64 leaves of 64 (0 padding), edges marks ") and "leaves by edge: " in text, text)
    check("% of the pixels)" in text, text)
    check(found["tokens"].shape == (1, 64, 16) and found["boxes"].shape == (64, 4), {k: v.shape for k, v in found.items()})
    check(found["edges"].shape == (64, 64) and set(np.unique(found["edges"])) == {0, 1}, "edges are 0 and 1")
    check(tiles(found["boxes"], (64, 64)), "boxes tile the image")
    check(np.abs(found["image"][0] - (image / 255 - 0.5) / 0.5).max() < 1e-6, "the image as the model gets it")
    check(picture.ndim == 3 and (picture == [255, 214, 0]).all(-1).sum() > 500, "leaves are drawn over the image")
    counted = {}
    for box in found["boxes"]:
        edge = int(max(box[2] - box[0], box[3] - box[1]))
        counted[edge] = counted.get(edge, 0) + 1
    check(all(f"{edge}: {count} (" in text for edge, count in counted.items()), f"{text} {counted}")
    boxes = {"edges": found["boxes"]}
    for importance in ("gradient", "variance", "given"):
        other = patched(folder, recipe(folder, (64, 64), adaptive=f"fixed_length: 64, importance: {importance}"), path)
        check(other[0].startswith(f"64 leaves of 64 (0 padding), {importance} marks "), other[0])
        check(tiles(other[2]["boxes"], (64, 64)) and other[2]["edges"].max() > 1, importance)
        boxes[importance] = other[2]["boxes"]
    check(not np.array_equal(boxes["edges"], boxes["given"]), "the importance decides")
    text, _, coarse = patched(folder, recipe(folder, (64, 64), patch=8, adaptive="fixed_length: 64, min_leaf: 16"), path)
    check(text.startswith("16 leaves of 64 (48 padding)") and coarse["tokens"].shape == (1, 64, 64), f"min_leaf counts: {text}")
    raster = patched(folder, recipe(folder, (64, 64), adaptive="fixed_length: 64, order: raster"), path)[2]["boxes"]
    check(not np.array_equal(raster, found["boxes"]) and np.array_equal(np.unique(raster, axis=0), np.unique(found["boxes"], axis=0)),
          "order changes nothing but the order")
    for resample in ("cubic", "linear"):
        other = patched(folder, recipe(folder, (64, 64), patch=4, adaptive=f"fixed_length: 64, resample: {resample}"), path)[2]
        check(np.array_equal(other["boxes"], found["boxes"]) and not np.array_equal(other["tokens"], found["tokens"]), resample)
    print(f"  {text.strip()}")


def case_training(folder):
    """--sample and --epoch draw as training does: again the same, for another sample or epoch another."""
    path, image = recipe(folder, (64, 64)), png(folder, texture((64, 64)))
    fixed = patched(folder, path, image)[2]
    drawn = {(sample, epoch): patched(folder, path, image, "--sample", sample, "--epoch", epoch)[2]["edges"]
             for sample in range(4) for epoch in (0, 1)}
    again = patched(folder, path, image, "--sample", 3, "--epoch", 1)[2]["edges"]
    check(np.array_equal(again, drawn[3, 1]), "the same draw again")
    check(len({edges.tobytes() for edges in drawn.values()}) > 2, "thresholds differ")
    check(np.array_equal(patched(folder, path, image)[2]["tokens"], fixed["tokens"]), "evaluation draws nothing")


def case_colour(folder):
    """RGB channels stay apart; a tree for each variable gives a row each."""
    image = np.stack([texture((32, 32), seed) for seed in range(3)], -1)
    path = png(folder, image)
    one_text, one, shared = patched(folder, recipe(folder, (32, 32), channels=3, adaptive="fixed_length: 16"), path)
    check(shared["tokens"].shape == (3, 16, 16), shared["tokens"].shape)
    per_channel = recipe(folder, (32, 32), channels=3, adaptive="fixed_length: 16, trees: per_channel", model=", variables: [a, b, c]")
    text, three, apart = patched(folder, per_channel, path)
    check(apart["tokens"].shape == (1, 48, 16) and apart["boxes"].shape == (48, 4) and apart["edges"].shape == (3, 32, 32),
          {k: v.shape for k, v in apart.items()})
    check("in 3 trees" in text and three.shape[0] == 3 * one.shape[0] + 12, f"{text} {one.shape} {three.shape}")
    for c in range(3):
        check(tiles(apart["boxes"][16 * c: 16 * c + 16], (32, 32)), f"channel {c}")
        grey = patched(folder, recipe(folder, (32, 32), adaptive="fixed_length: 16"), png(folder, image[..., c], "grey.png"))[2]
        check(np.array_equal(grey["edges"], apart["edges"][c]) and np.array_equal(grey["boxes"], apart["boxes"][16 * c: 16 * c + 16]),
              f"channel {c} as an image of its own")
    compat = recipe(folder, (32, 32), channels=3, adaptive="fixed_length: 16, trees: per_channel, compat: ucf-vit", model=", variables: [a, b, c]")
    check(patched(folder, compat, path)[2]["edges"].shape == (3, 32, 32), "compat with trees per channel")


def case_volume(folder):
    """Slices across every axis, and more on request."""
    values = texture((24, 32, 40)).astype(np.float32) / 255
    path = os.path.join(folder, "volume.npy")
    np.save(path, values)
    written = recipe(folder, (24, 32, 40), source=f"reader: npy, root: {path}, axes: zyx", adaptive="fixed_length: 100, min_leaf: 2")
    text, picture, found = patched(folder, written, path)
    count = int(text.split()[0])
    check(tiles(found["boxes"][:count], (24, 32, 40)) and found["tokens"].shape == (1, 100, 64), text)
    check(not found["boxes"][count:].any() and f"({100 - count} padding)" in text, text)
    more = patched(folder, written, path, "--slices", 4)[1]
    check(more.shape[0] > picture.shape[0] and more.shape[1] == picture.shape[1], f"{picture.shape} {more.shape}")
    print(f"  {text.strip()}")


def case_odd(folder):
    """Flat, tiny, narrow and bright images have a defined result."""
    text, _, flat = patched(folder, recipe(folder, (32, 32)), png(folder, np.full((32, 32), 90, np.uint8)))
    check(not flat["edges"].any() and len({tuple(b[2:] - b[:2]) for b in flat["boxes"]}) == 1, f"a flat image: a uniform tree, {text}")
    dot = np.zeros((32, 32), np.uint8)
    dot[9, 21] = 255
    text, _, found = patched(folder, recipe(folder, (32, 32), adaptive="fixed_length: 13"), png(folder, dot))
    sizes = (found["boxes"][:, 2:] - found["boxes"][:, :2]).max(1)
    check(tiles(found["boxes"], (32, 32)) and sizes.min() < sizes.max(), f"one bright pixel {text}")
    text, _, found = patched(folder, recipe(folder, (40, 1), patch=1, adaptive="fixed_length: 20, min_leaf: 4"), png(folder, texture((40, 1))))
    count = int(text.split()[0])
    check(tiles(found["boxes"][:count], (40, 1)), f"one pixel wide {text}")
    text, _, found = patched(folder, recipe(folder, (3, 2), patch=1, adaptive="fixed_length: 5, min_leaf: 16"), png(folder, texture((3, 2))))
    check(text.startswith("1 leaves of 5 (4 padding)") and found["boxes"][0].tolist() == [0, 0, 3, 2], f"smaller than a leaf: {text}")
    big = png(folder, texture((2500, 3000)))
    _, picture, _ = patched(folder, recipe(folder, (2500, 3000), patch=4, adaptive="fixed_length: 1024"), big)
    check(max(picture.shape) < 8000, f"large pictures are reduced: {picture.shape}")


def case_mixed(folder):
    """Mixed resolution: three sizes, each token as many pixels."""
    image = np.full((64, 64), 90, np.uint8)
    image[:32, 32:] = texture((32, 32))
    path = png(folder, image)
    written = recipe(folder, (64, 64), patch=8, adaptive=None, model=", mixed_resolution: {num_tokens: 13, max_patch: 32}")
    text, picture, found = patched(folder, written, path)
    check(text.startswith("13 leaves of 13 (0 padding), pixel_blur marks "), text)
    check(found["tokens"].shape == (1, 13, 64) and tiles(found["boxes"], (64, 64)) and found["edges"].shape == (64, 64), text)
    sizes = set((found["boxes"][:, 2] - found["boxes"][:, 0]).tolist())
    check(sizes == {8, 16, 32}, sizes)
    smallest = found["boxes"][found["boxes"][:, 2] - found["boxes"][:, 0] == 8]
    for box in smallest.astype(int):
        token = found["tokens"][0, (found["boxes"] == box).all(1).argmax()].reshape(8, 8)
        check(np.array_equal(token, found["image"][0, box[0]:box[2], box[1]:box[3]]), "the smallest patches are pixels of the image")
    print(f"  {text.strip()}")


def case_compat(folder):
    """UCF-VIT's rules: a flat image ends early, at leaves of edge 2."""
    written = recipe(folder, (64, 64), patch=4, adaptive="fixed_length: 61, compat: ucf-vit")
    text, _, found = patched(folder, written, png(folder, np.full((64, 64), 90, np.uint8)))
    count = int(text.split()[0])
    check(count == 16 and (found["boxes"][:count, 2] - found["boxes"][:count, 0]).min() == 2, f"1 + 3 x 5 leaves down to edge 2: {text}")
    text, _, found = patched(folder, written, png(folder, texture((64, 64))))
    check(text.startswith("61 leaves of 61") and tiles(found["boxes"], (64, 64)) and found["edges"].max() == 255, text)
    refused(["patch", recipe(folder, (64, 48), adaptive="fixed_length: 61, compat: ucf-vit"), "--input", os.path.join(folder, "image.png"),
             "--output", os.path.join(folder, "o.png")], USAGE, ["compat", "powers of two"])


def refused(arguments, code, words):
    done = run(arguments)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    check(done.returncode == code and len(lines) == 1, f"{arguments} ends with {done.returncode}: {done.stderr}")
    check(all(word in lines[0] for word in words), f"{lines[0]} lacks one of {words}")
    print(f"  {lines[0]}")


def case_bad(folder):
    """One clear line and the right exit code."""
    good, path, output = recipe(folder, (16, 16)), png(folder, texture((16, 16))), os.path.join(folder, "o.png")
    text_file = os.path.join(folder, "words.png")
    open(text_file, "w").write("words, not pixels")
    refused(["patch", good, "--input", text_file, "--output", output], DATA, ["words.png"])
    refused(["patch", good, "--input", os.path.join(folder, "none.png"), "--output", output], DATA, ["none.png"])
    refused(["patch", good, "--input", path], USAGE, ["--output"])
    refused(["patch", good, "--input", path, "--output", os.path.join(folder, "none/o.png")], 1, ["none"])
    refused(["patch", good, "--input", path, "--output", output, "--slices", "-1"], USAGE, ["slices"])
    refused(["patch", recipe(folder, (16, 16), adaptive=None), "--input", path, "--output", output], USAGE, ["model.adaptive.fixed_length"])
    os.mkdir(os.path.join(folder, "two"))
    for name in ("a.png", "b.png"):
        png(os.path.join(folder, "two"), texture((16, 16)), name)
    refused(["patch", recipe(folder, (16, 16)), "--input", os.path.join(folder, "two"), "--output", output], DATA, ["one image", "2"])
    broken = texture((16, 16)).astype(np.float32)
    broken[3, 4] = np.nan
    broken_path = os.path.join(folder, "nan.npy")
    np.save(broken_path, broken)
    written = recipe(folder, (16, 16), source=f"reader: npy, root: {broken_path}, axes: yx, normalize: none")
    refused(["patch", written, "--input", broken_path, "--output", output], DATA, ["nan.npy", "finite", "nan"])
    check(not os.path.exists(output), "nothing is written")


BENCH_KEYS = ["date", "machine", "gpu", "cores", "min_leaf", "cases"]
CASE_KEYS = ["name", "channels", "sides", "fixed_length", "patch_size", "times"]
TIME_KEYS = ["device", "threads", "clock", "batch", "leaves", "edge_map_ms", "tree_ms", "serialise_ms", "paste_ms", "labels_ms", "whole_ms",
             "samples_per_second"]


def case_bench(folder):
    """The fields of bench patch --json, and the images it writes for other programs."""
    path = os.path.join(folder, "patch.json")
    brief = ["--device", "cpu", "--cases", "image256", "--seconds", "0.01", "--threads", "2"]
    done = must(["bench", "patch", *brief, "--json", path, "--images", os.path.join(folder, "images")])
    found = json.load(open(path))
    check(list(found) == BENCH_KEYS, list(found))
    (case,) = found["cases"]
    check(list(case) == CASE_KEYS and case["name"] == "image256" and case["sides"] == [256, 256], case)
    check([list(t) for t in case["times"]] == 2 * [TIME_KEYS], case["times"])
    check([(t["threads"], t["clock"]) for t in case["times"]] == [(1, "cpu"), (2, "wall")], case["times"])
    for times in case["times"]:
        check(times["leaves"] == 196 and all(times[key] > 0 for key in TIME_KEYS[5:]), times)
        check(abs(times["samples_per_second"] * times["whole_ms"] / 1e3 - 1) < 1e-6, times)
    image = load_file(os.path.join(folder, "images", "image256.safetensors"))
    check(image["image"].shape == (1, 256, 256) and image["edges"].shape == (256, 256), {k: v.shape for k, v in image.items()})
    share = image["edges"].mean()
    check(0.01 < share < 0.5 and image["image"].std() > 0.05, f"{share:.3f} of the pixels are edges")
    check(done.stdout.startswith("patch  ") and "image256" in done.stdout, done.stdout)
    check(json.loads(must(["bench", "patch", *brief, "--json", "-"]).stdout)["cases"], "--json - prints the object")
    refused(["bench", "patch", "--device", "cpu", "--cases", "image1"], USAGE, ["image1", "image256"])
    nowhere = ["bench", "patch", *brief, "--json", os.path.join(folder, "none", "x.json")]
    refused(nowhere, USAGE, ["--json", "no folder"])
    check(run(nowhere).stdout == "", "a missing folder must be refused before anything is measured")
    print(done.stdout.rstrip())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="vitrail-") as place:
        globals()["case_" + sys.argv[1]](place)

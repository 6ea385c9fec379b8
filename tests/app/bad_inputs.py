"""Bad inputs, one a row: each must end with its exit code and one clear line, and leave an earlier run as it was.

usage: bad_inputs.py [name ...]; VITRAIL names the program.
"""

import gzip
import hashlib
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile

from program import make_workplace, must, read_bytes, run

USAGE, DATA, CHECKPOINT, OTHER = 2, 3, 4, 1
# What a line must look like: [where] words, or [rank r/n host] [where] words.
LINE = re.compile(r"^(\[rank \d+/\d+ \S+\] )?\[[\w .:/\-]+\] \S.+")


class Place:
    """A folder with data, a recipe, an earlier run, and broken copies of files."""

    def __init__(self, folder):
        self.folder = folder
        self.recipe = make_workplace(folder)
        must(["train", self.recipe, "run.name=earlier"])
        self.earlier = os.path.join(folder, "runs", "earlier")
        self.weights = os.path.join(self.earlier, "weights.safetensors")
        self.checkpoint = os.path.join(self.earlier, "checkpoints", "step-00000020")

    def path(self, name):
        return os.path.join(self.folder, name)

    def file(self, name, data):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "wb") as out:
            out.write(data if isinstance(data, bytes) else data.encode())
        return self.path(name)

    def with_text(self, name, old, new):
        """The recipe with a piece replaced."""
        text = open(self.recipe).read()
        assert old in text, old
        return self.file(name, text.replace(old, new, 1))

    def images(self, name, files):
        """A folder of images: {path: bytes}."""
        for path, data in files.items():
            self.file(os.path.join(name, path), data)
        return self.path(name)


def png(width=8, height=8):
    import struct
    import zlib
    rows = b"".join(b"\0" + bytes((x * 20 + y) % 256 for x in range(width)) for y in range(height))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def digits_file(place, name, lines):
    with gzip.open(place.path(name), "wt") as out:
        out.write("\n".join(lines) + "\n")
    return place.path(name)


def train(*overrides, recipe=None):
    return lambda place: ["train", recipe(place) if recipe else place.recipe, "run.name=bad", "--resume", "never",
                          *[o(place) if callable(o) else o for o in overrides]]


def folder_source(name, files, *more):
    return train(lambda p: f"data.sources[0].root={p.images(name, files)}", "data.sources[0].reader=image_folder",
                 "data.sources[0].split=[]", "data.sources[0].augment=[]", "model.num_classes=2", "eval.sources=[]",
                 "data.batch_size=4", *more)


def written(model, source="reader: random", verb=("train",), options=(), end=""):
    """A verb with a recipe of its own; `options` may hold functions of the place."""
    text = ("run: {{name: bad, output: {folder}/runs, device: cpu, threads: 1}}\nmodel: {{{model}}}\n"
            "data: {{batch_size: 4, workers: 1, sources: [{{{source}}}]}}\ntrain: {{steps: 1}}\n" + end)
    def arguments(place):
        recipe = place.file("own.yaml", text.format(folder=place.folder, model=model, source=source.format(folder=place.folder)))
        return [verb[0], recipe, *verb[1:], *[o(place) if callable(o) else o for o in options]]
    return arguments


UNETR = "kind: unetr, image_size: [16, 16], patch_size: 4, in_channels: 1, num_classes: 2, embed_dim: 32, depth: 4, num_heads: 2, feature_size: 4"
DIFFUSION = "kind: diffusion, image_size: [8, 8], patch_size: 4, in_channels: 1, num_classes: 3, embed_dim: 32, depth: 2, num_heads: 2, decoder: linear, num_timesteps: 20"
MAE = "kind: mae, image_size: [8, 8], patch_size: 2, in_channels: 1, embed_dim: 32, depth: 2, num_heads: 2, decoder_embed_dim: 32, decoder_depth: 1, decoder_num_heads: 2"
OUT = ("--output", lambda p: p.path("o.png"))


def eval_with(make_weights, *overrides):
    return lambda place: ["eval", place.recipe, "run.name=earlier", "--weights", make_weights(place), *overrides]


GOOD = {f"{c}/{i}.png": png() for c in "ab" for i in range(4)}
FULL_ROW = ",".join(["1.0"] * 65)

# name, arguments, exit code, words that the line must hold
CASES = [
    # --- command line
    ("unknown verb", lambda p: ["trian", p.recipe], USAGE, ["trian"]),
    ("unknown option", lambda p: ["train", p.recipe, "--fast"], USAGE, ["--fast"]),
    ("no recipe given", lambda p: ["train"], USAGE, ["RECIPE"]),
    ("no verb", lambda p: [], USAGE, []),
    ("missing recipe", lambda p: ["train", p.path("none.yaml")], USAGE, ["none.yaml"]),
    ("recipe is a folder", lambda p: ["train", p.folder], USAGE, [os.sep]),
    ("override without value", train("train.steps"), USAGE, ["train.steps"]),
    ("override of an unknown key", train("train.stepz=3"), USAGE, ["train.stepz", "steps"]),
    ("override past the list", train("data.sources[7].root=x"), USAGE, ["sources"]),
    # --- recipe: form
    ("broken yaml", train(recipe=lambda p: p.file("broken.yaml", "run: {name: x\nmodel: [")), USAGE, ["broken.yaml"]),
    ("binary recipe", train(recipe=lambda p: p.file("binary.yaml", bytes(range(256)))), USAGE, ["binary.yaml"]),
    ("empty recipe", train(recipe=lambda p: p.file("empty.yaml", "")), USAGE, []),
    ("typo in a section", train(recipe=lambda p: p.with_text("s.yaml", "checkpoint:", "chekpoint:")), USAGE, ["chekpoint", "checkpoint"]),
    ("typo in a key", train(recipe=lambda p: p.with_text("k.yaml", "embed_dim", "embed_dmi")), USAGE, ["embed_dmi", "embed_dim"]),
    ("key given twice", train(recipe=lambda p: p.with_text("d.yaml", "depth: 3", "depth: 3, depth: 4")), USAGE, ["depth"]),
    # --- recipe: types and ranges
    ("word for a number", train("model.depth=deep"), USAGE, ["depth", "deep"]),
    ("fraction for a count", train("model.depth=2.5"), USAGE, ["depth", "2.5"]),
    ("number beyond 64 bits", train("run.seed=99999999999999999999"), USAGE, ["seed"]),
    ("list for a number", train("model.depth=[1, 2]"), USAGE, ["depth"]),
    ("negative depth", train("model.depth=-1"), USAGE, ["depth", "-1"]),
    ("zero batch", train("data.batch_size=0"), USAGE, ["batch_size", "0"]),
    ("learning rate of zero", train("train.optimizer.lr=0"), USAGE, ["lr", "0"]),
    ("learning rate not a number", train("train.optimizer.lr=nan"), USAGE, ["lr"]),
    ("drop path of one and a half", train("model.drop_path_rate=1.5"), USAGE, ["drop_path_rate", "1.5"]),
    ("mask of everything", train("model.kind=mae", "model.mask_ratio=1.0"), USAGE, ["mask_ratio"]),
    ("word out of the list", train("train.optimizer.kind=adamv"), USAGE, ["adamv", "adamw"]),
    ("one beta", train("train.optimizer.betas=[0.9]"), USAGE, ["betas"]),
    ("steps and epochs", train(recipe=lambda p: p.with_text("e.yaml", "steps: 20", "steps: 20\n  epochs: 2")), USAGE, ["epochs", "steps"]),
    ("no sources", train("data.sources=[]"), USAGE, ["data.sources"]),
    ("mixing with an odd batch", train("data.batch_size=31", 'data.sources[0].augment=["mixup:0.2"]'), USAGE, ["mixup", "even", "31"]),
    ("split upside down", train("data.sources[0].split=[0.8, 0.2]"), USAGE, ["split"]),
    ("unknown augmentation", train("data.sources[0].augment=[spin]"), USAGE, ["spin"]),
    # --- recipe: sizes that do not fit
    ("heads do not divide the width", train("model.num_heads=3"), USAGE, ["num_heads", "32", "3"]),
    ("patch does not divide the image", train("model.patch_size=3"), USAGE, ["patch_size", "8", "3"]),
    ("micro-batches do not divide", train("train.micro_batches=5"), USAGE, ["micro_batches", "32", "5"]),
    ("mesh does not fit the ranks", train("parallel.replicate=3"), USAGE, ["replicate", "3"]),
    ("gpu that is not there", train("run.device=cuda"), USAGE, ["cuda"]),
    # --- data
    ("missing data file", train(lambda p: f"data.sources[0].root={p.path('none.csv.gz')}"), DATA, ["none.csv.gz"]),
    ("digits that are no gzip", train(lambda p: f"data.sources[0].root={p.file('text.csv.gz', 'hello')}"), DATA, ["text.csv.gz"]),
    ("digits cut short", train(lambda p: f"data.sources[0].root={p.file('cut.csv.gz', read_bytes(p.path('digits.csv.gz'))[:400])}"), DATA, ["cut.csv.gz"]),
    ("digits with a short row", train(lambda p: f"data.sources[0].root={digits_file(p, 'row.csv.gz', [FULL_ROW, '1,2,3'])}"), DATA, ["row.csv.gz"]),
    ("digits with a word", train(lambda p: f"data.sources[0].root={digits_file(p, 'word.csv.gz', [FULL_ROW.replace('1.0', 'x', 1)] * 40)}"), DATA, ["word.csv.gz"]),
    ("missing image folder", folder_source("none", {}), DATA, ["none"]),
    ("image folder without classes", folder_source("flat", {"one.png": png()}), DATA, ["flat"]),
    ("empty class", folder_source("hollow", {**GOOD, "c/readme.txt": b"x"}), DATA, ["hollow/c"]),
    ("more classes than the head", folder_source("three", {**GOOD, "c/0.png": png(), "c/1.png": png()}), DATA, ["num_classes"]),
    ("broken jpeg", folder_source("jpeg", {**GOOD, "b/9.jpg": b"\xff\xd8\xff\xe0" + b"x" * 100}), DATA, ["b/9.jpg"]),
    ("broken png", folder_source("png", {**GOOD, "b/9.png": png()[:60]}), DATA, ["b/9.png"]),
    ("png that claims to be huge", folder_source("huge", {**GOOD, "b/9.png": png().replace(b"\0\0\0\x08\0\0\0\x08", b"\x7f\xff\xff\xff\x7f\xff\xff\xff", 1)}), DATA, ["b/9.png"]),
    ("text called png", folder_source("text", {**GOOD, "b/9.png": b"not a picture"}), DATA, ["b/9.png"]),
    ("empty image file", folder_source("nothing", {**GOOD, "b/9.png": b""}), DATA, ["b/9.png"]),
    # --- weights and checkpoints
    ("missing weights", eval_with(lambda p: p.path("none.safetensors")), CHECKPOINT, ["none.safetensors"]),
    ("no run to evaluate", lambda p: ["eval", p.recipe, "run.name=never-trained"], CHECKPOINT, ["never-trained"]),
    ("truncated safetensors", eval_with(lambda p: p.file("cut.safetensors", read_bytes(p.weights)[:-8])), CHECKPOINT, ["cut.safetensors"]),
    ("safetensors of seven bytes", eval_with(lambda p: p.file("seven.safetensors", b"1234567")), CHECKPOINT, ["seven.safetensors"]),
    ("header longer than the file", eval_with(lambda p: p.file("long.safetensors", b"\xff" * 7 + b"\x7f" + b"{}")), CHECKPOINT, ["long.safetensors"]),
    ("header that is no json", eval_with(lambda p: p.file("json.safetensors", b"\x08" + b"\0" * 7 + b"nonsense")), CHECKPOINT, ["json.safetensors"]),
    ("weights of another shape", eval_with(lambda p: p.weights, "model.embed_dim=64"), CHECKPOINT, ["[", "weights.safetensors"]),
    ("weights of a deeper model", eval_with(lambda p: p.weights, "model.depth=4"), CHECKPOINT, ["blocks.3"]),
    ("resume from nowhere", lambda p: ["train", p.recipe, "run.name=bad", "--resume", p.path("none")], CHECKPOINT, ["none"]),
    ("resume another model", lambda p: ["train", p.recipe, "run.name=bad", "model.embed_dim=64", "--resume", p.checkpoint], CHECKPOINT, ["step-00000020"]),
    ("unknown split", lambda p: ["eval", p.recipe, "run.name=earlier", "--split", "nowhere"], USAGE, ["nowhere", "digits"]),
    # --- models that do not fit together
    ("segmentation without labels", written(UNETR, "reader: images, root: {folder}"), USAGE, ["labels"]),
    ("segmentation of a classifier's folder", written(UNETR, "reader: image_folder, root: {folder}"), USAGE, ["labels"]),
    ("segmentation of one class", written(UNETR.replace("num_classes: 2", "num_classes: 1")), USAGE, ["num_classes", "1"]),
    ("pixel loss of a segmentation", written(UNETR + ", loss: masked_mse"), USAGE, ["model.loss", "mse"]),
    ("skips of three blocks", written(UNETR.replace("depth: 4", "depth: 3")), USAGE, ["model.depth", "3", "skips"]),
    ("linear decoder with skips", written(UNETR + ", decoder: linear"), USAGE, ["decoder", "skips"]),
    ("class token of a segmentation", written(UNETR + ", class_token: true"), USAGE, ["class_token"]),
    ("heads of a segmentation", written(UNETR.replace("num_heads: 2", "num_heads: 5")), USAGE, ["num_heads", "32", "5"]),
    ("decoder heads of an autoencoder", written(MAE.replace("decoder_num_heads: 2", "decoder_num_heads: 3")), USAGE, ["decoder_num_heads", "32", "3"]),
    ("sincos in 3-D", written("kind: vit, image_size: [8, 8, 8], patch_size: 4, in_channels: 1, num_classes: 2, embed_dim: 32, depth: 1, num_heads: 2, pos_embed: sincos"), USAGE, ["embed_dim", "6", "32"]),
    ("preset of another kind", written("kind: vit, preset: mae3d_2b"), USAGE, ["mae3d_2b"]),
    ("unknown preset", written("kind: mae, preset: mae3d_3b"), USAGE, ["mae3d_3b", "mae3d_2b"]),
    ("layer decay above one", train("train.optimizer.layer_decay=1.5"), USAGE, ["layer_decay", "1.5"]),
    # --- drawing samples
    ("samples of a classifier", written("kind: vit, image_size: [8, 8], patch_size: 2, in_channels: 1, num_classes: 10, embed_dim: 32, depth: 1, num_heads: 2", verb=("sample",), options=OUT), USAGE, ["diffusion"]),
    ("more steps than levels", written(DIFFUSION, verb=("sample",), options=("--steps", "21", *OUT)), USAGE, ["21", "20"]),
    ("unknown class to draw", written(DIFFUSION, verb=("sample",), options=("--class", "3", *OUT)), USAGE, ["3"]),
    ("negative class to draw", written(DIFFUSION, verb=("sample",), options=("--class", "-1", *OUT)), USAGE, ["-1"]),
    ("class without classes", written(DIFFUSION.replace("num_classes: 3", "num_classes: 0"), verb=("sample",), options=("--class", "0", *OUT)), USAGE, ["class"]),
    ("no samples", written(DIFFUSION, verb=("sample",), options=("--count", "0", *OUT)), USAGE, ["0"]),
    ("samples of an untrained run", written(DIFFUSION, verb=("sample",), options=OUT), CHECKPOINT, ["bad"]),
    # --- probes
    ("unknown probe", lambda p: ["eval", p.recipe, "run.name=earlier", "--probe", "svm"], USAGE, ["svm", "knn"]),
    ("probe of a diffusion model", written(DIFFUSION, verb=("eval", "--probe", "knn"), end="eval: {{sources: [{{reader: random}}]}}\n"), USAGE, ["diffusion"]),
    ("probe without held-out data", lambda p: ["eval", p.recipe, "run.name=earlier", "eval.sources=[]", "--probe", "knn"], USAGE, ["eval.sources"]),
    ("probe of an unknown split", lambda p: ["eval", p.recipe, "run.name=earlier", "--probe", "knn", "--split", "nowhere"], USAGE, ["nowhere"]),
    # --- output
    ("output below a file", train(lambda p: f"run.output={p.file('plain', 'x')}/runs"), OTHER, ["plain"]),
    ("output in /proc", train("run.output=/proc/none"), OTHER, ["/proc/none"]),
    ("report of nothing", lambda p: ["report", p.path("none")], DATA, ["none"]),
    ("report to nowhere", lambda p: ["report", p.earlier, "--output", p.path("none/x.html")], OTHER, ["none"]),
    ("forward on nothing", lambda p: ["forward", p.recipe, "--input", p.path("none.in"), "--output", p.path("o")], DATA, ["none.in"]),
    ("forward on a cut file", lambda p: ["forward", p.recipe, "--input", p.file("cut.in", read_bytes(p.weights)[:-8]), "--output", p.path("o")], DATA, ["cut.in"]),
    ("forward on a file without an image", lambda p: ["forward", p.recipe, "--input", p.weights, "--output", p.path("o")], DATA, ["image"]),
    ("predict on nothing", lambda p: ["predict", p.recipe, "run.name=earlier", "--input", p.path("none"), "--output", p.path("o.csv")], DATA, ["none"]),
    ("predict on a broken image", lambda p: ["predict", p.recipe, "run.name=earlier", "--input", p.file("b.png", b"x"), "--output", p.path("o.csv")], DATA, ["b.png"]),
    ("predict on an empty folder", lambda p: ["predict", p.recipe, "run.name=earlier", "--input", p.images("void", {"a.txt": b"x"}), "--output", p.path("o.csv")], DATA, ["void"]),
    ("predict with a diffusion model", written(DIFFUSION, verb=("predict",), options=("--input", lambda p: p.file("g.png", png()), *OUT)), USAGE, ["diffusion", "sample"]),
    ("predict with an untrained segmentation", written(UNETR, verb=("predict",), options=("--input", lambda p: p.file("g.png", png()), *OUT)), CHECKPOINT, ["bad"]),
    ("predict without an input", lambda p: ["predict", p.recipe, "run.name=earlier", "--output", p.path("o.csv")], USAGE, ["--input"]),
    ("predict to nowhere", lambda p: ["predict", p.recipe, "run.name=earlier", "--input", p.file("g.png", png()), "--output", p.path("none/o.csv")], OTHER, ["none"]),
]


def fingerprint(folder):
    """Names and contents of everything below a folder."""
    found = {}
    for path, _, files in os.walk(folder):
        for name in files:
            full = os.path.join(path, name)
            found[os.path.relpath(full, folder)] = hashlib.sha256(read_bytes(full)).hexdigest()
    return found


def faults(done, code, words):
    """What is wrong with the way the program ended; empty if nothing."""
    errors = [line for line in done.stderr.splitlines() if line.strip()]
    found = []
    if done.returncode != code:
        found.append(f"exit code {done.returncode} instead of {code}")
    if len(errors) != 1:
        found.append(f"{len(errors)} lines on stderr instead of one")
    elif not LINE.match(errors[0]):
        found.append("the line does not start with [where]")
    found += [f"the line does not hold '{word}'" for word in words if word not in done.stderr]
    if "terminate called" in done.stderr or "Exception raised from" in done.stderr:
        found.append("a stack instead of a sentence")
    return found


def left_behind(place, code):
    """What a refused command wrote although nothing was to come of it."""
    found = [name for name in ("o", "o.csv", "o.png") if os.path.exists(place.path(name))]
    bad = os.path.join(place.folder, "runs", "bad")
    return [f"{name} was written" for name in found + (["runs/bad"] if code == USAGE and os.path.exists(bad) else [])]


def full_disk(place):
    """A run whose files may not grow past 64 KiB, as on a full disk: the earlier run and its checkpoints stay."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
    before = fingerprint(place.checkpoint)
    done = run(["train", place.recipe, "run.name=earlier", "train.steps=30"], preexec_fn=limit,
               restore_signals=False)  # SIGXFSZ stays ignored, so that writes fail with an error
    found = faults(done, CHECKPOINT, ["free space"])
    if fingerprint(place.checkpoint) != before:
        found.append("the checkpoint before changed")
    if not found:
        again = run(["train", place.recipe, "run.name=earlier", "train.steps=30"])
        if again.returncode != 0:
            found.append(f"the run could not go on afterwards: {again.stderr}")
    return done, found


def main():
    chosen = sys.argv[1:]
    failures = 0
    with tempfile.TemporaryDirectory(prefix="vitrail-") as folder:
        place = Place(folder)
        before = fingerprint(place.earlier)
        for name, arguments, code, words in CASES:
            if chosen and name not in chosen:
                continue
            done = run(arguments(place), timeout=60)
            found = faults(done, code, words) + left_behind(place, code)
            if fingerprint(place.earlier) != before:
                found.append("the earlier run changed")
                before = fingerprint(place.earlier)
            failures += bool(found)
            print(f"{'FAILED' if found else 'ok':7}{name}: {done.stderr.strip()}" + "".join(f"\n       {f}" for f in found), flush=True)
            shutil.rmtree(os.path.join(folder, "runs", "bad"), ignore_errors=True)
        if not chosen or "full disk" in chosen:
            done, found = full_disk(place)
            failures += bool(found)
            print(f"{'FAILED' if found else 'ok':7}full disk: {done.stderr.strip()}" + "".join(f"\n       {f}" for f in found))
    print(f"{len(CASES) + 1} bad inputs, {failures} failures")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()

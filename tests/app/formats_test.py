"""Every format as a user meets it: files written by the format's own Python library, a recipe, the program.

usage: formats_test.py CASE   (a function below)
"""

import csv
import gzip
import io
import json
import os
import shutil
import struct
import sys
import tarfile
import tempfile

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from program import must, run

SIDE, COUNT, CLASSES = 16, 24, 3
rng = np.random.default_rng(5)
IMAGES = rng.integers(0, 256, (COUNT, SIDE, SIDE), np.uint8)
LABELS = np.arange(COUNT) % CLASSES

MODEL = {"vit": "{kind: vit, image_size: [16, 16], patch_size: 8, in_channels: 1, num_classes: 3, embed_dim: 16, depth: 1, num_heads: 2}",
         "values": "{kind: vit, image_size: [16, 16], patch_size: 8, in_channels: 1, num_classes: 2, embed_dim: 16, depth: 1, num_heads: 2, "
                   "loss: mse}",
         "mae3": "{kind: mae, image_size: [16, 16, 16], patch_size: 8, in_channels: 1, embed_dim: 24, depth: 1, num_heads: 2, mask_ratio: 0.5, "
                 "decoder_embed_dim: 24, decoder_depth: 1, decoder_num_heads: 2}",
         "unetr3": "{kind: unetr, image_size: [16, 16, 16], patch_size: 8, in_channels: 1, num_classes: 2, embed_dim: 24, depth: 4, num_heads: 2, "
                   "feature_size: 2}",
         "sap": "{kind: sap, image_size: [32, 32], patch_size: 4, in_channels: 1, num_classes: 2, embed_dim: 24, depth: 1, num_heads: 2, "
                "decoder_embed_dim: 16, adaptive: {fixed_length: 16}}"}


def recipe(folder, model, sources, batch=4, more=""):
    """A recipe of two steps over `sources`, JSON-like YAML."""
    path = os.path.join(folder, "recipe.yaml")
    with open(path, "w") as out:
        out.write(f"run: {{name: run, output: {folder}/runs, device: cpu, threads: 1}}\nmodel: {MODEL.get(model, model)}\n"
                  f"data: {{batch_size: {batch}, workers: 2, sources: {json.dumps(sources)}{more}}}\n"
                  "train: {steps: 2}\n" + (f"eval: {{sources: {json.dumps(sources[:1])}}}\n"))
    return path


def trains(path, ranks=1):
    done = must(["train", path, "--resume", "never"], ranks=ranks)
    assert "step=2" in done.stdout, done.stdout
    return done.stdout


def dumped(folder, path, count, *more):
    output = os.path.join(folder, "dump.safetensors")
    must(["data", "dump", path, "--count", count, "--output", output, "--raw", *more])
    return load_file(output)


def check_images(folder, path, images=IMAGES, labels=LABELS):
    """The dumped samples are the written ones: values / 255 exactly as floats, labels beside them."""
    batch = dumped(folder, path, len(images))
    assert sorted(batch["index"]) == list(range(len(images)))
    for image, label, index in zip(batch["image"], batch["label"], batch["index"]):
        expected = images[index].astype(np.float32) / np.float32(255)
        assert np.array_equal(image[0], expected), f"sample {index}: worst {np.abs(image[0] - expected).max()}"
        assert labels is None or label == labels[index], index


def png(array):
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG")
    return out.getvalue()


def case_image_list(folder):
    with open(f"{folder}/list.csv", "w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["path", "label"])
        for i, image in enumerate(IMAGES):
            Image.fromarray(image).save(f"{folder}/image {i}.png")
            rows.writerow([f"image {i}.png", LABELS[i]])
    path = recipe(folder, "vit", [{"reader": "image_list", "root": f"{folder}/list.csv"}])
    check_images(folder, path)
    trains(path)


def case_image_list_of_values(folder):
    values = rng.normal(size=(COUNT, 2)).astype(np.float32)
    with open(f"{folder}/list.json", "w") as out:
        json.dump([{"path": f"{i}.png", "value0": float(v[0]), "value1": float(v[1])} for i, v in enumerate(values)], out)
    for i, image in enumerate(IMAGES):
        Image.fromarray(image).save(f"{folder}/{i}.png")
    path = recipe(folder, "values", [{"reader": "image_list", "root": f"{folder}/list.json"}])
    batch = dumped(folder, path, COUNT)
    assert np.array_equal(batch["label"], values[batch["index"]])
    assert "rmse" in trains(path)
    must(["predict", path, "--input", f"{folder}/0.png", "--output", f"{folder}/values.csv"])
    assert open(f"{folder}/values.csv").readline().strip() == "file,value0,value1"


def case_cifar(folder):
    colour = rng.integers(0, 256, (COUNT, 3, 32, 32), np.uint8)
    records = b"".join(bytes([LABELS[i]]) + colour[i].tobytes() for i in range(COUNT))
    with open(f"{folder}/data_batch_1.bin", "wb") as out:
        out.write(records)
    model = MODEL["vit"].replace("[16, 16]", "[32, 32]").replace("in_channels: 1", "in_channels: 3")
    path = recipe(folder, model, [{"reader": "cifar", "root": folder}])
    batch = dumped(folder, path, COUNT)
    assert np.array_equal(batch["image"], colour[batch["index"]].astype(np.float32) / np.float32(255))
    assert np.array_equal(batch["label"], LABELS[batch["index"]])
    trains(path)


def case_idx(folder):
    with gzip.open(f"{folder}/train-images-idx3-ubyte.gz", "wb") as out:
        out.write(struct.pack(">HBBIII", 0, 8, 3, COUNT, SIDE, SIDE) + IMAGES.tobytes())
    with gzip.open(f"{folder}/train-labels-idx1-ubyte.gz", "wb") as out:
        out.write(struct.pack(">HBBI", 0, 8, 1, COUNT) + LABELS.astype(np.uint8).tobytes())
    path = recipe(folder, "vit", [{"reader": "idx", "root": folder}])
    check_images(folder, path)
    trains(path)


def case_tar(folder):
    with tarfile.open(f"{folder}/shard-0000.tar", "w") as archive:
        for i, image in enumerate(IMAGES):
            for ending, content in (("png", png(image)), ("cls", str(LABELS[i]).encode())):
                member = tarfile.TarInfo(f"{i:04}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    path = recipe(folder, "vit", [{"reader": "tar", "root": folder}])
    check_images(folder, path)
    trains(path)


def case_npy(folder):
    np.save(f"{folder}/images.npy", IMAGES[:, None])
    os.mkdir(f"{folder}/labels")
    np.save(f"{folder}/labels/classes.npy", LABELS)
    path = recipe(folder, "vit", [{"reader": "npy", "root": f"{folder}/images.npy", "labels": f"{folder}/labels/classes.npy", "axes": "ncyx"}])
    check_images(folder, path)
    trains(path)


def case_boxes(folder):
    """COCO: boxes follow a resize from 16 to 32 pixels."""
    os.mkdir(f"{folder}/images")
    listed = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "cell"}, {"id": 9, "name": "core"}]}
    for i, image in enumerate(IMAGES):
        Image.fromarray(image).save(f"{folder}/images/{i:03}.png")
        listed["images"].append({"id": i, "file_name": f"{i:03}.png", "width": SIDE, "height": SIDE})
        listed["annotations"].append({"id": i, "image_id": i, "category_id": 7 + 2 * (i % 2), "bbox": [2, 4, 6, 8], "iscrowd": 0})
    with open(f"{folder}/boxes.json", "w") as out:
        json.dump(listed, out)
    model = MODEL["sap"].replace("kind: sap", "kind: mae").split(", num_classes")[0] + ", embed_dim: 24, depth: 1, num_heads: 2, " \
        "decoder_embed_dim: 24, decoder_depth: 1, decoder_num_heads: 2}"
    path = recipe(folder, model, [{"reader": "coco", "root": f"{folder}/images", "labels": f"{folder}/boxes.json"}])
    batch = dumped(folder, path, COUNT)
    assert batch["boxes"].shape == (COUNT, 1, 4), batch["boxes"].shape
    assert np.allclose(batch["boxes"][:, 0], [4, 8, 16, 24], atol=1e-4), batch["boxes"][0]
    assert np.array_equal(batch["box_classes"][:, 0], batch["index"] % 2)
    trains(path)
    path = recipe(folder, model, [{"reader": "coco", "root": f"{folder}/images", "labels": f"{folder}/boxes.json", "augment": ["mixup:0.2"]}])
    refused = run(["train", path, "--resume", "never"])
    assert refused.returncode == 2 and "boxes" in refused.stderr, refused.stderr


def volume():
    return rng.integers(0, 256, (40, 36, 44), np.uint8)


def check_crops(folder, path, whole):
    batch = dumped(folder, path, 8)
    for image, origin in zip(batch["image"], batch["origin"]):
        z, y, x = origin
        assert np.array_equal(image[0], whole[z:z + 16, y:y + 16, x:x + 16].astype(np.float32) / np.float32(255)), origin


def case_volumes(folder):
    """npy, raw, TIFF, zarr v2, v3 and sharded, N5: the same crops of the same volume, and training on each."""
    import tensorstore
    import tifffile
    import zarr
    whole = volume()
    np.save(f"{folder}/v.npy", whole)
    whole.tofile(f"{folder}/v.raw")
    tifffile.imwrite(f"{folder}/v.tif", whole, compression="zlib", photometric="minisblack")
    for version, name, shards in ((2, "v2.zarr", None), (3, "v3.zarr", None), (3, "sharded.zarr", (32, 32, 32))):
        array = zarr.create_array(f"{folder}/{name}", shape=whole.shape, dtype=whole.dtype, chunks=(16, 16, 16), shards=shards,
                                  zarr_format=version)
        array[:] = whole
    n5 = tensorstore.open({"driver": "n5", "kvstore": {"driver": "file", "path": f"{folder}/v.n5"}, "metadata": {
        "dataType": "uint8", "dimensions": [44, 36, 40], "blockSize": [16, 16, 16], "compression": {"type": "gzip"}}}, create=True).result()
    n5[...] = whole.transpose(2, 1, 0)
    sources = {"v.npy": {"reader": "npy"}, "v.raw": {"reader": "raw", "dtype": "uint8", "shape": [40, 36, 44]}, "v.tif": {"reader": "tiff"},
               "v2.zarr": {"reader": "zarr"}, "v3.zarr": {"reader": "zarr"}, "sharded.zarr": {"reader": "zarr"}, "v.n5": {"reader": "n5"}}
    first = None
    for name, source in sources.items():
        path = recipe(folder, "mae3", [{**source, "root": f"{folder}/{name}", "random_crop": {"per_epoch": 8}}])
        check_crops(folder, path, whole)
        batch = dumped(folder, path, 8)
        assert first is None or np.array_equal(batch["image"], first), f"{name} gives other crops"
        first = batch["image"]
        trains(path)


def case_masks_of_another_format(folder):
    """A zarr volume, its mask as npy; predict writes a zarr array that zarr-python reads."""
    import zarr
    whole = volume()
    zarr.create_array(f"{folder}/v.zarr", shape=whole.shape, dtype=whole.dtype, chunks=(16, 16, 16))[:] = whole
    np.save(f"{folder}/mask.npy", (whole > 127).astype(np.uint8))
    source = {"reader": "zarr", "root": f"{folder}/v.zarr", "labels": f"{folder}/mask.npy", "label_reader": "npy", "tile": [16, 16, 16]}
    path = recipe(folder, "unetr3", [source], batch=2)
    batch = dumped(folder, path, 6)
    assert np.array_equal(batch["label"], (batch["image"][:, 0] > 0.5).astype(np.int64))
    trains(path)
    must(["predict", path, "--input", f"{folder}/v.zarr", "--output", f"{folder}/out"])
    found = zarr.open_array(f"{folder}/out/00000-v.zarr", mode="r")
    assert found.shape == whole.shape and found.dtype == np.uint8 and set(np.unique(found[:])) <= {0, 1}


def case_values_of_pixels(folder):
    """Real values of every voxel from an npy file; the mean squared error falls and is reported."""
    whole = volume()
    np.save(f"{folder}/v.npy", whole)
    np.save(f"{folder}/target.npy", (whole.astype(np.float32) / 100 - 1)[None])
    model = MODEL["unetr3"].replace("num_classes: 2", "num_classes: 1, loss: mse")
    source = {"reader": "npy", "root": f"{folder}/v.npy", "labels": f"{folder}/target.npy", "tile": [16, 16, 16]}
    path = recipe(folder, model, [source], batch=2)
    batch = dumped(folder, path, 6)
    assert np.allclose(batch["label"][:, 0], batch["image"][:, 0] * 2.55 - 1, atol=1e-5)
    assert "r2" in trains(path)
    must(["predict", path, "--input", f"{folder}/v.npy", "--output", f"{folder}/out"])
    import zarr
    assert zarr.open_array(f"{folder}/out/00000-v.zarr", mode="r").shape == (1, 40, 36, 44)


def case_adaptive(folder):
    """SAP on leaves of the loader and of the step: the same training, evaluation and predicted masks, also of files larger than the model."""
    for part in ("images", "masks", "large"):
        os.mkdir(f"{folder}/{part}")
    for i in range(8):
        image = np.zeros((32, 32), np.uint8)
        image[8:20, 4 + i:16 + i] = 200
        Image.fromarray(image).save(f"{folder}/images/{i}.png")
        Image.fromarray((image > 0).astype(np.uint8)).save(f"{folder}/masks/{i}.png")
    Image.fromarray(np.pad(image, ((3, 9), (5, 20)))).save(f"{folder}/large/0.png")
    source = {"reader": "images", "root": f"{folder}/images", "labels": f"{folder}/masks", "tile": [32, 32]}
    path = recipe(folder, "sap", [source])
    losses, metrics, masks = {}, {}, {}
    for where in ("loader", "step"):
        chosen = [path, f"data.patching={where}", f"run.name={where}"]
        must(["train", *chosen, "--resume", "never", "logging.every_steps=1"])
        steps = [json.loads(line) for line in open(f"{folder}/runs/{where}/metrics.jsonl")]
        losses[where] = [step["loss"] for step in steps if "split" not in step]
        metrics[where] = json.loads(must(["eval", *chosen, "--json"]).stdout)["metrics"]
        for part, shape in (("images", (32, 32)), ("large", (44, 57))):
            must(["predict", *chosen, "--input", f"{folder}/{part}", "--output", f"{folder}/{where}-{part}"])
            mask = np.array(Image.open(f"{folder}/{where}-{part}/00000-0.png"))
            assert mask.shape == shape and set(np.unique(mask)) <= {0, 1}, (mask.shape, np.unique(mask))
            masks[where, part] = mask
    print("losses", losses, "metrics", metrics)
    assert len(losses["loader"]) == 2 and np.allclose(losses["loader"], losses["step"], rtol=1e-6, atol=0), losses
    assert "dice" in metrics["loader"], metrics
    assert np.allclose(list(metrics["loader"].values()), list(metrics["step"].values()), rtol=1e-6, atol=0), metrics
    for part in ("images", "large"):
        assert np.array_equal(masks["loader", part], masks["step", part]), part


def case_mixing(folder):
    """Sources of different variables: by batch on one rank, by rank on three."""
    for name, images in (("a", IMAGES), ("b", IMAGES[:12])):
        os.mkdir(f"{folder}/{name}")
        for i, image in enumerate(images):
            Image.fromarray(image).save(f"{folder}/{name}/{i:03}.png")
    model = MODEL["vit"].replace("kind: vit", "kind: mae").replace("num_classes: 3, ", "").replace("in_channels: 1", "variables: [p, q]")[:-1] + \
        ", decoder_embed_dim: 16, decoder_depth: 1, decoder_num_heads: 2}"
    sources = [{"name": name, "reader": "images", "root": f"{folder}/{name}", "variables": [v]} for name, v in (("a", "p"), ("b", "q"))]
    path = recipe(folder, model, sources, batch=6, more=", mixing: batch")
    assert "epochs_of_b=" in trains(path)
    path = recipe(folder, model, sources, batch=6, more=", mixing: rank")
    shares = json.loads(must(["balance", path, "--ranks", 3, "--json"]).stdout)
    assert [s["ranks"] for s in shares["sources"]] == [2, 1], shares
    trains(path, ranks=3)


def case_statistics(folder):
    """inspect --statistics gives NumPy's mean and std, and a recipe takes them from there."""
    for i, image in enumerate(IMAGES):
        os.makedirs(f"{folder}/images", exist_ok=True)
        Image.fromarray(image).save(f"{folder}/images/{i:03}.png")
    model = MODEL["vit"].replace("kind: vit", "kind: mae").replace("num_classes: 3, ", "")[:-1] + \
        ", decoder_embed_dim: 16, decoder_depth: 1, decoder_num_heads: 2}"
    source = {"name": "s", "reader": "images", "root": f"{folder}/images"}
    path = recipe(folder, model, [source])
    must(["data", "inspect", path, "--statistics", f"{folder}/statistics.json", "--contact-sheet", f"{folder}/sheet.png"])
    assert Image.open(f"{folder}/sheet.png").size[0] > 0
    path = recipe(folder, model, [{**source, "statistics": f"{folder}/statistics.json"}])
    output = os.path.join(folder, "dump.safetensors")
    must(["data", "dump", path, "--count", COUNT, "--output", output])
    values = load_file(output)["image"]
    assert abs(values.mean()) < 1e-5 and abs(values.std() - 1) < 1e-5, (values.mean(), values.std())
    trains(path)


if __name__ == "__main__":
    place = tempfile.mkdtemp(prefix="vitrail-formats-")
    try:
        globals()["case_" + sys.argv[1]](place)
    finally:
        shutil.rmtree(place, ignore_errors=True)

"""Small valid files of every format, written by the libraries that define them: what the broken files of
tests/fuzz/ are made from.   .venv/bin/python3 tests/corpus/make_seeds.py   (rewrites tests/corpus/)"""

import gzip
import io
import json
import os
import pathlib
import shutil
import struct
import tarfile
import warnings

import nibabel
import numcodecs
import numpy as np
import safetensors.numpy
import tifffile
import zarr
from PIL import Image

warnings.simplefilter("ignore")
root = pathlib.Path(__file__).parent
random = np.random.default_rng(5)
noise = random.integers(0, 256, (12, 10, 3), dtype=np.uint8)
smooth = (np.add.outer(np.arange(12), np.arange(10))[..., None] * np.array([3, 5, 7])).astype(np.uint8)
volume = random.integers(0, 4000, (6, 7, 8)).astype(np.uint16)


def folder(name):
    path = root / name
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return path


def jpeg():
    to = folder("jpeg")
    Image.fromarray(noise[..., 0]).save(to / "grey.jpg", quality=60)
    Image.fromarray(smooth).save(to / "colour.jpg", quality=60)
    Image.fromarray(smooth).save(to / "progressive.jpg", quality=60, progressive=True)
    Image.fromarray(smooth).save(to / "restart.jpg", quality=60, restart_marker_blocks=1)


def png():
    to = folder("png")
    Image.fromarray(noise[..., 0]).save(to / "grey.png")
    Image.fromarray(smooth).save(to / "colour.png")
    Image.fromarray(smooth).convert("P").save(to / "palette.png")
    Image.fromarray(volume[0]).save(to / "deep.png")
    Image.fromarray(noise[..., 0] > 99).save(to / "bits.png")


def nifti():
    to = folder("nifti")
    values = np.asfortranarray(volume.T.astype(np.int16))
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 2, 3, 1])), to / "plain.nii")
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), to / "packed.nii.gz")
    nibabel.save(nibabel.Nifti2Image(values.astype(">i4"), np.eye(4)), to / "second.nii")
    nibabel.save(nibabel.Nifti1Pair(values, np.eye(4)), to / "pair.hdr")
    with gzip.open(to / "packed.nii.gz") as file:
        unpacked = file.read()
    (to / "packed.nii.gz").write_bytes(gzip.compress(unpacked, mtime=0))


def numpy_files():
    to = folder("npy")
    np.save(to / "bytes.npy", noise)
    np.save(to / "floats.npy", volume.astype(">f4"))
    np.save(to / "fortran.npy", np.asfortranarray(volume))
    to = folder("npz")
    np.savez(to / "stored.npz", image=volume)
    np.savez_compressed(to / "packed.npz", image=volume)
    (folder("raw") / "plain.raw").write_bytes(volume.tobytes())


def tiff():
    to = folder("tiff")
    tifffile.imwrite(to / "plain.tif", volume)
    tifffile.imwrite(to / "deflate.tif", smooth, compression="zlib")
    tifffile.imwrite(to / "tiled.tif", np.tile(volume, (1, 3, 3)), tile=(16, 16))
    Image.fromarray(smooth).save(to / "lzw.tif", compression="tiff_lzw")
    tifffile.imwrite(to / "big.tif", volume, bigtiff=True, byteorder=">", imagej=False)
    Image.fromarray(smooth).save(to / "packbits.tif", compression="packbits")
    tifffile.imwrite(to / "imagej.tif", volume, imagej=True, metadata={"axes": "ZYX"})


def zarr_files():
    to = folder("zarr")
    codecs = {
        "blosc": numcodecs.Blosc("zstd", 5, numcodecs.Blosc.SHUFFLE),
        "zstd": numcodecs.Zstd(),
        "lz4": numcodecs.LZ4(),
        "gzip": numcodecs.GZip(),
        "zlib": numcodecs.Zlib(),
        "bz2": numcodecs.BZ2(),
    }
    for name, codec in codecs.items():
        array = zarr.create_array(to / f"two_{name}.zarr", shape=volume.shape, chunks=(4, 4, 8), dtype="u2",
                                  zarr_format=2, compressors=codec, fill_value=7)
        array[:] = volume
    plain = zarr.codecs.BytesCodec(endian="big")
    three = {
        "zstd": dict(compressors=zarr.codecs.ZstdCodec()),
        "blosc": dict(compressors=zarr.codecs.BloscCodec()),
        "crc": dict(compressors=[zarr.codecs.GzipCodec(), zarr.codecs.Crc32cCodec()], serializer=plain),
        "transpose": dict(compressors=None, filters=zarr.codecs.TransposeCodec(order=(2, 0, 1))),
        "shard": dict(shards=(6, 8, 8), compressors=zarr.codecs.ZstdCodec()),
    }
    for name, options in three.items():
        chunks = (3, 4, 4) if name == "shard" else (4, 4, 8)
        array = zarr.create_array(to / f"three_{name}.zarr", shape=volume.shape, chunks=chunks, dtype="u2",
                                  zarr_format=3, dimension_names=("z", "y", "x"), **options)
        array[:] = volume
    group = zarr.open_group(to / "ome.zarr", mode="w", zarr_format=2)
    group.create_array("0", shape=volume.shape, chunks=(6, 7, 8), dtype="u2", compressors=None)[:] = volume
    group.attrs["multiscales"] = [{"version": "0.4", "axes": [{"name": n, "type": "space"} for n in "zyx"],
                                   "datasets": [{"path": "0"}]}]
    n5 = folder("n5") / "plain.n5"
    n5.mkdir()
    (n5 / "attributes.json").write_text(json.dumps(
        {"dimensions": [8, 7, 6], "blockSize": [8, 7, 6], "dataType": "uint16",
         "compression": {"type": "gzip", "level": 5}}))
    (n5 / "0" / "0").mkdir(parents=True)
    packed = gzip.compress(volume.astype(">u2").tobytes(), mtime=0)
    (n5 / "0" / "0" / "0").write_bytes(struct.pack(">HHIII", 0, 3, 8, 7, 6) + packed)


def lists():
    to = folder("image_list")
    Image.fromarray(smooth).save(to / "a.png")
    shutil.copy(to / "a.png", to / "b.png")
    (to / "train.csv").write_text('path,label\n"a.png",cat\nb.png,dog\n')
    (to / "train.json").write_text(json.dumps([{"path": "a.png", "label": 0}, {"path": "b.png", "label": 1}]))
    (to / "train.jsonl").write_text('{"path": "a.png", "value": [1.5, 2]}\n{"path": "b.png", "value": [3, 4]}\n')
    to = folder("cifar")
    records = b"".join(bytes([label]) + random.integers(0, 256, 3072, dtype=np.uint8).tobytes() for label in (1, 9))
    (to / "data_batch_1.bin").write_bytes(records)
    to = folder("idx")
    (to / "train-images-idx3-ubyte").write_bytes(struct.pack(">BBBBIII", 0, 0, 8, 3, 2, 12, 10) + noise[..., :2].tobytes())
    (to / "train-labels-idx1-ubyte").write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, 2) + bytes([3, 4]))
    to = folder("coco")
    (to / "images").mkdir()
    Image.fromarray(smooth).save(to / "images" / "a.png")
    (to / "instances.json").write_text(json.dumps({
        "images": [{"id": 7, "file_name": "a.png", "width": 10, "height": 12}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 5, 6], "iscrowd": 0, "area": 30,
                         "segmentation": [[1, 2, 6, 2, 6, 8]]}],
        "categories": [{"id": 3, "name": "cell"}]}))
    to = folder("voc")
    (to / "JPEGImages").mkdir()
    (to / "Annotations").mkdir()
    Image.fromarray(smooth).save(to / "JPEGImages" / "a.jpg", quality=60)
    (to / "Annotations" / "a.xml").write_text(
        "<annotation><filename>a.jpg</filename><size><width>10</width><height>12</height><depth>3</depth></size>"
        "<object><name>cell</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax>"
        "<ymax>6</ymax></bndbox></object></annotation>")
    to = folder("tar")
    with tarfile.open(to / "shard.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("a", "b" * 120):  # the second name needs a header of its own
            for ending, data in (("png", (root / "image_list" / "a.png").read_bytes()), ("cls", b"1")):
                info = tarfile.TarInfo(f"{name}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    to = folder("safetensors")
    safetensors.numpy.save_file({"a": volume[0], "b": np.ones(3, np.float32)}, to / "two.safetensors",
                                metadata={"from": "numpy"})
    to = folder("recipe")
    (to / "small.yaml").write_text(
        "# a small recipe\nmodel: {kind: vit, preset: vit_tiny, image_size: [32, 32], patch_size: 4, num_classes: 10}\n"
        "data:\n  batch_size: 8\n  sources:\n    - &one {name: a, reader: random, root: \"64\"}\n"
        "    - {<<: *one, name: b, augment: [flip, \"crop:4\"]}\noptimizer: {lr: 1.0e-3}\ntrain: {epochs: 2}\n")
    to = folder("digits")
    rows = "".join(",".join(str(v) for v in random.integers(0, 17, 64)) + f",{label}\n" for label in (1, 2))
    (to / "digits.csv.gz").write_bytes(gzip.compress(rows.encode(), mtime=0))


for make in (jpeg, png, nifti, numpy_files, tiff, zarr_files, lists):
    make()
total = sum(f.stat().st_size for f in root.rglob("*") if f.is_file())
print(f"{sum(1 for f in root.rglob('*') if f.is_file())} files, {total} bytes")

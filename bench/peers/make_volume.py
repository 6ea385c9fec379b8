#!/usr/bin/env python3
"""Makes a sharded zarr v3 volume of 8-bit values with the look of microscopy: blobs of several sizes and a little noise."""
import argparse
import shutil

import numpy
import scipy.ndimage
import tensorstore

parser = argparse.ArgumentParser()
parser.add_argument("output")
parser.add_argument("--side", type=int, default=512)
parser.add_argument("--shard", type=int, default=256)
parser.add_argument("--chunk", type=int, default=64)
parser.add_argument("--codec", choices=["zstd", "blosc"], default="zstd")
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

draw = numpy.random.default_rng(options.seed)
n = options.side
volume = numpy.zeros((n, n, n), numpy.float32)
for width, share in [(16, 1.0), (6, 0.7), (2, 0.35)]:
    field = scipy.ndimage.gaussian_filter(draw.standard_normal((n, n, n), numpy.float32), width, mode="wrap", truncate=3)
    volume += share / field.std() * field
volume = numpy.tanh(2 * volume) * 70 + 128 + draw.normal(0, 2, volume.shape).astype(numpy.float32)
values = volume.round().clip(0, 255).astype(numpy.uint8)

codec = {"zstd": {"name": "zstd", "configuration": {"level": 3}},
         "blosc": {"name": "blosc", "configuration": {"cname": "lz4", "clevel": 5, "shuffle": "bitshuffle", "typesize": 1,
                                                      "blocksize": 0}}}[options.codec]
sharding = {"name": "sharding_indexed",
            "configuration": {"chunk_shape": [options.chunk] * 3, "codecs": [{"name": "bytes"}, codec],
                              "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]}}
shutil.rmtree(options.output, ignore_errors=True)
store = tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": options.output},
                          "metadata": {"shape": [n] * 3, "data_type": "uint8", "fill_value": 0,
                                       "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [options.shard] * 3}},
                                       "codecs": [sharding]}}, create=True).result()
store[...] = values
print(f"{options.output}: {n}^3 uint8, shards {options.shard}^3, chunks {options.chunk}^3, {options.codec}, mean {values.mean():.1f}")

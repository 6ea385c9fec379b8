"""Writes arrays by zarr-python and tensorstore, and their values beside them, for zarr_test.cpp.

usage: zarr_matrix.py FOLDER      prints a line a case: format path dtype axes shape...
The values of case N lie in N.raw, row-major and little-endian. A bfloat16 is kept in its 16 bits.
"""
import itertools
import json
import os
import struct
import sys

import numcodecs
import numpy as np
import tensorstore as ts
import zarr

import warnings

warnings.filterwarnings("ignore")

rng = np.random.default_rng(7)
NAMES = {"bool": "bool", "bfloat16": "bf16", "float16": "f16", "float32": "f32", "float64": "f64"}
count = 0


def values(shape, dtype):
    """Smooth enough to compress, with all byte values in it."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, size=shape).astype(dtype)
    if dtype.kind == "f":
        data = (rng.standard_normal(shape) * 100).astype(dtype)
        if data.size > 3:
            data.flat[:3] = [np.nan, np.inf, -0.0]
        return data
    info = np.iinfo(dtype)
    data = rng.integers(info.min, info.max, size=shape, dtype=dtype.newbyteorder("="), endpoint=True)
    keep = rng.random(shape) < 0.5  # runs of equal values
    return np.where(keep, np.asarray(7, dtype=data.dtype), data)


def say(form, path, data, name=None, axes="-"):
    """Writes the expected values and prints the case."""
    global count
    dtype = data.dtype.newbyteorder("=")
    short = name or NAMES.get(dtype.name) or dtype.name.replace("uint", "u").replace("int", "i")
    little = np.ascontiguousarray(data).astype(dtype.newbyteorder("<"))
    little.tofile(f"{count}.raw")
    print(form, path, short, axes, *data.shape, flush=True)
    count += 1


def case():
    return f"case{count}"


def sparse(a, data, box):
    """Writes only a box, so that chunks are missing; returns what a reader must see."""
    expected = a[...]
    a[box] = data[box]
    expected[box] = data[box]
    return expected


def v2():
    codecs = {
        "none": None, "zstd": numcodecs.Zstd(3), "lz4": numcodecs.LZ4(), "gzip": numcodecs.GZip(5),
        "zlib": numcodecs.Zlib(5), "bz2": numcodecs.BZ2(5),
    }
    for cname in ("lz4", "zstd", "blosclz", "lz4hc", "zlib"):
        for shuffle in (0, 1, 2):
            codecs[f"blosc_{cname}_{shuffle}"] = numcodecs.Blosc(cname, 5, shuffle)
    dtypes = "|b1 |u1 |i1 <u2 >u2 <i2 >i2 <u4 >i4 <u8 >i8 <f2 >f2 <f4 >f4 <f8 >f8".split()
    shapes = [((13,), (5,)), ((10, 7), (4, 7)), ((9, 8, 7), (4, 3, 5)), ((2, 5, 6, 4), (1, 2, 6, 3))]
    for n, (name, dtype) in enumerate(itertools.product(codecs, dtypes)):
        if name.startswith("blosc") and n % 3:  # a third of those
            continue
        shape, chunks = shapes[n % 4]
        data = values(shape, dtype)
        path = case()
        filters = [numcodecs.Shuffle(np.dtype(dtype).itemsize)] if n % 7 == 3 else None
        a = zarr.create_array(
            path, shape=shape, chunks=chunks, dtype=dtype, zarr_format=2, compressors=codecs[name],
            filters=filters, order="CF"[n % 2],
            chunk_key_encoding={"name": "v2", "separator": "./"[n // 2 % 2]})
        a[...] = data
        say("zarr", path, data)
    for dtype, fill in (("<i4", -5), ("|u1", 200), ("<f4", float("nan")), ("<f8", float("inf")),
                        (">f4", float("-inf")), (">u2", 60000), ("|b1", True), ("<u8", 2**64 - 1),
                        ("<f2", 0.1), ("<f2", 0), ("<i8", -2**63), ("<f4", None)):
        path = case()
        a = zarr.create_array(path, shape=(9, 10), chunks=(4, 4), dtype=dtype, zarr_format=2,
                              fill_value=fill, config={"write_empty_chunks": False})
        say("zarr", path, sparse(a, values((9, 10), dtype), np.s_[4:8, 2:]))
    path = case()
    a = zarr.create_array(path, shape=(), dtype="<f8", zarr_format=2)
    a[...] = 2.5
    say("zarr", path, np.array(2.5))


def v3_chunks():
    from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec
    codecs = {"none": [], "zstd": [ZstdCodec(level=3)], "zstd_sum": [ZstdCodec(level=3, checksum=True)],
              "gzip": [GzipCodec(level=5)], "crc": [Crc32cCodec()],
              "zstd_crc": [ZstdCodec(), Crc32cCodec()], "gzip_zstd": [GzipCodec(), ZstdCodec()]}
    for cname in ("lz4", "zstd", "blosclz", "lz4hc", "zlib"):
        for shuffle in ("noshuffle", "shuffle", "bitshuffle"):
            codecs[f"{cname}_{shuffle}"] = [BloscCodec(cname=cname, shuffle=shuffle)]
    return codecs


def v3():
    from zarr.codecs import BytesCodec, ShardingCodec, TransposeCodec
    dtypes = ("bool uint8 int8 uint16 int16 uint32 int32 uint64 int64 float16 float32 float64").split()
    layouts = [  # shape, shard or None, chunk
        ((13,), None, (5,)), ((9, 8, 7), None, (4, 3, 5)), ((9, 8, 7), (4, 8, 6), (2, 4, 3)),
        ((2, 9, 5, 6), (2, 6, 4, 6), (1, 3, 2, 6)), ((11, 12), (8, 8), (4, 2)),
        ((7, 6, 5), (3, 3, 3), (3, 3, 3))]
    n = 0
    for (name, codec), dtype in itertools.product(v3_chunks().items(), dtypes):
        n += 1
        if "shuffle" in name and n % 3:
            continue
        shape, shard, chunk = layouts[n % 6 if n % 5 else n // 5 % 6]
        data = values(shape, dtype)
        order = rng.permutation(len(shape)).tolist()
        endian = "big" if n % 3 == 0 else "little"
        path = case()
        axes = "tczyx"[-len(shape):] if n % 4 == 0 else None
        inside = [BytesCodec(endian=None if np.dtype(dtype).itemsize == 1 else endian)] + codec
        if n % 2 and len(shape) > 1:
            inside = [TransposeCodec(order=order)] + inside
        if shard:
            inside = [ShardingCodec(
                chunk_shape=chunk, codecs=inside, index_location="end" if n % 4 else "start")]
        serializer = next(c for c in inside if not isinstance(c, TransposeCodec)
                          and c not in codec)
        at = inside.index(serializer)
        a = zarr.create_array(
            path, shape=shape, chunks=shard or chunk, dtype=dtype, zarr_format=3,
            filters=inside[:at], serializer=serializer, compressors=inside[at + 1:] or None,
            dimension_names=list(axes) if axes else None,
            chunk_key_encoding={"name": ["default", "v2"][n % 7 == 1], "separator": "/."[n % 3 == 1]})
        a[...] = data
        say("zarr", path, data, axes=axes or "-")
    for dtype, fill in (("int32", -5), ("uint8", 200), ("float32", float("nan")),
                        ("float64", float("inf")), ("float16", -0.1), ("float16", 0), ("bool", True),
                        ("uint64", 2**64 - 1), ("float64", 1e-310)):
        for shard in (None, (8, 8)):
            path = case()
            a = zarr.create_array(path, shape=(19, 10), chunks=(4, 4), shards=shard, dtype=dtype,
                                  zarr_format=3, fill_value=fill, config={"write_empty_chunks": False})
            say("zarr", path, sparse(a, values((19, 10), dtype), np.s_[4:8, 2:]))
    data = values((9, 8, 7), "uint16")
    path = case()
    a = zarr.create_array(path, shape=data.shape, chunks=(4, 3, 5), dtype="uint16", zarr_format=3,
                          filters=[TransposeCodec(order=(1, 2, 0)), TransposeCodec(order=(1, 0, 2))])
    a[...] = data
    say("zarr", path, data)
    path = case()
    a = zarr.create_array(path, shape=(), dtype="int16", zarr_format=3)
    a[...] = -3
    say("zarr", path, np.array(-3, dtype="int16"))
    for codec in (zarr_codecs().LZ4(), zarr_codecs().Zstd(), zarr_codecs().BZ2(), zarr_codecs().Zlib(),
                  zarr_codecs().GZip(), zarr_codecs().Blosc()):
        for dtype in ("uint8", "float32"):
            data = values((9, 8, 7), dtype)
            path = case()
            a = zarr.create_array(path, shape=data.shape, chunks=(4, 3, 5), dtype=dtype, zarr_format=3,
                                  compressors=[codec])
            a[...] = data
            say("zarr", path, data)


def zarr_codecs():
    import numcodecs.zarr3
    return numcodecs.zarr3


def write_ts(spec, data):
    store = ts.open(spec, create=True).result()
    store[...] = data
    return store


def ts_file(path):
    return {"driver": "file", "path": os.path.abspath(path)}


def ts_v3():
    """Nested shards, transposes around shards, big-endian indices, bfloat16, hex fill values."""
    import ml_dtypes
    dtypes = "uint8 uint16 int32 float32 bfloat16 float64 bool".split()
    crc = [{"name": "crc32c"}]
    for n, (dtype, compression, location) in enumerate(itertools.product(
            dtypes, ("zstd", "blosc", "gzip", "none"), ("start", "end"))):
        compressor = {
            "zstd": [{"name": "zstd", "configuration": {"level": 3}}],
            "gzip": [{"name": "gzip", "configuration": {"level": 3}}],
            "blosc": [{"name": "blosc", "configuration": {
                "cname": "lz4", "clevel": 4, "shuffle": "bitshuffle", "typesize": 2, "blocksize": 0}}],
            "none": []}[compression]
        bytes_codec = {"name": "bytes", "configuration": {"endian": ["little", "big"][n % 2]}}
        index_codecs = [{"name": "bytes", "configuration": {"endian": ["little", "big"][n // 2 % 2]}}]
        inner = [{"name": "transpose", "configuration": {"order": [1, 2, 0]}}] * (n % 3 == 0)
        inner = inner + [bytes_codec] + compressor + crc * (n % 5 == 0)
        chunk = [2, 3, 4]
        if n % 3 == 1:  # shards in shards
            inner = [{"name": "sharding_indexed", "configuration": {
                "chunk_shape": [1, 3, 2], "codecs": inner, "index_codecs": index_codecs + crc}}]
        outer = [{"name": "sharding_indexed", "configuration": {
            "chunk_shape": chunk, "codecs": inner, "index_codecs": index_codecs + crc * (n % 4 < 2),
            "index_location": location}}]
        shards = [4, 6, 8]
        if n % 2:
            outer = [{"name": "transpose", "configuration": {"order": [2, 0, 1]}}] + outer
            shards = [6, 8, 4]  # in the shard's own axes: 4, 6, 8
        shape = [11, 10, 9]
        kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
        data = values(shape, "float32").astype(kind) if dtype == "bfloat16" else values(shape, dtype)
        path = case()
        spec = {"driver": "zarr3", "kvstore": ts_file(path), "metadata": {
            "shape": shape, "data_type": dtype, "codecs": outer,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shards}}}}
        if n % 8 == 7 and dtype == "float32":
            spec["metadata"]["fill_value"] = "0x7fc00001"
        write_ts(spec, data)
        say("zarr", path, data.view("uint16") if dtype == "bfloat16" else data,
            "bf16" if dtype == "bfloat16" else None)


def ts_v2():
    for n, dtype in enumerate("|u1 <u2 >f4 <f8 >i2 <i8".split()):
        for order in "CF":
            for compressor in (None, {"id": "zstd", "level": 2},
                               {"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 2, "blocksize": 0},
                               {"id": "zlib", "level": 3}, {"id": "bz2", "level": 3}):
                data = values((9, 8, 7), dtype)
                path = case()
                write_ts({"driver": "zarr", "kvstore": ts_file(path), "metadata": {
                    "shape": data.shape, "chunks": [4, 8, 3], "dtype": dtype, "order": order,
                    "compressor": compressor, "dimension_separator": "./"[n % 2]}}, data)
                say("zarr", path, data)


def xxh32(data, seed):
    p1, p2, p3, p4, p5, mask = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1, 0xFFFFFFFF
    turn = lambda v, k: ((v << k) | (v >> (32 - k))) & mask
    at, total = 0, (seed + p5) & mask
    if len(data) >= 16:
        lanes = [(seed + p1 + p2) & mask, (seed + p2) & mask, seed, (seed - p1) & mask]
        while at + 16 <= len(data):
            for k, word in enumerate(struct.unpack_from("<4I", data, at)):
                lanes[k] = turn((lanes[k] + word * p2) & mask, 13) * p1 & mask
            at += 16
        total = sum(turn(v, k) for v, k in zip(lanes, (1, 7, 12, 18))) & mask
    total = (total + len(data)) & mask
    while at + 4 <= len(data):
        total = turn((total + struct.unpack_from("<I", data, at)[0] * p3) & mask, 17) * p4 & mask
        at += 4
    for byte in data[at:]:
        total = turn((total + byte * p5) & mask, 11) * p1 & mask
    total = (total ^ (total >> 15)) * p2 & mask
    total = (total ^ (total >> 13)) * p3 & mask
    return total ^ (total >> 16)


def lz4_java(data, block_bytes=64):
    """As lz4-java's LZ4BlockOutputStream."""
    out = b""
    for at in range(0, len(data), block_bytes):
        plain = data[at:at + block_bytes]
        packed = numcodecs.lz4.compress(plain)[4:]
        method = 0x20
        if len(packed) >= len(plain):
            packed, method = plain, 0x10
        out += b"LZ4Block" + bytes([method | 6]) + struct.pack(
            "<3I", len(packed), len(plain), xxh32(plain, 0x9747b28c) & 0x0FFFFFFF) + packed
    return out + b"LZ4Block" + bytes([0x16]) + struct.pack("<3I", 0, 0, 0)


def n5_by_hand(path, data, block, compression, encode, cropped, mode=0):
    """data in row-major order; blocks at the edges are cut as most N5 writers do."""
    os.makedirs(path)
    with open(f"{path}/attributes.json", "w") as f:
        json.dump({"dimensions": list(data.shape[::-1]), "blockSize": list(block[::-1]),
                   "dataType": data.dtype.name, "compression": {"type": compression},
                   "axes": list("xyz")[:data.ndim]}, f)
    for place in np.ndindex(*[-(-s // b) for s, b in zip(data.shape, block)]):
        part = data[tuple(slice(p * b, (p + 1) * b) for p, b in zip(place, block))]
        if not cropped:
            part = np.pad(part, [(0, b - s) for s, b in zip(part.shape, block)])
        head = struct.pack(">HH", mode, data.ndim) + struct.pack(f">{data.ndim}I", *part.shape[::-1])
        if mode == 1:
            head += struct.pack(">I", part.size)
        file = os.path.join(path, *map(str, place[::-1]))
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "wb") as f:
            f.write(head + encode(part.astype(part.dtype.newbyteorder(">")).tobytes()))


def n5():
    dtypes = "uint8 int8 uint16 int16 uint32 int32 uint64 int64 float32 float64".split()
    compressions = [{"type": "raw"}, {"type": "gzip"}, {"type": "bzip2"}, {"type": "gzip", "useZlib": True},
                    {"type": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 1}, {"type": "zstd"}]
    for n, (dtype, compression) in enumerate(itertools.product(dtypes, compressions)):
        shape, block = [((9, 8, 7), (4, 3, 5)), ((13,), (5,)), ((10, 6), (4, 6))][n % 3]
        data = values(shape, dtype)
        path = case()
        # tensorstore's index order is N5's, the reverse of ours
        write_ts({"driver": "n5", "kvstore": ts_file(path), "metadata": {
            "dimensions": shape[::-1], "blockSize": block[::-1], "dataType": dtype,
            "compression": compression, "axes": ["xyz"[k] for k in range(len(shape))]}}, data.T)
        say("n5", path, data, axes="zyx"[-len(shape):])
    for dtype, cropped, mode in itertools.product(("uint8", "uint16", "float32"), (True, False), (0, 1)):
        data = values((9, 8, 7), dtype)
        path = case()
        n5_by_hand(path, data, (4, 3, 5), "lz4", lz4_java, cropped, mode)
        say("n5", path, data, axes="zyx")
        path = case()
        n5_by_hand(path, data, (4, 3, 5), "gzip", numcodecs.GZip().encode, cropped, mode)
        say("n5", path, data, axes="zyx")


os.chdir(sys.argv[1])
for part in (v2, v3, ts_v2, ts_v3, n5):
    part()

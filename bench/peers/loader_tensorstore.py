#!/usr/bin/env python3
"""Random cubes of a zarr v3 volume read by tensorstore: the peer of `vitrail bench loader` on a source with reader zarr.

Each cube is read, scaled to -1..1 and written into a float32 batch, as the loader delivers it; with --raw it stays uint8.
Two ways are tried: threads that read one cube each, and one thread that keeps as many reads in flight as it likes.
"""
import argparse
import collections
import concurrent.futures
import json
import os
import resource
import statistics
import time

import numpy
import tensorstore

parser = argparse.ArgumentParser()
parser.add_argument("path")
parser.add_argument("--side", type=int, default=64)
parser.add_argument("--batch", type=int, default=16)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--step", type=int, default=1, help="cubes begin at multiples of this, as the loader's do where the cube is a "
                    "multiple of the chunk")
parser.add_argument("--cache-gib", type=float, default=0, help="of decoded chunks")
parser.add_argument("--raw", action="store_true")
parser.add_argument("--seconds", type=float, default=5)
parser.add_argument("--runs", type=int, default=3)
parser.add_argument("--json")
options = parser.parse_args()

context = {"cache_pool": {"total_bytes_limit": int(options.cache_gib * 2**30)},
           "data_copy_concurrency": {"limit": options.threads}, "file_io_concurrency": {"limit": max(4, options.threads)}}
store = tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": options.path}, "recheck_cached_data": False,
                          "context": context}).result()
draw = numpy.random.default_rng(0)
side = options.side


def origin():
    return [int(draw.integers(0, (n - side) // options.step + 1)) * options.step for n in store.shape]


def view(at):
    return store[tuple(slice(start, start + side) for start in at)]


def deliver(cube, out):
    if options.raw:
        out[...] = cube
    else:
        numpy.multiply(cube, numpy.float32(2 / 255), out=out)
        out -= numpy.float32(1)


def blank():
    return numpy.empty((options.batch, 1, side, side, side), numpy.uint8 if options.raw else numpy.float32)


def by_threads():
    with concurrent.futures.ThreadPoolExecutor(options.threads) as pool:
        def one(at, out):
            deliver(view(at).read().result(), out)
        ahead = collections.deque()
        while True:
            while len(ahead) < 4:
                batch = blank()
                ahead.append((batch, [pool.submit(one, origin(), batch[i, 0]) for i in range(options.batch)]))
            batch, waits = ahead.popleft()
            for wait in waits:
                wait.result()
            yield batch


def by_futures():
    ahead = collections.deque()
    while True:
        while len(ahead) < 2 * options.batch:
            ahead.append(view(origin()).read())
        batch = blank()
        for i in range(options.batch):
            deliver(ahead.popleft().result(), batch[i, 0])
        yield batch


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


cpu_us = []


def measure(batches):
    for _ in range(8):
        next(batches)
    rates = []
    for _ in range(options.runs):
        cubes, start, cpu = 0, time.perf_counter(), cpu_seconds()
        while time.perf_counter() - start < options.seconds:
            cubes += len(next(batches))
        rates.append(cubes / (time.perf_counter() - start))
        cpu_us.append(1e6 * (cpu_seconds() - cpu) / cubes)
    return rates


tried = {"threads": measure(by_threads()), "futures": measure(by_futures())}
best = max(tried, key=lambda way: statistics.median(tried[way]))
result = {"peer": f"tensorstore {getattr(tensorstore, '__version__', '')}", "cores": len(os.sched_getaffinity(0)),
          "batch_size": options.batch, "threads": options.threads, "cache_gib": options.cache_gib, "way": best,
          "images_per_second": statistics.median(tried[best]), "runs": tried[best], "cpu_us_per_image": statistics.median(cpu_us),
          "by_way": {way: statistics.median(rates) for way, rates in tried.items()}}
print(json.dumps(result))
if options.json:
    with open(options.json, "w") as file:
        json.dump(result, file, indent=1)

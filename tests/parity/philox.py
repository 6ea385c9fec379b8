"""vitrail's random numbers in NumPy: Philox4x32-10 (Salmon et al. 2011) as a function of seed, stream, step, layer, sample
and element. Written from the layout that vitrail/core/philox.h documents; the rounds are checked against Random123's vectors.
"""
import math

import numpy as np

# What a draw is for.
MASK, DROP_PATH, TIME, NOISE, TEST = 6, 7, 10, 11, 12
# Layers of TIME and of NOISE.
LEVEL, HIDE_CLASS, DROPOUT = 0, 1, 2
TRAINING, START, STEP = 0, 1, 2

LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


def philox4x32(counter, key):
    """Ten rounds; `counter` is four arrays of words, `key` two words; the result is four arrays."""
    c = [np.asarray(words, np.uint64) for words in counter]
    key = [int(word) for word in key]
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(b >> HALF) ^ c[1] ^ np.uint64(key[0]), b & LOW, (a >> HALF) ^ c[3] ^ np.uint64(key[1]), a & LOW]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def mix64(value):
    """SplitMix64's finaliser."""
    all_bits = (1 << 64) - 1
    value = (value + 0x9E3779B97F4A7C15) & all_bits
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & all_bits
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & all_bits
    return value ^ (value >> 31)


def words(seed, stream, step, layer, samples, count):
    """[B, count] 32-bit words, four from a counter (block, sample, layer and high part of sample, step)."""
    mixed = mix64(seed ^ mix64(stream))
    blocks = np.arange((count + 3) // 4, dtype=np.uint64)
    rows = []
    for sample in np.asarray(samples, np.int64).tolist():
        counter = [blocks, np.full_like(blocks, sample & 0xFFFFFFFF),
                   np.full_like(blocks, (layer << 16) | ((sample >> 32) & 0xFFFF)), np.full_like(blocks, step)]
        rows.append(np.stack(philox4x32(counter, (mixed & 0xFFFFFFFF, mixed >> 32)), -1).reshape(-1)[:count])
    return np.stack(rows)


def uniform(seed, stream, step, layer, samples, count):
    """[B, count], fp32 in [0, 1): the upper 24 bits."""
    return ((words(seed, stream, step, layer, samples, count) >> np.uint64(8)).astype(np.float64) / 2**24).astype(np.float32)


def normal(seed, stream, step, layer, samples, shape):
    """[B, shape...], fp32: Box and Muller from neighbouring uniforms, in fp64."""
    count = math.prod(shape)
    u = uniform(seed, stream, step, layer, samples, 2 * ((count + 1) // 2)).astype(np.float64)
    radius, angle = np.sqrt(-2 * np.log(1 - u[:, 0::2])), 2 * np.pi * u[:, 1::2]
    both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1).reshape(len(u), -1)
    return both[:, :count].reshape(-1, *shape).astype(np.float32)


def check():
    """The vectors of Random123's tests/kat_vectors for philox4x32 with 10 rounds."""
    ones = 0xFFFFFFFF
    known = [([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
             ([ones] * 4, [ones] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
             ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0],
              [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1])]
    for counter, key, result in known:
        found = [int(word) for word in philox4x32(counter, key)]
        assert found == result, f"philox4x32({counter}, {key}) gave {[hex(word) for word in found]}"
    return len(known)


if __name__ == "__main__":
    print(f"Philox4x32-10: {check()} known answers of Random123")

#!/usr/bin/env python3
"""Makes a class-per-folder source of photographs of about the given sides, as JPEG.

Each file is a random window of a colour photograph of --source, resized and mirrored at random. Without such a folder the
pictures are coloured noise with the spectrum of photographs (1/f) and edges. Needs torch; writes with Pillow, torchvision or
libturbojpeg, whichever is there.
"""
import argparse
import concurrent.futures
import ctypes
import ctypes.util
import glob
import os

import torch

parser = argparse.ArgumentParser()
parser.add_argument("output")
parser.add_argument("--count", type=int, default=2000)
parser.add_argument("--classes", type=int, default=10)
parser.add_argument("--sides", type=int, nargs=2, default=[375, 500], help="height and width; each file differs by up to a tenth")
parser.add_argument("--source", default="data/photographs")
parser.add_argument("--quality", type=int, default=90)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

try:
    import io

    import numpy
    from PIL import Image
except ImportError:
    Image = None
try:
    import torchvision.io as tv
    tv.encode_jpeg(torch.zeros(3, 8, 8, dtype=torch.uint8))
except Exception:  # not installed, or built without libjpeg
    tv = None


def encode_turbo(pixels):
    """tjCompress2 of libturbojpeg by hand; 4:2:0."""
    turbo = ctypes.CDLL(ctypes.util.find_library("turbojpeg") or "libturbojpeg.so.0")
    turbo.tjInitCompress.restype = ctypes.c_void_p
    handle, out, size = ctypes.c_void_p(turbo.tjInitCompress()), ctypes.c_void_p(), ctypes.c_ulong()
    data = pixels.permute(1, 2, 0).contiguous()
    height, width = pixels.shape[1:]
    failed = turbo.tjCompress2(handle, ctypes.c_void_p(data.data_ptr()), width, 0, height, 0, ctypes.byref(out),
                               ctypes.byref(size), 2, options.quality, 0)
    if failed:
        raise RuntimeError("tjCompress2 failed")
    encoded = ctypes.string_at(out, size.value)
    turbo.tjFree(out)
    turbo.tjDestroy(handle)
    return encoded


def encode(pixels):
    if Image:
        file = io.BytesIO()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=options.quality)
        return file.getvalue()
    if tv:
        return tv.encode_jpeg(pixels, options.quality).numpy().tobytes()
    return encode_turbo(pixels)


def read(path):
    if Image:
        return torch.from_numpy(numpy.asarray(Image.open(path).convert("RGB")).copy()).permute(2, 0, 1)
    return tv.read_image(path, tv.ImageReadMode.RGB)


def is_photograph(pixels):
    """Colour, not a drawing, and large enough to be cut from."""
    grey = (pixels[0].int() - pixels[2].int()).abs().float().mean() < 2
    return not grey and min(pixels.shape[1:]) >= 300


def noise(draw):
    height, width = 800, 800
    y, x = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    strength = 1 / (y.square() + x.square()).sqrt().clamp_min(1 / width)
    shared = torch.fft.rfft2(torch.randn(1, height, width, generator=draw)) * strength
    own = torch.fft.rfft2(torch.randn(3, height, width, generator=draw)) * strength
    field = torch.fft.irfft2(shared + 0.4 * own, s=(height, width))
    field = torch.where(field > 0.5 * field.std(), field + field.std(), field)    # edges
    field = field + 0.02 * field.std() * torch.randn(3, height, width, generator=draw)
    low, high = field.quantile(torch.tensor([0.01, 0.99])) if field.numel() < 1 << 24 else (field.min(), field.max())
    return ((field - low) / (high - low) * 255).clamp(0, 255).byte()


def sources():
    pictures = []
    if Image or tv:
        pictures = [read(path) for path in sorted(glob.glob(os.path.join(options.source, "*.*g")))
                    if not path.endswith("logo.png")]
        pictures = [pixels for pixels in pictures if is_photograph(pixels)]
    if pictures:
        return pictures
    draw = torch.Generator().manual_seed(options.seed)
    return [noise(draw) for _ in range(8)]


def make(number):
    draw = torch.Generator().manual_seed(options.seed * 1_000_003 + number)
    uniform = lambda low, high: low + (high - low) * torch.rand((), generator=draw).item()
    pixels = pictures[number % len(pictures)]
    height, width = (round(side * uniform(0.9, 1.1)) for side in options.sides)
    # A window of the file's shape, of 0.6 to 1 times what fits.
    scale = uniform(0.6, 1.0) * min(pixels.shape[1] / height, pixels.shape[2] / width)
    h, w = int(height * scale), int(width * scale)
    y, x = int(uniform(0, pixels.shape[1] - h)), int(uniform(0, pixels.shape[2] - w))
    window = pixels[None, :, y:y + h, x:x + w].float()
    window = torch.nn.functional.interpolate(window, (height, width), mode="bicubic", antialias=True)[0]
    if uniform(0, 1) < 0.5:
        window = window.flip(2)
    path = os.path.join(options.output, f"class{number % options.classes:02}", f"{number:06}.jpg")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    encoded = encode(window.round().clamp(0, 255).byte())
    with open(path, "wb") as file:
        file.write(encoded)
    return len(encoded)


torch.set_num_threads(1)
pictures = sources()
with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
    sizes = list(threads.map(make, range(options.count)))
print(f"{options.output}: {len(sizes)} files of about {options.sides[1]} x {options.sides[0]}, {sum(sizes) / len(sizes) / 1000:.1f} kB "
      f"each, cut from {len(pictures)} pictures")

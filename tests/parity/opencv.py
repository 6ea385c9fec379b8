"""Edge maps against OpenCV's GaussianBlur and Canny, pixel for pixel: photographs (grey and RGB), slices of an electron
microscope where data/em-membrane is, and small images of odd sides; three blurs, random thresholds. At the end the time
OpenCV takes in one thread, for information.

usage: opencv.py EDGE_MAPS      exit 77 = skipped
"""
import glob
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

SKIPPED = 77
EDGE_MAPS = os.path.abspath(sys.argv[1])
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "data")
WHERE = tempfile.mkdtemp(prefix="vitrail-opencv-")
RANDOM = np.random.RandomState(6)


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


try:
    import cv2
except ImportError:
    skip("the package opencv-python-headless is not installed")
cv2.setNumThreads(1)


def pictures():
    """(name, uint8 [H, W] or [H, W, 3]) of every picture in both forms."""
    photographs = sorted(glob.glob(os.path.join(ROOT, "photographs", "*")))
    if not photographs:
        skip("data/photographs is empty; fetch it with script/data photographs")
    for path in photographs:
        with Image.open(path) as picture:
            rgb = np.array(picture.convert("RGB"))
        yield f"{os.path.basename(path)} rgb", rgb
        yield f"{os.path.basename(path)} grey", cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    for path in sorted(glob.glob(os.path.join(ROOT, "em-membrane", "*", "image", "*.png")))[:12]:
        with Image.open(path) as picture:
            yield f"em {os.path.basename(path)}", np.array(picture.convert("L"))


def small_images():
    for height, width in [(1, 1), (1, 40), (40, 1), (2, 2), (2, 9), (3, 3), (5, 9), (7, 64), (17, 33), (65, 31), (3, 200), (200, 3), (31, 32)]:
        for shape in [(height, width), (height, width, 3)]:
            yield f"noise {shape}", RANDOM.randint(0, 256, shape).astype(np.uint8)
            yield f"flat {shape}", np.full(shape, 131, np.uint8)
            dot = np.zeros(shape, np.uint8)
            dot[height // 2, width // 2] = 255
            yield f"dot {shape}", dot


def canny(image, blur, low, high):
    smooth = cv2.GaussianBlur(image, (blur, blur), 0) if blur > 1 else image
    return (cv2.Canny(smooth, low, high) > 0).astype(np.uint8)


def cases_of(named):
    """(name, image, blur, low, high): thresholds as training draws them, and any."""
    for name, image in named:
        for blur in (1, 3, 5):
            low = int(RANDOM.randint(50, 100))
            yield name, image, blur, low, low + 50
            yield name, image, blur, *sorted(int(t) for t in RANDOM.randint(0, 600, 2))


def compare(named):
    """Returns the number of maps and their edge pixels; the program runs once for all."""
    cases, lines = list(cases_of(named)), []
    path = os.path.join(WHERE, "case")
    for index, (_, image, *options) in enumerate(cases):
        planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
        np.ascontiguousarray(planes).tofile(f"{path}{index}")
        sizes = (len(planes), *image.shape[:2], *options)
        lines.append(f"{path}{index} {' '.join(map(str, sizes))} {path}{index}.edges\n")
    subprocess.run([EDGE_MAPS], input="".join(lines), text=True, check=True)
    edge_pixels = 0
    for index, (name, *case) in enumerate(cases):
        mine, wanted = np.fromfile(f"{path}{index}.edges", np.uint8).reshape(case[0].shape[:2]), canny(*case)
        wrong = int((mine != wanted).sum())
        assert wrong == 0, f"{name} blur, low, high = {case[1:]}: {wrong} of {wanted.size} pixels differ"
        edge_pixels += int(wanted.sum())
        os.remove(f"{path}{index}"), os.remove(f"{path}{index}.edges")
    return len(cases), edge_pixels


def best_ms(body, times=20):
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        body()
        taken.append(time.perf_counter() - start)
    return 1e3 * min(taken)


whole, whole_pixels = compare(pictures())
small, small_pixels = compare(small_images())
print(f"OpenCV {cv2.__version__}: {whole} maps of pictures ({whole_pixels} edge pixels) and {small} of small images "
      f"({small_pixels}) are equal pixel for pixel")
assert whole_pixels > 0 and small_pixels > 0
noise = RANDOM.randint(0, 256, (512, 512, 3)).astype(np.uint8)
print(f"OpenCV, one thread, noise 512 x 512 x 3, blur 3: {best_ms(lambda: canny(noise, 3, 75, 125)):.2f} ms")
os.rmdir(WHERE)

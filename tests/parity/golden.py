"""`vitrail forward --backward` against the stored results of tests/golden, written by tools/golden/forward.py from independent
implementations. Needs NumPy alone.

Weights are not stored: they are drawn by Philox from a seed, the parameter's place in the list and the element. A gradient
of many elements is stored as its norm and its product with cosines; what they differ by is measured against the norm.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

import philox

# Relative, over one tensor: fp32 rounds at 6e-8, and the sums behind one gradient element have some hundred terms added in
# another order than the peer's, which works in fp64.
ALLOWED = 1e-5
TYPES = {"F32": np.float32, "I64": np.int64}
FOLDER = pathlib.Path(__file__).resolve().parents[1] / "golden"


def read(path):
    """Tensors and metadata of a safetensors file."""
    data = pathlib.Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    metadata, tensors = header.pop("__metadata__", {}), {}
    for name, entry in header.items():
        begin, end = (start + offset for offset in entry["data_offsets"])
        tensors[name] = np.frombuffer(data[begin:end], TYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors, metadata


def write(path, tensors, metadata=None):
    words = {np.dtype(value).str: key for key, value in TYPES.items()}
    header, parts, place = {"__metadata__": metadata} if metadata else {}, [], 0
    for name, values in tensors.items():
        parts.append(values.tobytes())
        header[name] = {"dtype": words[values.dtype.str], "shape": list(values.shape),
                        "data_offsets": [place, place := place + len(parts[-1])]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def below(tensors, folder):
    return {name.removeprefix(folder + "/"): values for name, values in tensors.items() if name.startswith(folder + "/")}


def recipe(model):
    return "\n".join(["run: {name: golden, device: cpu}", "model:"] + [f"  {key}: {value}" for key, value in model.items()]
                     + ["train: {steps: 1, precision: fp32}", "data: {batch_size: 2, sources: [{reader: random}]}"]) + "\n"


def weights(shapes, seed):
    """Scales of norms are about one, all others about zero."""
    values = {}
    for place, (name, shape) in enumerate(sorted(shapes.items())):
        drawn = 0.2 * philox.normal(seed, philox.TEST, 0, 0, [place], shape)[0].astype(np.float64)
        values[name] = (drawn + (len(shape) == 1 and name.endswith(".weight"))).astype(np.float32)
    return values


def sums(gradient):
    """Norm, and product with cosines of the place."""
    flat = gradient.astype(np.float64).ravel()
    return np.array([np.linalg.norm(flat), flat @ np.cos(1.3 * np.arange(flat.size))])


def differences(golden, mine):
    """By name, relative; every gradient written by `forward` must be in the golden file."""
    known = {name.removeprefix("sum/") for name in golden}
    assert known == set(mine), f"names differ: {sorted(known ^ set(mine))[:6]}"
    for name, expected in golden.items():
        if name.startswith("sum/"):
            found, scale = sums(mine[name.removeprefix("sum/")]), expected[0]
        else:
            found, scale = mine[name].astype(np.float64), np.linalg.norm(expected)
        assert found.shape == expected.shape and scale > 0, f"{name}: {found.shape} and {expected.shape}, norm {scale}"
        yield np.linalg.norm(found - expected) / scale, name


def check(program, path):
    tensors, metadata = read(path)
    golden = below(tensors, "result")
    with tempfile.TemporaryDirectory(prefix="vitrail-golden-") as where:
        files = {name: os.path.join(where, name) for name in ("recipe.yaml", "weights", "input", "output")}
        pathlib.Path(files["recipe.yaml"]).write_text(recipe(json.loads(metadata["model"])))
        write(files["weights"], weights(json.loads(metadata["weights"]), int(metadata["weights_seed"])))
        write(files["input"], below(tensors, "input"))
        command = [program, "forward", files["recipe.yaml"], "--weights", files["weights"], "--from", "vitrail", "--input",
                   files["input"], "--output", files["output"], "--backward"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"{path.name}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        worst, name = max(differences(golden, read(files["output"])[0]))
    print(f"{path.stem} ({metadata['title']}): {len(golden)} results, worst relative difference {worst:.1e} at {name} "
          f"(allowed {ALLOWED:.0e}; {metadata['versions']})", flush=True)
    assert worst <= ALLOWED, f"{path.name}: {name} differs by {worst:.1e}"


if __name__ == "__main__":
    paths = sorted(FOLDER.glob("*.safetensors"))
    assert len(paths) >= 12, f"{FOLDER} holds {len(paths)} golden files"
    for golden_path in paths:
        check(os.path.abspath(sys.argv[1]), golden_path)

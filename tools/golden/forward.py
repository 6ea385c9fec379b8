"""Writes tests/golden/*.safetensors: inputs, outputs, loss and gradients of one tiny model of every kind, as timm,
MONAI and plain PyTorch compute them (the peers of tests/parity/references.py).

run: .venv/bin/python3 tools/golden/forward.py     (needs torch, timm, monai, numpy; about 20 s)

The peers run in fp64 (diffusion's in fp32), so the files do not depend on the machine beyond the last bit.
"""
import json
import math
import pathlib
import sys

import monai
import numpy as np
import timm
import torch

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "parity"))
sys.argv[1:] = ["no program"]  # the parity scripts name one

import golden  # noqa: E402
import references  # noqa: E402

FOLDER, SEED = REPOSITORY / "tests" / "golden", 7
WHOLE = 64  # gradients of more elements are stored as two numbers
MOST = 300_000  # bytes of all files
VERSIONS = f"torch {torch.__version__}, timm {timm.__version__}, monai {monai.__version__}, numpy {np.__version__}"


def random_inputs(case, seed):
    """What `vitrail forward` takes, fp32."""
    generator = torch.Generator().manual_seed(seed)
    model, sides = case.model, case.model["image_size"]
    maps = model["kind"] in ("unetr", "sap")
    batch = 1 if len(sides) == 3 and model["kind"] != "vit" else 2
    draw = lambda *shape: torch.randn(shape, generator=generator)
    inputs = {"image": draw(batch, model["in_channels"], *sides)}
    if maps:
        inputs["label"] = torch.randint(0, model["num_classes"], (batch, *sides), generator=generator)
    elif model.get("num_classes"):
        inputs["label"] = torch.randint(0, model["num_classes"], (batch,), generator=generator)
    if "mask_noise" in case.draws:
        inputs["mask_noise"] = torch.rand(batch, math.prod(side // model["patch_size"] for side in sides), generator=generator)
    if "timestep" in case.draws:
        inputs["timestep"] = torch.randint(0, model["num_timesteps"], (batch,), generator=generator)
        inputs["noise"] = draw(batch, model["in_channels"], *sides)
    if "hidden" in case.draws:
        inputs["label"][-1] = -1
    return inputs


def results(case, inputs):
    """Outputs, loss and gradients as numpy, and how near an element of a leaky ReLU comes to its kink."""
    distances = [math.inf]
    if case.double:
        case.peer.double()
    references.nearest_kink(case.peer, distances)
    case.peer.zero_grad()
    given = {name: value.double() if case.double and value.is_floating_point() else value for name, value in inputs.items()}
    given["image"].requires_grad_(True)
    found, loss = case.run(given)
    loss.backward()
    found = {**found, "loss": loss, "grad/image": given["image"].grad}
    found.update({f"grad/{name}": parameter.grad for name, parameter in case.parameters().items()})
    return {name: value.detach().numpy() for name, value in found.items()}, min(distances)


def set_weights(case):
    """Draws the trained parameters; returns their shapes."""
    shapes = {name: list(parameter.shape) for name, parameter in case.parameters().items()}
    with torch.no_grad():
        for name, values in golden.weights(shapes, SEED).items():
            case.parameters()[name].copy_(torch.tensor(values))
    return shapes


def stored(found):
    for name, values in found.items():
        if name.startswith("grad/") and values.size > WHOLE:
            name, values = "sum/" + name, golden.sums(values)
        yield "result/" + name, values.astype(np.float32)


def write(key, case):
    shapes = set_weights(case)
    for seed in range(SEED, SEED + 200):
        inputs = random_inputs(case, seed)
        found, distance = results(case, inputs)
        if distance > references.NEAREST:
            break
    else:
        raise AssertionError(f"{case.title}: no image is far from the kinks")
    tensors = {f"input/{name}": value.detach().numpy() for name, value in inputs.items()}
    tensors.update(stored(found))
    path = FOLDER / f"{key}.safetensors"
    metadata = {"title": case.title, "model": json.dumps(case.model), "weights": json.dumps(shapes), "weights_seed": str(SEED),
                "inputs_seed": str(seed), "versions": VERSIONS, "written_by": "tools/golden/forward.py"}
    golden.write(path, tensors, metadata)
    print(f"{path.name}: {len(tensors)} tensors, {path.stat().st_size} bytes, seed {seed}")
    return path.stat().st_size


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    total = sum(write(key, case) for key, case in references.cases() if case.golden)
    print(f"{total} bytes in all")
    assert total <= MOST, "too large"

"""What the parity tests share: run `vitrail forward`, compare tensors, print the worst.

Every comparison is ||a - b|| / ||b|| over one tensor, in fp64. The allowed value is 1e-5: fp32 rounds at 6e-8, and the
sums behind one gradient element of these models have some thousand terms added in another order than the peer's.
"""
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
from safetensors.torch import load_file, save_file

ALLOWED = 1e-5
PROGRAM = os.path.abspath(sys.argv[1])
torch.manual_seed(0)
torch.set_num_threads(2)


def folder():
    return tempfile.mkdtemp(prefix="vitrail-parity-")


def run(*arguments, expect=0):
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == expect, f"{' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def recipe(where, model):
    path = os.path.join(where, "recipe.yaml")
    lines = ["run: {name: parity, device: cpu}", "model:"] + [f"  {key}: {value}" for key, value in model.items()]
    lines += ["train: {steps: 1, precision: fp32}", "data: {batch_size: 2, sources: [{reader: random}]}"]
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")
    return path


def scramble(module, scale=0.05):
    """Random values everywhere, so that no zero bias or unit norm hides a mistake."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)


def forward(where, model, weights, inputs, *options, name_from="auto", taps=()):
    recipe_path = recipe(where, model)
    files = [os.path.join(where, name) for name in ("w.safetensors", "in.safetensors", "out.safetensors")]
    save_file({key: value.detach().contiguous() for key, value in weights.items()}, files[0])
    save_file({key: value.detach().contiguous() for key, value in inputs.items()}, files[1])
    command = ["forward", recipe_path, "--weights", files[0], "--from", name_from, "--input", files[1], "--output", files[2]]
    if taps:
        command += ["--taps", ",".join(taps)]
    run(*command, "--backward", *options)
    return load_file(files[2])


def relative(mine, peer):
    mine, peer = mine.double(), peer.double()
    assert mine.shape == peer.shape, f"shape {tuple(mine.shape)} and {tuple(peer.shape)}"
    difference = (mine - peer).norm().item()
    return difference / peer.norm().item() if peer.norm() > 0 else difference


def check_vanishing(title, mine, peer):
    """A bias added to every key moves all scores of a query alike, which softmax ignores: its gradient is zero, and what
    is computed is rounding. Removes such tensors after checking that both are far below the query's."""
    for name in [name for name in peer if name.endswith("attn.k_norm.bias")]:
        beside = peer[name.replace("k_norm", "q_norm")].norm().item()
        largest = max(mine.pop(name).norm().item(), peer.pop(name).norm().item())
        assert largest <= ALLOWED * beside, f"{title}: {name} must vanish but has norm {largest:.2e} beside {beside:.2e}"


def compare(title, mine, peer, allowed=ALLOWED):
    """Compares every tensor of `peer`; both must hold the same names."""
    missing = sorted(set(peer) ^ set(mine))
    assert not missing, f"{title}: names differ: {missing[:6]}"
    mine, peer = dict(mine), dict(peer)
    check_vanishing(title, mine, peer)
    worst, where = max((relative(mine[name], peer[name]), name) for name in peer)
    print(f"{title}: {len(peer)} tensors, worst relative difference {worst:.2e} at {where} (allowed {allowed:.0e})")
    assert worst <= allowed, f"{title}: {where} differs by {worst:.2e}"
    assert all(value.abs().max() > 0 for name, value in peer.items() if name != "mask"), "a tensor of zeros tests nothing"


def with_gradients(results, loss, named_parameters, image):
    loss.backward()
    results = dict(results, loss=loss.detach())
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            results["grad/" + name] = parameter.grad
    results["grad/image"] = image.grad
    return {name: value.detach() for name, value in results.items()}

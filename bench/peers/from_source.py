#!/usr/bin/env python3
"""One training step of a model out of another project's source folder: UCF-VIT or torchtitan-mae.

Neither is a package: get its repository and name the folder.
  bench/peers/from_source.py ucf-vit --source /path/to/UCF-VIT --model vit_huge --batch 128
  bench/peers/from_source.py torchtitan-mae --source /path/to/torchtitan-mae --flavor 2B --size 512 --mask-ratio 0.95 --batch 1
Prints one JSON line (stopwatch.py). Both run as they are shipped: eager unless --compile, their own attention.
"""
import argparse
import importlib
import os
import sys

import torch

import stopwatch

MODELS = {"vit_base": (768, 12, 12, 16), "vit_large": (1024, 24, 16, 16), "vit_huge": (1280, 32, 16, 14),
          "vit_1b": (1536, 32, 16, 14), "vit_3b": (2816, 32, 32, 14)}

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("system", choices=["ucf-vit", "torchtitan-mae"])
parser.add_argument("--source", help="folder of the project's checkout")
parser.add_argument("--model", choices=MODELS, default="vit_base", help="ucf-vit")
parser.add_argument("--flavor", default="2B", help="torchtitan-mae")
parser.add_argument("--batch", type=int, default=64)
parser.add_argument("--size", type=int, default=224, help="edge of the image or cube")
parser.add_argument("--patch", type=int, default=8, help="torchtitan-mae")
parser.add_argument("--mask-ratio", type=float, default=0.95, help="torchtitan-mae")
parser.add_argument("--compile", action="store_true")
stopwatch.add_arguments(parser)
options = parser.parse_args()
options.eager = not options.compile


def stop(message):
    sys.exit(f"[peer] {options.system}: {message}")


def module(name, *folders):
    for folder in folders:
        sys.path.insert(0, os.path.join(options.source, folder))
    try:
        return importlib.import_module(name)
    except ImportError as error:
        stop(f"{name} must be importable from {options.source} but: {error}")


def need(owner, name):
    if not hasattr(owner, name):
        stop(f"{owner.__name__} must hold {name}; this version of the source does not, so the script needs another entry")
    return getattr(owner, name)


def ucf_vit():
    """Its "simple" encoder with the classification head; the fsdp copy does not run without adaptive patches."""
    arch = module("UCF_VIT.simple.arch", "src", ".")
    width, depth, heads, patch = MODELS[options.model]
    more = {}
    if hasattr(arch, "FusedAttn"):
        more["FusedAttn_option"] = arch.FusedAttn.DEFAULT
    model = need(arch, "VIT")(img_size=[options.size] * 2, patch_size=patch, in_chans=3, num_classes=1000, embed_dim=width,
                              depth=depth, num_heads=heads, default_vars=["red", "green", "blue"], **more).to(options.device)
    image = torch.randn(options.batch, 3, options.size, options.size, device=options.device)
    label = torch.randint(0, 1000, (options.batch,), device=options.device)
    return model, lambda m: torch.nn.functional.cross_entropy(m(image, ["red", "green", "blue"]).float(), label)


def torchtitan_mae():
    models = module("torchtitan.models", ".")
    flavors = need(models, "models_config")["llama3"]
    if options.flavor not in flavors:
        stop(f"--flavor must be one of {', '.join(flavors)} but is {options.flavor}")
    config = flavors[options.flavor]
    config.img_size, config.patch_size, config.mask_ratio = options.size, options.patch, options.mask_ratio
    with torch.device(options.device):
        model = need(models, "model_name_to_cls")["llama3"].from_model_args(config)
        if hasattr(model, "init_weights"):
            model.init_weights()
    cube = torch.rand(options.batch, 1, *[options.size] * 3, device=options.device).bfloat16()

    def loss_of(m):
        out = m(cube)
        out = out[0] if isinstance(out, (tuple, list)) else out
        return out.float().square().mean()

    return model, loss_of


if not options.source:
    stop("--source must name the folder of its checkout; it is no package that could be installed")
if not os.path.isdir(options.source):
    stop(f"--source must name a folder but {options.source} is none")
torch.manual_seed(0)
plain, loss_of = {"ucf-vit": ucf_vit, "torchtitan-mae": torchtitan_mae}[options.system]()
model = stopwatch.compiled(plain, options)
step = stopwatch.train_step(model, loss_of, options)
with stopwatch.attention(options):
    times = stopwatch.measure(step, options)
stopwatch.report(options.system, options.batch, stopwatch.count(plain), times, options,
                 model=options.model if options.system == "ucf-vit" else options.flavor)

#!/usr/bin/env python3
"""One training step of MONAI's UNETR under torch.compile: cubes of one channel, dice and cross-entropy over all classes.

Prints one JSON line (stopwatch.py).
"""
import argparse

import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNETR

import stopwatch

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--size", type=int, default=96, help="edge of the cube")
parser.add_argument("--channels", type=int, default=1)
parser.add_argument("--classes", type=int, default=14)
parser.add_argument("--width", type=int, default=768)
parser.add_argument("--mlp", type=int, default=3072)
parser.add_argument("--heads", type=int, default=12)
parser.add_argument("--feature-size", type=int, default=16)
parser.add_argument("--dimensions", type=int, choices=[2, 3], default=3)
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--channels-last", action="store_true")
stopwatch.add_arguments(parser)
options = parser.parse_args()

torch.manual_seed(0)
torch.set_float32_matmul_precision("high")
torch.backends.cudnn.benchmark = True
sides = [options.size] * options.dimensions
plain = UNETR(in_channels=options.channels, out_channels=options.classes, img_size=tuple(sides), feature_size=options.feature_size,
              hidden_size=options.width, mlp_dim=options.mlp, num_heads=options.heads, spatial_dims=options.dimensions,
              norm_name="instance", res_block=True, dropout_rate=0.0, qkv_bias=True).to(options.device)
# MONAI's attention writes the probabilities out unless it is told to take PyTorch's.
for module in plain.modules():
    if hasattr(module, "use_flash_attention"):
        module.use_flash_attention = True
image = torch.randn(options.batch, options.channels, *sides, device=options.device)
if options.channels_last:
    layout = torch.channels_last_3d if options.dimensions == 3 else torch.channels_last
    plain, image = plain.to(memory_format=layout), image.to(memory_format=layout)
label = torch.randint(0, options.classes, (options.batch, 1, *sides), device=options.device)
loss = DiceCELoss(to_onehot_y=True, softmax=True)
if not options.eager:
    loss = torch.compile(loss, mode=options.compile_mode)
model = stopwatch.compiled(plain, options)
step = stopwatch.train_step(model, lambda m: loss(m(image).float(), label), options)
with stopwatch.attention(options):
    times = stopwatch.measure(step, options)
stopwatch.report("MONAI UNETR", options.batch, stopwatch.count(plain), times, options, size=sides)

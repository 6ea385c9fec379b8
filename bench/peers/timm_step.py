#!/usr/bin/env python3
"""One training step of a timm ViT under torch.compile: the peer of `vitrail bench step recipes/bench/vit_base.yaml`.

  bench/peers/timm_step.py --model vit_base --batch 256        prints one JSON line (stopwatch.py)
"""
import argparse

import torch
from timm.models.vision_transformer import VisionTransformer

import stopwatch

# width, depth, heads, patch: as vitrail/config/presets.cpp
MODELS = {
    "vit_tiny": (192, 12, 3, 16),
    "vit_small": (384, 12, 6, 16),
    "vit_base": (768, 12, 12, 16),
    "vit_large": (1024, 24, 16, 16),
    "vit_huge": (1280, 32, 16, 14),
    "vit_1b": (1536, 32, 16, 14),
    "vit_3b": (2816, 32, 32, 14),
}

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--model", choices=MODELS, default="vit_base")
parser.add_argument("--batch", type=int, default=256)
parser.add_argument("--size", type=int, default=224)
parser.add_argument("--classes", type=int, default=1000)
parser.add_argument("--depth", type=int, help="instead of the model's")
parser.add_argument("--bf16-weights", action="store_true", help="weights and AdamW's state in bf16, no autocast")
stopwatch.add_arguments(parser)
options = parser.parse_args()

torch.manual_seed(0)
torch.set_float32_matmul_precision("high")
width, depth, heads, patch = MODELS[options.model]
with torch.device(options.device):
    plain = VisionTransformer(img_size=options.size, patch_size=patch, num_classes=options.classes, embed_dim=width,
                              depth=options.depth or depth, num_heads=heads)
    image = torch.randn(options.batch, 3, options.size, options.size)
    label = torch.randint(0, options.classes, (options.batch,))
if options.bf16_weights:
    plain, image = plain.bfloat16(), image.bfloat16()
model = stopwatch.compiled(plain, options)
step = stopwatch.train_step(model, lambda m: torch.nn.functional.cross_entropy(m(image).float(), label), options)
with stopwatch.attention(options):
    times = stopwatch.measure(step, options)
stopwatch.report("timm", options.batch, stopwatch.count(plain), times, options, model=options.model, tokens=plain.pos_embed.shape[1],
                 weights="bf16" if options.bf16_weights else "fp32")

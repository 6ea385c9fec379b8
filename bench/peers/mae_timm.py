#!/usr/bin/env python3
"""One training step of a masked autoencoder built from timm's blocks, under torch.compile.

ViT-L/16 by default: 75 % of the patches hidden, decoder of 8 blocks 512 wide with 16 heads, normalised pixel loss, as He et
al. 2022 (arXiv:2111.06377). Prints one JSON line (stopwatch.py).
"""
import argparse
import functools

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block
from torch import nn

import stopwatch

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--width", type=int, default=1024)
parser.add_argument("--depth", type=int, default=24)
parser.add_argument("--heads", type=int, default=16)
parser.add_argument("--patch", type=int, default=16)
parser.add_argument("--size", type=int, default=224)
parser.add_argument("--decoder-width", type=int, default=512)
parser.add_argument("--decoder-depth", type=int, default=8)
parser.add_argument("--decoder-heads", type=int, default=16)
parser.add_argument("--mask-ratio", type=float, default=0.75)
parser.add_argument("--batch", type=int, default=256)
stopwatch.add_arguments(parser)
options = parser.parse_args()


class Mae(nn.Module):
    def __init__(self):
        super().__init__()
        o = options
        norm = {"norm_layer": functools.partial(nn.LayerNorm, eps=1e-6), "qkv_bias": True}
        self.embed = PatchEmbed(o.size, o.patch, 3, o.width)
        tokens = self.embed.num_patches
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, o.width))
        self.register_buffer("position", 0.02 * torch.randn(1, tokens + 1, o.width))
        self.blocks = nn.Sequential(*(Block(o.width, o.heads, **norm) for _ in range(o.depth)))
        self.norm = nn.LayerNorm(o.width, 1e-6)
        self.decoder_embed = nn.Linear(o.width, o.decoder_width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, o.decoder_width))
        self.register_buffer("decoder_position", 0.02 * torch.randn(1, tokens + 1, o.decoder_width))
        self.decoder = nn.Sequential(*(Block(o.decoder_width, o.decoder_heads, **norm) for _ in range(o.decoder_depth)))
        self.decoder_norm = nn.LayerNorm(o.decoder_width, 1e-6)
        self.predict = nn.Linear(o.decoder_width, o.patch**2 * 3)
        self.kept = int(tokens * (1 - o.mask_ratio))

    def forward(self, image, noise):
        x = self.embed(image) + self.position[:, 1:]
        B, L, D = x.shape
        order = noise.argsort(1)
        back = order.argsort(1)
        x = x.gather(1, order[:, : self.kept, None].expand(-1, -1, D))
        x = torch.cat([(self.cls + self.position[:, :1]).expand(B, -1, -1), x], 1)
        x = self.decoder_embed(self.norm(self.blocks(x)))
        hidden = self.mask_token.expand(B, L - self.kept, -1).to(x.dtype)
        full = torch.cat([x[:, 1:], hidden], 1).gather(1, back[:, :, None].expand(-1, -1, x.shape[2]))
        x = torch.cat([x[:, :1], full], 1) + self.decoder_position
        pred = self.predict(self.decoder_norm(self.decoder(x)))[:, 1:].float()
        p, g = options.patch, options.size // options.patch
        target = image.view(B, 3, g, p, g, p).permute(0, 2, 4, 3, 5, 1).reshape(B, L, -1)
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        mask = (back >= self.kept).float()
        return ((pred - target).square().mean(-1) * mask).sum() / mask.sum()


torch.manual_seed(0)
torch.set_float32_matmul_precision("high")
plain = Mae().to(options.device)
image = torch.randn(options.batch, 3, options.size, options.size, device=options.device)
model = stopwatch.compiled(plain, options)
noise = lambda: torch.rand(options.batch, plain.embed.num_patches, device=options.device)
step = stopwatch.train_step(model, lambda m: m(image, noise()), options)
with stopwatch.attention(options):
    times = stopwatch.measure(step, options)
stopwatch.report("timm MAE", options.batch, stopwatch.count(plain), times, options, tokens=plain.embed.num_patches,
                 kept=plain.kept)

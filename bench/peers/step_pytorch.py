#!/usr/bin/env python3
"""One training step of ViT-B/16 in plain PyTorch (bf16 weights by autocast, SDPA, fused AdamW), eager and compiled.

Random data; median of 20 steps after 5. The peer of `vitrail bench step recipes/bench/vit_base.yaml`.
"""
import argparse
import json
import statistics

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--batch", type=int, default=256)
parser.add_argument("--json")
parser.add_argument("--skip-compile", action="store_true")
options = parser.parse_args()


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        B, L, D = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, L, D)
        x = x + self.proj(y)
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))


class Vit(nn.Module):
    def __init__(self, width=768, depth=12, heads=12, patch=16, size=224, classes=1000):
        super().__init__()
        self.patch = nn.Conv2d(3, width, patch, patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, (size // patch) ** 2 + 1, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width, 1e-6), nn.Linear(width, classes)

    def forward(self, image):
        x = self.patch(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))


def measure(compiled):
    torch.manual_seed(0)
    model = Vit().cuda()
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=True)
    image = torch.randn(options.batch, 3, 224, 224, device="cuda")
    label = torch.randint(0, 1000, (options.batch,), device="cuda")
    times = []
    for step in range(25):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        with torch.autocast("cuda", torch.bfloat16):
            loss = nn.functional.cross_entropy(forward(image), label)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        end.record()
        end.synchronize()
        if step >= 5:
            times.append(start.elapsed_time(end))
    ms = statistics.median(times)
    return {"ms": ms, "images_per_second": 1000 * options.batch / ms, "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30}


result = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "batch_size": options.batch, "eager": measure(False)}
if not options.skip_compile:
    result["compiled"] = measure(True)
print(json.dumps(result))
if options.json:
    with open(options.json, "w") as file:
        json.dump(result, file, indent=1)

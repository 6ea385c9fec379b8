#!/usr/bin/env python3
"""One training step of a ViT with PyTorch's own data parallelism: DDP, or FSDP2 (fully_shard) block by block.

bf16 compute with fp32 master weights (mixed precision policy; autocast for DDP), SDPA, fused AdamW, random images, gradients
reduced in fp32. The peer of `vitrail bench step` under mpirun. Started by torchrun, or by mpirun (it reads Open MPI's variables):
  torchrun --nproc-per-node 2 bench/peers/fsdp2.py --strategy zero3 --width 1280 --depth 32 --heads 16 --patch 14 --batch 128
"""
import argparse
import json
import os
import statistics

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import checkpoint

parser = argparse.ArgumentParser()
parser.add_argument("--strategy", choices=["ddp", "zero2", "zero3"], default="zero3")
parser.add_argument("--width", type=int, default=1280)
parser.add_argument("--depth", type=int, default=32)
parser.add_argument("--heads", type=int, default=16)
parser.add_argument("--patch", type=int, default=14)
parser.add_argument("--size", type=int, default=224)
parser.add_argument("--classes", type=int, default=1000)
parser.add_argument("--batch", type=int, default=128, help="of all ranks")
parser.add_argument("--recompute", action="store_true", help="recompute every block in backward")
parser.add_argument("--compile", action="store_true")
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--warmup", type=int, default=5)
parser.add_argument("--json", help="file for the result; - = one JSON line on stdout instead of the words")
options = parser.parse_args()


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def run(self, x):
        B, L, D = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, L, D)
        x = x + self.proj(y)
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))

    def forward(self, x):
        return checkpoint(self.run, x, use_reentrant=False) if options.recompute else self.run(x)


class Vit(nn.Module):
    def __init__(self):
        super().__init__()
        width = options.width
        self.patch = nn.Conv2d(3, width, options.patch, options.patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, (options.size // options.patch) ** 2 + 1, width))
        self.blocks = nn.ModuleList(Block(width, options.heads) for _ in range(options.depth))
        self.norm, self.head = nn.LayerNorm(width, 1e-6), nn.Linear(width, options.classes)

    def forward(self, image):
        x = self.patch(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))


def start():
    """Rank, number of ranks and GPU, from torchrun or Open MPI."""
    for ours, theirs in (("RANK", "RANK"), ("WORLD_SIZE", "SIZE"), ("LOCAL_RANK", "LOCAL_RANK")):
        os.environ.setdefault(ours, os.environ.get(f"OMPI_COMM_WORLD_{theirs}", "1" if theirs == "SIZE" else "0"))
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29511")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)
    return dist.get_rank(), dist.get_world_size(), device


def shard(model, ranks, device):
    """The model laid over the ranks; the parameters are made where they belong."""
    if options.strategy == "ddp":
        model = model.to_empty(device=device)
        init(model)
        return nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True) if ranks > 1 else model
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    keep = {"mp_policy": policy, "reshard_after_forward": options.strategy == "zero3"}
    for block in model.blocks:
        fully_shard(block, **keep)
    fully_shard(model, **keep)
    model.to_empty(device=device)
    init(model)
    return model


def init(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)


rank, ranks, device = start()
with torch.device("meta"):
    plain = Vit()
parameters = sum(p.numel() for p in plain.parameters())
if options.compile:
    for block in plain.blocks:
        block.compile()
model = shard(plain, ranks, device)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=True)
local = options.batch // ranks
image = torch.randn(local, 3, options.size, options.size, device=device)
if options.strategy != "ddp":
    image = image.bfloat16()
label = torch.randint(0, options.classes, (local,), device=device)
times = []
torch.cuda.reset_peak_memory_stats()
for step in range(options.warmup + options.steps):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    with torch.autocast("cuda", torch.bfloat16, enabled=options.strategy == "ddp"):
        loss = nn.functional.cross_entropy(model(image).float(), label)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    end.record()
    end.synchronize()
    if step >= options.warmup:
        times.append(begin.elapsed_time(end))
slowest = torch.tensor(times, device=device)
peak = torch.tensor(float(torch.cuda.max_memory_allocated()), device=device)
dist.all_reduce(slowest, dist.ReduceOp.MAX)
dist.all_reduce(peak, dist.ReduceOp.MAX)
ms = statistics.median(slowest.tolist())
if rank == 0:
    result = {"peer": "torch " + torch.__version__, "device": torch.cuda.get_device_name(), "ranks": ranks,
              "strategy": options.strategy, "compiled": options.compile, "recompute": options.recompute,
              "parameters": parameters, "batch_size": options.batch, "ms": ms,
              "images_per_second": 1000 * options.batch / ms, "peak_memory_gib": peak.item() / 2**30}
    words = (f"{options.strategy} torch{' compiled' if options.compile else ''} {ranks} ranks {parameters / 1e9:.2f} B: {ms:.1f} ms  "
             f"{result['images_per_second']:.1f} images/s  peak {result['peak_memory_gib']:.1f} GiB")
    print(json.dumps(result) if options.json == "-" else words, flush=True)
    if options.json and options.json != "-":
        with open(options.json, "w") as file:
            json.dump(result, file, indent=1)
dist.destroy_process_group()

"""vitrail's diffusion model and samplers, 2-D and 3-D, against the formulas written out in PyTorch and NumPy.

Model and loss: Ho et al. 2020 (arXiv:2006.11239); cosine schedule: Nichol & Dhariwal 2021 (arXiv:2102.09672); DDIM: Song et
al. 2020 (arXiv:2010.02502); guidance: Ho & Salimans 2022 (arXiv:2207.12598). The samplers' noise is Philox4x32-10 (Salmon
et al. 2011), written again here, so that `vitrail sample` is compared picture by picture.
"""
import math
import os

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from safetensors.torch import load_file, save_file

import common
from blocks import Attention, Mlp, PatchEmbed, sincos

T = 40  # levels of the models below


def alpha_bars(kind, count):
    """prod (1 - beta), fp64."""
    if kind == "linear":
        betas = np.linspace(1e-4, 0.02, count)
    else:
        bar = lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = np.array([min(1 - bar((t + 1) / count) / bar(t / count), 0.999) for t in range(count)])
    return np.cumprod(1 - betas)


def table(grid, width):
    """Rows in raster order; 2-D: the column's code first, then the row's; 3-D: by axis."""
    axes = torch.meshgrid(*[torch.arange(side) for side in grid], indexing="ij")
    order = (1, 0) if len(grid) == 2 else (0, 1, 2)
    rows = torch.cat([sincos(axes[axis].flatten(), width // len(grid)) for axis in order], 1)
    return rows[None].float()


class Block(nn.Module):
    def __init__(self, width, heads, hidden, conditioned):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp = Attention(width, heads), Mlp(width, hidden)
        if conditioned:
            self.cond = nn.Linear(width, width)

    def forward(self, x, condition=None):
        shifted = x if condition is None else x + self.cond(F.silu(condition))[:, None]
        x = x + self.attn(self.norm1(shifted))
        return x + self.mlp(self.norm2(x))


class TimeEmbed(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, width)
        self.rates = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)

    def forward(self, t):
        angles = t.double()[:, None] * self.rates
        rows = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)  # sin and cos take turns
        return self.fc2(F.relu(self.fc1(rows.float())))


class Diffusion(nn.Module):
    def __init__(self, sides, patch, channels, classes, conditioning, linear, schedule, learned):
        super().__init__()
        width, decoder_width = 96, 48
        self.sides, self.patch, self.channels, self.linear = sides, patch, channels, linear
        self.by_block, self.classes = conditioning == "block", classes
        self.alpha_bar = torch.tensor(alpha_bars(schedule, T))
        grid = [side // patch for side in sides]
        self.patch_embed = PatchEmbed(len(sides), channels, width, patch)
        self.pos_embed = nn.Parameter(table(grid, width), requires_grad=learned)
        self.blocks = nn.ModuleList([Block(width, 4, 4 * width, self.by_block) for _ in range(2)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.time_embed = TimeEmbed(width)
        if classes:
            self.class_embed = nn.Parameter(torch.zeros(classes + 1, width))
        if not linear:
            self.decoder_embed = nn.Linear(width, decoder_width)
            self.decoder_pos_embed = nn.Parameter(table(grid, decoder_width), requires_grad=learned)
            self.decoder_blocks = nn.ModuleList([Block(decoder_width, 4, 4 * decoder_width, False) for _ in range(2)])
            self.decoder_norm = nn.LayerNorm(decoder_width, eps=1e-6)
        self.decoder_pred = nn.Linear(width if linear else decoder_width, channels * patch ** len(sides))

    def image(self, tokens):
        """Rows (p, q[, r], c) of every patch -> image, written with loops over the patches."""
        grid = [side // self.patch for side in self.sides]
        axes = len(grid)
        parts = tokens.reshape(len(tokens), *grid, *[self.patch] * axes, self.channels)
        order = [0, 1 + 2 * axes] + [axis for a in range(axes) for axis in (1 + a, 1 + axes + a)]
        return parts.permute(order).reshape(len(tokens), self.channels, *self.sides)

    def noise(self, x, t, label):
        condition = self.time_embed(t)
        if self.classes:
            rows = [self.classes if label is None or c < 0 else int(c) for c in (label if label is not None else t)]
            condition = condition + self.class_embed[rows]
        x = self.patch_embed(x)
        x = x + self.pos_embed
        if not self.by_block:
            x = x + condition[:, None]
        for block in self.blocks:
            x = block(x, condition if self.by_block else None)
        x = self.norm(x)
        if not self.linear:
            x = self.decoder_embed(x) + self.decoder_pos_embed
            for block in self.decoder_blocks:
                x = block(x)
            x = self.decoder_norm(x)
        return self.image(self.decoder_pred(x))

    def forward(self, image, t, noise, label):
        bar = self.alpha_bar[t].reshape(-1, *[1] * (image.dim() - 1))
        predicted = self.noise(bar.sqrt().float() * image + (1 - bar).sqrt().float() * noise, t, label)
        return predicted, (predicted - noise).square().mean()


def build(sides, patch, channels, classes, conditioning, linear, schedule, learned):
    peer = Diffusion(sides, patch, channels, classes, conditioning, linear, schedule, learned)
    common.scramble(peer)
    model = {"kind": "diffusion", "image_size": list(sides), "patch_size": patch, "in_channels": channels, "num_classes": classes,
             "embed_dim": 96, "depth": 2, "num_heads": 4, "decoder": "linear" if linear else "transformer",
             "decoder_embed_dim": 48, "decoder_depth": 2, "decoder_num_heads": 4, "num_timesteps": T,
             "beta_schedule": schedule, "time_conditioning": conditioning,
             "pos_embed": "learned" if learned else "sincos"}
    weights = {name: value for name, value in peer.state_dict().items() if learned or not name.endswith("pos_embed")}
    return peer, model, weights


def check(title, sides, patch, channels, classes=0, conditioning="input", linear=False, schedule="linear", learned=False,
          attention="sdpa"):
    peer, model, weights = build(sides, patch, channels, classes, conditioning, linear, schedule, learned)
    image, noise = torch.randn(4, channels, *sides, requires_grad=True), torch.randn(4, channels, *sides)
    t, label = torch.tensor([0, T - 1, 7, 23]), torch.tensor([0, 2, -1, 1]) if classes else None
    predicted, loss = peer(image, t, noise, label)
    expected = common.with_gradients({"output": predicted}, loss, peer.named_parameters(), image)
    inputs = {"image": image, "noise": noise, "timestep": t}
    if classes:
        inputs["label"] = label
    mine = common.forward(common.folder(), model, weights, inputs, f"train.attention={attention}", name_from="vitrail")
    common.compare(f"diffusion, {title}, {attention}", mine, expected)


# The noise of the samplers.
def mix64(value):
    mask = (1 << 64) - 1
    value = (value + 0x9E3779B97F4A7C15) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)


def philox(counter, key):
    low = np.uint64(0xFFFFFFFF)
    c, key = [np.asarray(word, np.uint64) for word in counter], list(key)
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(b >> np.uint64(32)) ^ c[1] ^ np.uint64(key[0]), b & low, (a >> np.uint64(32)) ^ c[3] ^ np.uint64(key[1]), a & low]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack(c, -1)


NOISE_STREAM, START, STEP = 11, 1, 2


def normal(seed, layer, step, sample, shape):
    count = math.prod(shape)
    blocks = np.arange((2 * count + 3) // 4, dtype=np.uint64)
    mixed = mix64(seed ^ mix64(NOISE_STREAM))
    words = philox([blocks, np.full_like(blocks, sample), np.full_like(blocks, layer << 16), np.full_like(blocks, step)],
                   (mixed & 0xFFFFFFFF, mixed >> 32)).reshape(-1)
    u = (words >> np.uint64(8)).astype(np.float64) / 2 ** 24
    radius, angle = np.sqrt(-2 * np.log(1 - u[0::2])), 2 * np.pi * u[1::2]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1).reshape(-1)[:count].reshape(shape)


def sampled(peer, schedule, seed, count, classes, method, steps, guidance, clip, variance="posterior"):
    """Sample by sample in fp64 but for the model."""
    bars, shape = alpha_bars(schedule, T), (peer.channels, *peer.sides)
    levels = [math.floor(T * (steps - i) / steps + 0.5) - 1 for i in range(steps)]
    images = []
    for i in range(count):
        x = normal(seed, START, 0, i, shape)

        def predict(label, t):
            with torch.no_grad():
                return peer.noise(torch.tensor(x)[None].float(), torch.tensor([t]), torch.tensor([label]))[0].double().numpy()

        for t, s in zip(levels, levels[1:] + [-1]):
            bar, to = bars[t], bars[s] if s >= 0 else 1.0
            e = predict(i % classes if classes else -1, t)
            if guidance != 1:
                without = predict(-1, t)
                e = without + guidance * (e - without)
            x0 = (x - math.sqrt(1 - bar) * e) / math.sqrt(bar)
            if clip:
                x0 = x0.clip(-1, 1)
            if method == "ddim":
                e = (x - math.sqrt(bar) * x0) / math.sqrt(1 - bar)
                x = math.sqrt(to) * x0 + math.sqrt(1 - to) * e
            elif clip or steps < T:
                alpha = bar / to
                x = (math.sqrt(to) * (1 - alpha) * x0 + math.sqrt(alpha) * (1 - to) * x) / (1 - bar)
            else:  # as Ho et al. write it
                beta = 1 - bar / to
                x = (x - beta / math.sqrt(1 - bar) * e) / math.sqrt(1 - beta)
            if method == "ddpm" and s >= 0:
                beta = 1 - bar / to
                sigma = beta if variance == "beta" else beta * (1 - to) / (1 - bar)
                x = x + math.sqrt(sigma) * normal(seed, STEP, t, i, shape)
        images.append(x * 0.5 + 0.5)  # mean and std of a source that names none
    return torch.tensor(np.stack(images))


# A step multiplies what is there, rounding included, by up to 1 / sqrt(1 - beta); below are the worst values seen, 2026-11.
SAMPLES_ALLOWED = 5e-5


def check_samples(title, sides, patch, channels, classes, schedule, method, steps, guidance=1.0, clip=True, variance="posterior"):
    peer, model, weights = build(sides, patch, channels, classes, "block" if classes else "input", True, schedule, False)
    where = common.folder()
    recipe, file, out = common.recipe(where, model), os.path.join(where, "w.safetensors"), os.path.join(where, "out.safetensors")
    save_file({name: value.detach().contiguous() for name, value in weights.items()}, file)
    count = 3
    options = ["--count", count, "--method", method, "--steps", steps, "--guidance", guidance, "--seed", 5, "--batch", 2,
               "--variance", variance] + ([] if clip else ["--no-clip"])
    common.run("sample", recipe, "--weights", file, "--output", out, *options)
    mine = load_file(out)
    assert mine["label"].tolist() == [i % classes if classes else -1 for i in range(count)]
    expected = sampled(peer, schedule, 5, count, classes, method, steps, guidance, clip, variance)
    common.compare(f"sample, {title}, {schedule}, {steps} of {T} steps", {"image": mine["image"]}, {"image": expected},
                   SAMPLES_ALLOWED)


if __name__ == "__main__":
    for attention in ("sdpa", "plain"):
        check("2-D", (32, 24), 8, 3, attention=attention)
        check("2-D, blocks conditioned, classes", (32, 24), 8, 3, 3, "block", schedule="cosine", attention=attention)
    check("2-D, classes at the input, linear decoder", (32, 24), 8, 2, 3, "input", linear=True, schedule="cosine")
    check("2-D, learned positions", (32, 24), 8, 3, 3, "block", learned=True)
    check("3-D", (8, 16, 24), 8, 2, schedule="cosine")
    check("3-D, blocks conditioned, classes, linear decoder", (8, 16, 24), 8, 1, 3, "block", linear=True)
    check_samples("ddim", (16, 24), 8, 3, 0, "linear", "ddim", 10, clip=False)
    check_samples("ddim", (16, 24), 8, 1, 3, "cosine", "ddim", 10, guidance=2.5)
    check_samples("ddpm", (16, 24), 8, 3, 0, "linear", "ddpm", T, clip=False)
    check_samples("ddpm, larger variance", (16, 24), 8, 3, 0, "linear", "ddpm", T, clip=False, variance="beta")
    check_samples("ddpm", (16, 24), 8, 3, 3, "cosine", "ddpm", 13, guidance=1.5)
    check_samples("ddim, volumes", (8, 16, 16), 8, 2, 3, "cosine", "ddim", T)

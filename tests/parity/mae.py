"""vitrail's MAE, 2-D and 3-D, against the formulas of He et al. 2022 (arXiv:2111.06377) written out in PyTorch."""
import math

import torch
from torch import nn

import common
from blocks import Attention, Mlp, PatchEmbed, RmsNorm, SwiGlu, sincos


def table(grid, width):
    """Rows in raster order; 2-D: the column's code first, then the row's; 3-D: by axis. A zero row for the class token."""
    axes = torch.meshgrid(*[torch.arange(side) for side in grid], indexing="ij")
    order = (1, 0) if len(grid) == 2 else (0, 1, 2)
    rows = torch.cat([sincos(axes[axis].flatten(), width // len(grid)) for axis in order], 1)
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), rows])[None].float()


class Block(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp = Attention(width, heads), Mlp(width, hidden)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Mae(nn.Module):
    def __init__(self, sides, patch, channels, width, depth, heads, decoder_width, decoder_depth, decoder_heads,
                 mask_ratio, norm_pix_loss, linear):
        super().__init__()
        self.grid, self.patch, self.mask_ratio, self.norm_pix_loss = [s // patch for s in sides], patch, mask_ratio, norm_pix_loss
        self.linear = linear
        if linear:
            decoder_width = width
        self.patch_embed = PatchEmbed(len(sides), channels, width, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(table(self.grid, width), requires_grad=False)
        self.blocks = nn.ModuleList([Block(width, heads, 4 * width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        if not linear:
            self.decoder_embed = nn.Linear(width, decoder_width)
            self.decoder_pos_embed = nn.Parameter(table(self.grid, decoder_width), requires_grad=False)
            self.decoder_blocks = nn.ModuleList([Block(decoder_width, decoder_heads, 4 * decoder_width) for _ in range(decoder_depth)])
            self.decoder_norm = nn.LayerNorm(decoder_width, eps=1e-6)
        self.decoder_pred = nn.Linear(decoder_width, channels * patch ** len(sides))

    def target(self, image):
        """Pixels of each patch, channel fastest."""
        parts = image
        for axis in range(len(self.grid)):
            parts = parts.unfold(2 + axis, self.patch, self.patch)  # [B, C, grid..., P, ...]
        parts = parts.flatten(2, 1 + len(self.grid)).flatten(3)     # [B, C, L, P^k]
        values = parts.permute(0, 2, 3, 1).flatten(2)
        if self.norm_pix_loss:
            values = (values - values.mean(-1, keepdim=True)) / (values.var(-1, keepdim=True) + 1e-6).sqrt()
        return values

    def forward(self, image, noise):
        tokens = self.patch_embed(image) + self.pos_embed[:, 1:]
        kept = int(tokens.shape[1] * (1 - self.mask_ratio))
        order = noise.argsort(1)
        visible = torch.stack([tokens[b, order[b, :kept]] for b in range(len(tokens))])
        x = torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(len(x_ := visible), -1, -1), x_], 1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        mask = torch.ones_like(noise)
        for b in range(len(mask)):
            mask[b, order[b, :kept]] = 0
        if not self.linear:
            x = self.decoder_embed(x)
        rows = []
        for b in range(len(x)):  # every token in its own place, the mask token in the others
            row = self.mask_token[0].expand(noise.shape[1], -1).clone()
            row[order[b, :kept]] = x[b, 1:]
            rows.append(torch.cat([x[b, :1], row]))
        x = torch.stack(rows)
        if not self.linear:
            x = x + self.decoder_pos_embed
            for block in self.decoder_blocks:
                x = block(x)
            x = self.decoder_norm(x)
        prediction = self.decoder_pred(x)[:, 1:]
        error = (prediction - self.target(image)).square().mean(-1)
        # A linear decoder predicts hidden patches from the mask token alone: only the visible ones train the encoder.
        return prediction, mask, error.mean() if self.linear else (error * mask).sum() / mask.sum()


def check(title, sides, patch, channels, norm_pix_loss, linear, attention, width=96, in_file=True):
    peer = Mae(sides, patch, channels, width, 2, 4, 48, 2, 4, 0.75, norm_pix_loss, linear)
    common.scramble(peer)
    tokens = math.prod(s // patch for s in sides)
    image, noise = torch.randn(2, channels, *sides, requires_grad=True), torch.rand(2, tokens)
    prediction, mask, loss = peer(image, noise)
    expected = common.with_gradients({"output": prediction, "mask": mask}, loss, peer.named_parameters(), image)
    model = {"kind": "mae", "image_size": list(sides), "patch_size": patch, "in_channels": channels, "embed_dim": width,
             "depth": 2, "num_heads": 4, "decoder_embed_dim": 48, "decoder_depth": 2, "decoder_num_heads": 4,
             "mask_ratio": 0.75, "norm_pix_loss": str(norm_pix_loss).lower(),
             "decoder": "linear" if linear else "transformer", "loss": "mse" if linear else "masked_mse"}
    weights = {name: value for name, value in peer.state_dict().items() if in_file or not name.endswith("pos_embed")}
    mine = common.forward(common.folder(), model, weights, {"image": image, "mask_noise": noise},
                          f"train.attention={attention}", name_from="mae")
    common.compare(f"mae, {title}, {attention}", mine, expected)


for attention in ("sdpa", "plain"):
    check("2-D", (64, 48), 8, 3, False, False, attention)
    check("2-D, normalised pixels", (64, 48), 8, 3, True, False, attention)
    check("2-D, linear decoder", (64, 48), 8, 3, False, True, attention)
    check("3-D", (16, 24, 32), 8, 2, True, False, attention)
check("2-D, positions computed here", (64, 48), 8, 3, False, False, "sdpa", in_file=False)
check("3-D, positions computed here", (16, 24, 32), 8, 1, False, False, "sdpa", in_file=False)


# The large 3-D form: grouped keys and values, rotary positions, RMSNorm, SwiGLU, no biases, no class token.

def angles(grid, pairs, kind, theta):
    """[L, pairs]: raster: index * theta^(-k / pairs); axial: every axis its own part of the pairs, by coordinate."""
    places = torch.stack(torch.meshgrid(*[torch.arange(side) for side in grid], indexing="ij"), -1).flatten(0, -2).double()
    if kind == "raster":
        places = torch.arange(len(places)).double()[:, None]
    part = pairs // places.shape[1]
    rates = theta ** (-torch.arange(part).double() / part)
    return torch.cat([places[:, axis:axis + 1] * rates for axis in range(places.shape[1])], 1)


def turn(x, angle):
    """Pairs (2k, 2k + 1) of x [B, N, T, E] as complex numbers times e^(i angle), angle [B, 1, T, E / 2]."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle).to(pairs.dtype)).flatten(-2)


class GroupedAttention(nn.Module):
    def __init__(self, width, heads, kv_heads):
        super().__init__()
        self.heads, self.kv_heads, self.each = heads, kv_heads, width // heads
        self.qkv = nn.Linear(width, (heads + 2 * kv_heads) * self.each, bias=False)
        self.proj = nn.Linear(width, width, bias=False)

    def forward(self, x, angle):
        q, k, v = self.qkv(x).unflatten(-1, (-1, self.each)).transpose(1, 2).split([self.heads, self.kv_heads, self.kv_heads], 1)
        q, k = turn(q, angle), turn(k, angle)
        share = self.heads // self.kv_heads
        heads = [(q[:, n] @ k[:, n // share].transpose(-1, -2) / math.sqrt(self.each)).softmax(-1) @ v[:, n // share]
                 for n in range(self.heads)]
        return self.proj(torch.cat(heads, -1))


class GroupedBlock(nn.Module):
    def __init__(self, width, heads, kv_heads, hidden):
        super().__init__()
        self.norm1, self.norm2 = RmsNorm(width), RmsNorm(width)
        self.attn, self.mlp = GroupedAttention(width, heads, kv_heads), SwiGlu(width, hidden)
        for layer in (self.mlp.fc1_g, self.mlp.fc1_x, self.mlp.fc2):
            layer.bias = None

    def forward(self, x, angle):
        x = x + self.attn(self.norm1(x), angle)
        return x + self.mlp(self.norm2(x))


class LargeMae(nn.Module):
    def __init__(self, sides, patch, rope, thetas, prefix):
        super().__init__()
        width, heads, kv_heads, decoder_width, decoder_heads = 48, 4, 2, 24, 2
        self.patch, self.prefix, self.grid = patch, prefix, [side // patch for side in sides]
        axes = len(sides)
        self.patch_embed = nn.Module()
        self.patch_embed.proj = (nn.Conv2d if axes == 2 else nn.Conv3d)(1, width, patch, patch, bias=False)
        if prefix:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList([GroupedBlock(width, heads, kv_heads, 40) for _ in range(2)])
        self.norm = RmsNorm(width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        self.decoder_embed = nn.Linear(width, decoder_width, bias=False)
        self.decoder_blocks = nn.ModuleList(
            [GroupedBlock(decoder_width, decoder_heads, decoder_heads, 3 * decoder_width) for _ in range(2)])
        self.decoder_norm = RmsNorm(decoder_width)
        self.decoder_pred = nn.Linear(decoder_width, patch ** axes, bias=False)
        still = lambda table: torch.cat([torch.zeros(prefix, table.shape[1]).double(), table]).float()
        self.angles = still(angles(self.grid, width // heads // 2, rope, thetas[0]))
        self.decoder_angles = still(angles(self.grid, decoder_width // decoder_heads // 2, rope, thetas[1]))

    def forward(self, image, noise, mask_ratio):
        p, prefix = self.patch, self.prefix
        tokens = self.patch_embed.proj(image).flatten(2).transpose(1, 2)
        count, kept = tokens.shape[1], math.floor(tokens.shape[1] * (1 - mask_ratio))
        order = noise.argsort(1)
        x = torch.stack([row[ids[:kept]] for row, ids in zip(tokens, order)])
        if prefix:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        rows = torch.cat([torch.zeros(len(x), prefix).long(), order[:, :kept] + prefix], 1)
        for block in self.blocks:
            x = block(x, self.angles[rows][:, None])
        x = self.decoder_embed(self.norm(x))
        mask = torch.ones_like(noise)
        full = []
        for b in range(len(x)):
            mask[b, order[b, :kept]] = 0
            row = self.mask_token[0].expand(count, -1).clone()
            row[order[b, :kept]] = x[b, prefix:]
            full.append(torch.cat([x[b, :prefix], row]))
        x = torch.stack(full)
        for block in self.decoder_blocks:
            x = block(x, self.decoder_angles[None, None])
        prediction = self.decoder_pred(self.decoder_norm(x))[:, prefix:]
        target = image
        for axis in range(len(self.grid)):
            target = target.unfold(2 + axis, p, p)
        target = target.flatten(2, 1 + len(self.grid)).flatten(3)[:, 0]
        return prediction, mask, ((prediction - target).square().mean(-1) * mask).sum() / mask.sum()


def check_large(title, sides, patch, rope, mask_ratio, prefix=0, attention="sdpa", precision="fp32", allowed=common.ALLOWED):
    peer = LargeMae(sides, patch, rope, (10000.0, 100.0), prefix)
    common.scramble(peer)
    image = torch.randn(2, 1, *sides, requires_grad=True)
    noise = torch.rand(2, math.prod(s // patch for s in sides))
    prediction, mask, loss = peer(image, noise, mask_ratio)
    expected = common.with_gradients({"output": prediction, "mask": mask}, loss, peer.named_parameters(), image)
    model = {"kind": "mae", "image_size": list(sides), "patch_size": patch, "in_channels": 1, "embed_dim": 48, "depth": 2,
             "num_heads": 4, "num_kv_heads": 2, "qkv_bias": "false", "proj_bias": "false", "patch_bias": "false",
             "norm": "rmsnorm", "mlp": "swiglu", "mlp_hidden_dim": 40, "pos_embed": "none", "rope": rope,
             "rope_theta": 10000.0, "decoder_rope_theta": 100.0, "class_token": "true" if prefix else "false",
             "decoder_embed_dim": 24, "decoder_depth": 2, "decoder_num_heads": 2, "decoder_mlp_ratio": 3,
             "mask_ratio": mask_ratio, "loss": "masked_mse"}
    mine = common.forward(common.folder(), model, peer.state_dict(), {"image": image, "mask_noise": noise},
                          f"train.attention={attention}", f"train.precision={precision}")
    common.compare(f"mae, {title}, {rope}, mask {mask_ratio}, {attention}, {precision}", mine, expected, allowed)


for attention in ("sdpa", "plain"):
    check_large("3-D, grouped keys, no biases", (16, 24, 32), 8, "raster", 0.75, attention=attention)
    check_large("3-D, grouped keys, no biases", (16, 24, 32), 8, "axial", 0.75, attention=attention)
check_large("2-D, grouped keys, class token", (32, 48), 8, "axial", 0.75, prefix=1)
check_large("3-D, grouped keys", (16, 32, 32), 4, "raster", 0.95)
check_large("3-D, grouped keys", (16, 32, 32), 4, "raster", 0.01)
# bf16 keeps 8 bits: 2^-9 a rounding, some dozens of them on the way to a gradient.
check_large("3-D, grouped keys", (16, 24, 32), 8, "raster", 0.75, precision="bf16", allowed=6e-2)

"""vitrail's MAE, 2-D and 3-D, against the formulas of He et al. 2022 (arXiv:2111.06377) written out in PyTorch."""
import math

import torch
from torch import nn
from torch.nn import functional as F

import common


def sincos(positions, width):
    """[sin(t w_0), sin(t w_1), ..., cos(t w_0), ...] with w_j = 10000^(-2j / width)."""
    rates = 10000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = positions.double()[:, None] * rates[None]
    return torch.cat([angles.sin(), angles.cos()], 1)


def table(grid, width):
    """Rows in raster order; 2-D: the column's code first, then the row's; 3-D: by axis. A zero row for the class token."""
    axes = torch.meshgrid(*[torch.arange(side) for side in grid], indexing="ij")
    order = (1, 0) if len(grid) == 2 else (0, 1, 2)
    rows = torch.cat([sincos(axes[axis].flatten(), width // len(grid)) for axis in order], 1)
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), rows])[None].float()


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1)]
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp = Attention(width, heads), Mlp(width, hidden)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, axes, channels, width, patch):
        super().__init__()
        self.proj = (nn.Conv2d if axes == 2 else nn.Conv3d)(channels, width, patch, patch)

    def forward(self, image):
        return self.proj(image).flatten(2).transpose(1, 2)


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

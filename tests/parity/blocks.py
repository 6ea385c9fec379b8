"""Parts of a vision transformer from PyTorch's own, with RMSNorm and SwiGLU written out."""
import math

import torch
from torch import nn
from torch.nn import functional as F


def sincos(positions, width):
    """[sin(t w_0), sin(t w_1), ..., cos(t w_0), ...] with w_j = 10000^(-2j / width)."""
    rates = 10000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = positions.double()[:, None] * rates[None]
    return torch.cat([angles.sin(), angles.cos()], 1)


class RmsNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * self.weight


class SwiGlu(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.fc1_g, self.fc1_x, self.fc2 = nn.Linear(width, hidden), nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        gate = self.fc1_g(x)
        return self.fc2(gate * torch.sigmoid(gate) * self.fc1_x(x))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1)]
        return self.proj(((q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width, heads, norm, mlp):
        super().__init__()
        self.norm1, self.norm2, self.attn, self.mlp = norm(width), norm(width), Attention(width, heads), mlp()

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Mlp(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class PatchEmbed(nn.Module):
    def __init__(self, axes, channels, width, patch):
        super().__init__()
        self.proj = (nn.Conv2d if axes == 2 else nn.Conv3d)(channels, width, patch, patch)

    def forward(self, image):
        return self.proj(image).flatten(2).transpose(1, 2)

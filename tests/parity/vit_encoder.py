"""The encoder of the dense models written from PyTorch's parts: patches, positions, pre-norm blocks, final norm."""
from torch import nn
import torch

from blocks import Block, Mlp


class Encoder(nn.Module):
    """Returns the last tokens, normalised, and those after every block."""

    def __init__(self, sides, patch, channels, width, depth, heads, hidden):
        super().__init__()
        self.grid = [side // patch for side in sides]
        count = 1
        for side in self.grid:
            count *= side
        self.pos_embed = nn.Parameter(torch.randn(1, count, width) * 0.5)
        self.patch_embed = nn.Module()
        self.patch_embed.proj = (nn.Conv2d if len(sides) == 2 else nn.Conv3d)(channels, width, patch, patch)
        self.blocks = nn.ModuleList([Block(width, heads, lambda w: nn.LayerNorm(w, eps=1e-6), lambda: Mlp(width, hidden))
                                     for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def encode(self, image):
        x = self.patch_embed.proj(image).flatten(2).transpose(1, 2) + self.pos_embed
        states = []
        for block in self.blocks:
            x = block(x)
            states.append(x)
        return self.norm(x), states

    def as_map(self, x):
        return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], *self.grid)

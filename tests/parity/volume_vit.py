"""vitrail's ViT on volumes against a small PyTorch model with nn.Conv3d; label smoothing; dropout switched off in evaluation."""
import torch
from torch import nn
from torch.nn import functional as F

import common
from blocks import Block, RmsNorm, SwiGlu


class Net(nn.Module):
    def __init__(self, sides, patch, channels, width, depth, heads, classes):
        super().__init__()
        tokens = 1 + (sides[0] // patch) * (sides[1] // patch) * (sides[2] // patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv3d(channels, width, patch, patch, bias=False)
        self.blocks = nn.ModuleList([Block(width, heads, RmsNorm, lambda: SwiGlu(width, 40)) for _ in range(depth)])
        self.norm = RmsNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, volume):
        x = self.patch_embed.proj(volume).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


peer = Net((8, 12, 16), 4, 2, 48, 3, 4, 5)
common.scramble(peer)
image, label = torch.randn(3, 2, 8, 12, 16, requires_grad=True), torch.tensor([0, 4, 2])
output = peer(image)
loss = F.cross_entropy(output, label, label_smoothing=0.1)
expected = common.with_gradients({"output": output}, loss, peer.named_parameters(), image)
model = {"image_size": [8, 12, 16], "patch_size": 4, "in_channels": 2, "embed_dim": 48, "depth": 3, "num_heads": 4,
         "num_classes": 5, "norm": "rmsnorm", "mlp": "swiglu", "mlp_hidden_dim": 40, "patch_bias": "false",
         "label_smoothing": 0.1, "drop_path_rate": 0.5, "proj_drop_rate": 0.5, "attn_drop_rate": 0.5, "drop_rate": 0.5}
for attention in ("sdpa", "plain"):
    mine = common.forward(common.folder(), model, peer.state_dict(), {"image": image, "label": label},
                          f"train.attention={attention}")
    common.compare(f"3-D vit, RMSNorm, SwiGLU, {attention}", mine, expected)

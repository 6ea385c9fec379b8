"""vitrail's SAP against a transposed convolution and a convolution behind an encoder of PyTorch's parts: outputs, Dice +
cross-entropy loss and every gradient; the peer runs in fp64."""
import torch
from torch import nn
from torch.nn import functional as F

import common
from vit_encoder import Encoder

CLASSES, CHANNELS, WIDTH, HEADS, HIDDEN, NECK = 3, 2, 48, 4, 96, 32
# One rounding of bf16 is 2e-3 relative, and some twenty lie one behind the other. Worst seen: output 6.0e-3, gradient 1.3e-2.
BF16_OUTPUT, BF16_GRADIENT = 3e-2, 6e-2


class Net(Encoder):
    def __init__(self, sides, patch):
        super().__init__(sides, patch, CHANNELS, WIDTH, 3, HEADS, HIDDEN)
        conv, up = (nn.Conv2d, nn.ConvTranspose2d) if len(sides) == 2 else (nn.Conv3d, nn.ConvTranspose3d)
        self.neck, self.head = up(WIDTH, NECK, patch, patch, bias=False), conv(NECK, CLASSES, 1)

    def forward(self, image):
        return self.head(self.neck(self.as_map(self.encode(image)[0])))


def dice_ce(logits, label):
    """Background included, squares in the denominator; no smoothing above, 1e-6 below."""
    p, truth = logits.softmax(1).flatten(2), F.one_hot(label, CLASSES).movedim(-1, 1).flatten(2)
    dice = 1 - 2 * (p * truth).sum(2) / (p.square().sum(2) + truth.sum(2) + 1e-6)
    return dice.mean() + F.cross_entropy(logits, label)


def check(sides, patch, batch, attention, bf16=False):
    peer = Net(sides, patch)
    common.scramble(peer)
    weights = {name: value.clone() for name, value in peer.state_dict().items()}
    image, label = torch.randn(batch, CHANNELS, *sides).double().requires_grad_(True), torch.randint(0, CLASSES, (batch, *sides))
    peer.double()
    output = peer(image)
    expected = common.with_gradients({"output": output}, dice_ce(output, label), peer.named_parameters(), image)
    model = {"kind": "sap", "image_size": list(sides), "patch_size": patch, "in_channels": CHANNELS, "num_classes": CLASSES,
             "embed_dim": WIDTH, "depth": 3, "num_heads": HEADS, "mlp_ratio": HIDDEN / WIDTH, "class_token": "false",
             "decoder_embed_dim": NECK, "loss": "dice_ce"}
    options = [f"train.attention={attention}"] + (["train.precision=bf16"] if bf16 else [])
    mine = common.forward(common.folder(), model, weights, {"image": image.float(), "label": label}, *options)
    if not bf16:
        return common.compare(f"SAP {len(sides)}-D, patch {patch}, batch {batch}, {attention}", mine, expected)
    far = {name: common.relative(mine[name], expected[name]) for name in expected}
    gradient = max(value for name, value in far.items() if name.startswith("grad/"))
    print(f"SAP bf16: output {far['output']:.2e} (allowed {BF16_OUTPUT:.0e}), worst gradient {gradient:.2e} "
          f"(allowed {BF16_GRADIENT:.0e})")
    assert far["output"] <= BF16_OUTPUT and gradient <= BF16_GRADIENT


for attention in ("sdpa", "plain"):
    check((32, 48), 8, 2, attention)
    check((8, 12, 16), 4, 2, attention)
check((12, 6), 3, 1, "sdpa")
check((16, 16, 32), 16, 1, "sdpa")
check((8, 12, 16), 4, 2, "sdpa", bf16=True)

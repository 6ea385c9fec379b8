"""vitrail's UNETR against MONAI's at patch 16, and against plain PyTorch for what MONAI lacks: other patch sizes, no skips,
the linear decoder. Outputs, taps, Dice + cross-entropy loss and every gradient; the peers run in fp64.

The leaky ReLU's slope jumps at zero, so an element that rounding carries over it changes gradients by far more than rounding
does. Images are drawn until no such element lies nearer to zero than what rounding moves."""
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNETR
from torch import nn
from torch.nn import functional as F

import common
from vit_encoder import Encoder

CLASSES, CHANNELS, WIDTH, HEADS, HIDDEN, FEATURES = 3, 2, 48, 4, 96, 4
LOSS = DiceCELoss(softmax=True, to_onehot_y=True, squared_pred=True, smooth_nr=0, smooth_dr=1e-6, include_background=True)
# bf16 keeps 8 bits, so one rounding is 2e-3 relative; some thirty lie one behind the other in the forward pass and twice that in
# a gradient, and some elements cross the kink of a leaky ReLU. The gradient is bounded as one vector:
# that of a single bias is a sum of terms which nearly cancel (one bias alone: 3.0e-1). Worst seen: output 1.7e-2, gradient 1.0e-1.
BF16_OUTPUT, BF16_GRADIENT = 4e-2, 2e-1


NEAREST = 2e-6  # elements are near one behind a norm; fp32 moves them by some 3e-7


def inputs(batch, sides, peer):
    """Image and label, both far from the peer's kinks; the peer becomes fp64."""
    peer.double()
    nearest = []
    hooks = [module.register_forward_pre_hook(lambda m, x: nearest.append(x[0].abs().min().item()))
             for module in peer.modules() if isinstance(module, nn.LeakyReLU)]
    for _ in range(50):
        image = torch.randn(batch, CHANNELS, *sides).double()
        nearest.clear()
        with torch.no_grad():
            peer(image)
        if not hooks or min(nearest) > NEAREST:
            break
    else:
        raise AssertionError("no image is far from the kinks")
    for hook in hooks:
        hook.remove()
    return image.requires_grad_(True), torch.randint(0, CLASSES, (batch, *sides))


def given(image, label):
    return {"image": image.float(), "label": label}


def single(weights):
    return {name: value.float() for name, value in weights.items()}


def options(sides, patch, depth, **more):
    return {"kind": "unetr", "image_size": list(sides), "patch_size": patch, "in_channels": CHANNELS, "num_classes": CLASSES,
            "embed_dim": WIDTH, "depth": depth, "num_heads": HEADS, "mlp_ratio": HIDDEN / WIDTH, "class_token": "false",
            "feature_size": FEATURES, "decoder": "conv", "loss": "dice_ce", **more}


# MONAI's names of the encoder. Behind it the names are the same.
TO_OURS = (("vit.patch_embedding.patch_embeddings.", "patch_embed.proj."), ("vit.patch_embedding.position_embeddings", "pos_embed"),
           ("vit.", ""), (".attn.out_proj.", ".attn.proj."), (".mlp.linear1.", ".mlp.fc1."), (".mlp.linear2.", ".mlp.fc2."))

UNUSED = ".norm_cross_attn."  # MONAI's blocks hold it whether they attend to something else or not


def ours(name):
    for theirs, mine in TO_OURS:
        name = name.replace(theirs, mine)
    return name


def check_monai(sides, batch, attention, qkv_bias):
    peer = UNETR(CHANNELS, CLASSES, sides, feature_size=FEATURES, hidden_size=WIDTH, mlp_dim=HIDDEN, num_heads=HEADS,
                 norm_name="instance", spatial_dims=len(sides), qkv_bias=qkv_bias)
    common.scramble(peer)
    image, label = inputs(batch, sides, peer)
    found = {}
    for tap, module in (("enc1", peer.encoder1), ("enc2", peer.encoder2), ("enc3", peer.encoder3), ("enc4", peer.encoder4),
                        ("dec5", peer.decoder5), ("dec3", peer.decoder3), ("dec2", peer.decoder2)):
        module.register_forward_hook(lambda m, a, out, tap=tap: found.__setitem__(f"tap/{tap}", out))
    output = peer(image)
    loss = LOSS(output, label.unsqueeze(1))
    named = [(ours(name), parameter) for name, parameter in peer.named_parameters() if UNUSED not in name]
    expected = common.with_gradients({"output": output, **found}, loss, named, image)
    weights = {ours(name): value for name, value in peer.state_dict().items() if UNUSED not in name}
    model = options(sides, 16, 12, norm_eps=1e-5, qkv_bias=str(qkv_bias).lower())
    mine = common.forward(common.folder(), model, single(weights), given(image, label), f"train.attention={attention}",
                          taps=[name[4:] for name in found])
    common.compare(f"MONAI UNETR {len(sides)}-D, batch {batch}, {attention}", mine, expected)


class Residual(nn.Module):
    def __init__(self, conv, inside, outside):
        super().__init__()
        for place, (a, b, edge) in enumerate(((inside, outside, 3), (outside, outside, 3), (inside, outside, 1)), 1):
            if place < 3 or inside != outside:
                wrapper = nn.Module()
                wrapper.conv = conv(a, b, edge, padding=edge // 2, bias=False)
                setattr(self, f"conv{place}", wrapper)
        self.leaky = nn.LeakyReLU(0.01)

    @staticmethod
    def norm(x):
        places = tuple(range(2, x.dim()))
        mean = x.mean(places, keepdim=True)
        return (x - mean) / ((x - mean).square().mean(places, keepdim=True) + 1e-5).sqrt()

    def forward(self, x):
        y = self.norm(self.conv2.conv(self.leaky(self.norm(self.conv1.conv(x)))))
        return self.leaky(y + (self.norm(self.conv3.conv(x)) if hasattr(self, "conv3") else x))


def named(**children):
    """A module with these children, whatever their names."""
    module = nn.Module()
    for name, child in children.items():
        module.add_module(name, child)
    return module


class Net(Encoder):
    def __init__(self, sides, patch, depth, form):
        super().__init__(sides, patch, CHANNELS, WIDTH, depth, HEADS, HIDDEN)
        self.sides, self.patch, self.form, self.step = sides, patch, form, depth // 4
        conv, up = (nn.Conv2d, nn.ConvTranspose2d) if len(sides) == 2 else (nn.Conv3d, nn.ConvTranspose3d)
        if form == "linear":
            self.head = nn.Linear(WIDTH, CLASSES)
            return
        raise_ = lambda a, b, edge=2: named(conv=up(a, b, edge, edge, bias=False))
        f = FEATURES
        widths = {5: (WIDTH, 8 * f), 4: (8 * f, 4 * f), 3: (4 * f, 2 * f), 2: (2 * f, f)}
        for place, (a, b) in widths.items():
            last = 1 if form == "skips" and place == 2 and patch != 16 else 2
            decoder = named(transp_conv=raise_(a, b, last))
            if form == "skips":
                decoder.conv_block = Residual(conv, 2 * b, b)
            self.add_module(f"decoder{place}", decoder)
        if form == "skips":
            self.encoder1 = named(layer=Residual(conv, CHANNELS, f))
            for place, more in ((2, 2), (3, 1), (4, 0)):
                width = widths[place + 1][1]
                blocks = nn.ModuleList([nn.Sequential(raise_(width, width), Residual(conv, width, width)) for _ in range(more)])
                self.add_module(f"encoder{place}", named(transp_conv_init=raise_(WIDTH, width), blocks=blocks))
        self.out = named(conv=named(conv=conv(f, CLASSES, 1)))

    def resize(self, x):
        return F.interpolate(x, self.sides, mode="bilinear" if len(self.sides) == 2 else "trilinear", align_corners=True)

    def encoder(self, place, x):
        block = getattr(self, f"encoder{place}")
        x = block.transp_conv_init.conv(x)
        for up, residual in block.blocks:
            x = residual(up.conv(x))
        return x

    def decoder(self, place, x, skip):
        block = getattr(self, f"decoder{place}")
        x = block.transp_conv.conv(x)
        return x if skip is None else block.conv_block(torch.cat([x, skip], 1))

    def forward(self, image):
        x, states = self.encode(image)
        if self.form == "linear":
            return self.resize(self.as_map(self.head(x)))
        skips = dict.fromkeys((5, 4, 3, 2))
        if self.form == "skips":
            states = [self.as_map(states[i * self.step]) for i in (1, 2, 3)]
            skips = {5: self.encoder(4, states[2]), 4: self.encoder(3, states[1]), 3: self.encoder(2, states[0]),
                     2: self.encoder1.layer(image)}
        x = self.as_map(x)
        for place in (5, 4, 3):
            x = self.decoder(place, x, skips[place])
        if self.form == "skips" and self.patch != 16:
            x = self.resize(x)
        x = self.decoder(2, x, skips[2])
        if self.form == "conv" and self.patch != 16:
            x = self.resize(x)
        return self.out.conv.conv(x)


def plain_case(sides, patch, depth, form, batch):
    peer = Net(sides, patch, depth, form)
    common.scramble(peer)
    image, label = inputs(batch, sides, peer)
    output = peer(image)
    loss = LOSS(output, label.unsqueeze(1))
    expected = common.with_gradients({"output": output}, loss, peer.named_parameters(), image)
    model = options(sides, patch, depth, skips=str(form == "skips").lower(), decoder="linear" if form == "linear" else "conv")
    return model, single(peer.state_dict()), given(image, label), expected


def check_plain(sides, patch, depth, form, batch=2, attention="sdpa"):
    model, weights, batch_, expected = plain_case(sides, patch, depth, form, batch)
    mine = common.forward(common.folder(), model, weights, batch_, f"train.attention={attention}")
    common.compare(f"UNETR {len(sides)}-D, patch {patch}, depth {depth}, {form}", mine, expected)


def check_bf16():
    model, weights, batch, expected = plain_case((16, 24, 16), 8, 4, "skips", 2)
    mine = common.forward(common.folder(), model, weights, batch, "train.precision=bf16")
    output = common.relative(mine["output"], expected["output"])
    names = [name for name in expected if name.startswith("grad/")]
    gradient = common.relative(*(torch.cat([tensors[name].double().flatten() for name in names]) for tensors in (mine, expected)))
    print(f"UNETR bf16: output {output:.2e} (allowed {BF16_OUTPUT:.0e}), gradient {gradient:.2e} (allowed {BF16_GRADIENT:.0e})")
    assert output <= BF16_OUTPUT and gradient <= BF16_GRADIENT


for attention in ("sdpa", "plain"):
    check_monai((32, 48), 2, attention, qkv_bias=False)
    check_monai((32, 16, 48), 1, attention, qkv_bias=True)
for form in ("skips", "conv", "linear"):
    check_plain((16, 24), 8, 5, form)
    check_plain((12, 18), 6, 4, form)
    check_plain((32, 64), 32, 4, form, batch=1)
    check_plain((8, 12, 16), 4, 8, form)
    check_plain((16, 8, 24), 8, 4, form, batch=1)
check_plain((8, 4), 2, 4, "skips")
check_plain((6, 12, 9), 3, 4, "skips")
for form in ("conv", "linear"):
    check_plain((16, 32), 16, 4, form)
    check_plain((16, 32, 16), 16, 1 if form == "linear" else 2, form)
check_bf16()

"""One tiny model of every kind from the independent references, for whole training runs and for golden files.

A case knows the recipe's model section, the peer, and how its parameters are called here; `run` takes inputs named as in
`vitrail forward` and returns results and loss.
"""
import ast
import pathlib
import types

import torch
from monai.networks.nets import UNETR
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F

import common

HERE = pathlib.Path(__file__).parent


def definitions(script, **changes):
    """Classes, functions and constants of a parity script, without running its checks; `changes` replaces text."""
    text = (HERE / f"{script}.py").read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, f"{script}.py must hold '{old}' once"
        text = text.replace(old, new)
    kept = []
    for node in ast.parse(text).body:
        constant = isinstance(node, ast.Assign) and all(
            name.id.isupper() for target in node.targets for name in getattr(target, "elts", [target]))
        if constant or isinstance(node, (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef)):
            kept.append(node)
    module = types.ModuleType(script)
    exec(compile(ast.Module(kept, []), f"{script}.py", "exec"), module.__dict__)
    return module


mae = definitions("mae", **{"width, heads, kv_heads, decoder_width, decoder_heads = 48, 4, 2, 24, 2":
                            "width, heads, kv_heads, decoder_width, decoder_heads = 16, 4, 2, 8, 2"})
diffusion = definitions("diffusion", **{"width, decoder_width = 96, 48": "width, decoder_width = 24, 12"})
unetr = definitions("unetr", **{"= 3, 2, 48, 4, 96, 4": "= 3, 2, 12, 2, 24, 1"})
sap = definitions("sap", **{"= 3, 2, 48, 4, 96, 32": "= 3, 2, 12, 2, 24, 6"})
variables = definitions("variables", **{"= 24, 3, 4, (12, 8), 5": "= 12, 3, 4, (12, 8), 5"})
volume_vit = definitions("volume_vit")


NEAREST = 2e-6  # elements are near one behind a norm; fp32 moves them by some 1e-7


def nearest_kink(peer, found):
    """Appends to `found` how near the input of every leaky ReLU comes to zero."""
    for module in peer.modules():
        if isinstance(module, torch.nn.LeakyReLU):
            module.register_forward_pre_hook(lambda m, x: found.append(x[0].abs().min().item()))


class Case:
    """`draws`: what the model draws in training, out of mask_noise, timestep, noise, hidden (classes), branches (dropped)."""
    draws, double, golden, name = (), True, True, staticmethod(lambda name: name)

    def __init__(self, title, model, peer, **more):
        self.title, self.model, self.peer = title, {key: self.word(value) for key, value in model.items()}, peer
        for key, value in more.items():
            assert hasattr(Case, key)
            setattr(self, key, value)
        common.scramble(peer, 0.1)

    @staticmethod
    def word(value):
        return str(value).lower() if isinstance(value, bool) else list(value) if isinstance(value, tuple) else value

    def parameters(self):
        """What is trained, by the names used here."""
        return {self.name(name): parameter for name, parameter in self.peer.named_parameters()
                if parameter.requires_grad and unetr.UNUSED not in name}

    def weights(self):
        return {name: parameter.detach().float().clone() for name, parameter in self.parameters().items()}


class Classifier(Case):
    def run(self, inputs):
        output = self.peer(inputs["image"])
        return {"output": output}, F.cross_entropy(output, inputs["label"])


class Branch(nn.Module):
    """Times the factor of each sample."""
    def forward(self, x):
        return x * self.factors[:, None, None]


class Dropping(Classifier):
    """Takes `branches` [B, 2 depth], uniform: the attention branch and the MLP branch of every block."""
    draws = ("branches",)

    def run(self, inputs):
        blocks = self.peer.blocks
        for i, block in enumerate(blocks):
            rate = self.model["drop_path_rate"] * i / (len(blocks) - 1)
            for branch, module in enumerate((block.drop_path1, block.drop_path2)):
                module.factors = (inputs["branches"][:, 2 * i + branch] >= rate) / (1 - rate)
        return super().run(inputs)


class OfVariables(Case):
    def run(self, inputs):
        ids = list(range(self.peer.known))
        return self.peer.run(inputs["image"], ids, label=inputs["label"])


class Segmenter(Case):
    def run(self, inputs):
        output = self.peer(inputs["image"])
        return {"output": output}, unetr.LOSS(output, inputs["label"].unsqueeze(1))


class Autoencoder(Case):
    draws = ("mask_noise",)

    def run(self, inputs):
        arguments = (self.model["mask_ratio"],) if isinstance(self.peer, mae.LargeMae) else ()
        prediction, mask, loss = self.peer(inputs["image"], inputs["mask_noise"], *arguments)
        return {"output": prediction, "mask": mask}, loss


class Denoiser(Case):
    draws, double = ("timestep", "noise"), False  # the peer's time embedding is fp32

    def run(self, inputs):
        predicted, loss = self.peer(inputs["image"], inputs["timestep"], inputs["noise"], inputs.get("label"))
        return {"output": predicted}, loss


def vit_2d(drop_path=0.0):
    model = {"kind": "vit", "image_size": (16, 24), "patch_size": 8, "in_channels": 3, "embed_dim": 16, "depth": 2,
             "num_heads": 2, "mlp_ratio": 2, "num_classes": 5}
    peer = VisionTransformer(img_size=(16, 24), patch_size=8, in_chans=3, embed_dim=16, depth=2, num_heads=2, mlp_ratio=2,
                             num_classes=5)
    if drop_path == 0:
        return Classifier("vit 2-D", model, peer)
    for block in peer.blocks:
        block.drop_path1, block.drop_path2 = Branch(), Branch()
    return Dropping("vit 2-D, drop path", {**model, "drop_path_rate": drop_path}, peer, golden=False)


def vit_3d():
    peer = volume_vit.Net((8, 8, 12), 4, 2, 16, 2, 4, 5)
    return Classifier("vit 3-D", {"kind": "vit", "image_size": (8, 8, 12), "patch_size": 4, "in_channels": 2, "embed_dim": 16,
                                  "depth": 2, "num_heads": 4, "num_classes": 5, "norm": "rmsnorm", "mlp": "swiglu",
                                  "mlp_hidden_dim": 40, "patch_bias": False}, peer)


def vit_variables():
    peer = variables.Net("vit", variables=3)
    return OfVariables("vit 2-D, variables", variables.recipe_of(peer, {}), peer)


def mae_plain(sides, channels, width, norm_pix):
    peer = mae.Mae(sides, 4, channels, width, 2, 2, 12, 1, 2, 0.75, norm_pix, False)
    return Autoencoder(f"mae {len(sides)}-D", {
        "kind": "mae", "image_size": sides, "patch_size": 4, "in_channels": channels, "embed_dim": width, "depth": 2,
        "num_heads": 2, "decoder_embed_dim": 12, "decoder_depth": 1, "decoder_num_heads": 2, "mask_ratio": 0.75,
        "norm_pix_loss": norm_pix, "loss": "masked_mse"}, peer)


def mae_large():
    sides = (8, 12, 16)
    peer = mae.LargeMae(sides, 4, "raster", (10000.0, 100.0), 0)
    return Autoencoder("mae 3-D, rope, grouped keys, no biases", {
        "kind": "mae", "image_size": sides, "patch_size": 4, "in_channels": 1, "embed_dim": 16, "depth": 2, "num_heads": 4,
        "num_kv_heads": 2, "qkv_bias": False, "proj_bias": False, "patch_bias": False, "norm": "rmsnorm", "mlp": "swiglu",
        "mlp_hidden_dim": 40, "pos_embed": "none", "rope": "raster", "rope_theta": 10000.0, "decoder_rope_theta": 100.0,
        "class_token": False, "decoder_embed_dim": 8, "decoder_depth": 2, "decoder_num_heads": 2, "decoder_mlp_ratio": 3,
        "mask_ratio": 0.75, "loss": "masked_mse"}, peer)


def unetr_monai(sides, golden):
    peer = UNETR(unetr.CHANNELS, unetr.CLASSES, sides, feature_size=unetr.FEATURES, hidden_size=unetr.WIDTH,
                 mlp_dim=unetr.HIDDEN, num_heads=unetr.HEADS, norm_name="instance", spatial_dims=len(sides), qkv_bias=True)
    return Segmenter(f"unetr {len(sides)}-D, MONAI", unetr.options(sides, 16, 12, norm_eps=1e-5), peer, name=unetr.ours,
                     golden=golden)


def unetr_plain(sides, patch):
    peer = unetr.Net(sides, patch, 4, "skips")
    return Segmenter(f"unetr {len(sides)}-D, patch {patch}", unetr.options(sides, patch, 4), peer)


def sap_(sides):
    peer = sap.Net(sides, 4)
    return Segmenter(f"sap {len(sides)}-D", {
        "kind": "sap", "image_size": sides, "patch_size": 4, "in_channels": sap.CHANNELS, "num_classes": sap.CLASSES,
        "embed_dim": sap.WIDTH, "depth": 3, "num_heads": sap.HEADS, "mlp_ratio": sap.HIDDEN / sap.WIDTH,
        "class_token": False, "decoder_embed_dim": sap.NECK, "loss": "dice_ce"}, peer)


def diffusion_(sides, channels, classes, conditioning, linear, schedule):
    peer = diffusion.Diffusion(sides, 4, channels, classes, conditioning, linear, schedule, False)
    model = {"kind": "diffusion", "image_size": sides, "patch_size": 4, "in_channels": channels, "num_classes": classes,
             "embed_dim": 24, "depth": 2, "num_heads": 4, "decoder": "linear" if linear else "transformer",
             "decoder_embed_dim": 12, "decoder_depth": 2, "decoder_num_heads": 4, "num_timesteps": diffusion.T,
             "beta_schedule": schedule, "time_conditioning": conditioning, "pos_embed": "sincos", "loss": "mse"}
    title = f"diffusion {len(sides)}-D, {schedule}, time in {conditioning}" + (", classes" if classes else "")
    if classes:
        model["class_drop_rate"] = 0.3
    return Denoiser(title, model, peer, draws=Denoiser.draws + (("hidden",) if classes else ()))


# By the name of the golden file.
MAKERS = {
    "vit_2d": lambda: vit_2d(),
    "vit_2d_drop_path": lambda: vit_2d(0.5),
    "vit_3d": lambda: vit_3d(),
    "vit_variables": lambda: vit_variables(),
    "mae_2d": lambda: mae_plain((16, 24), 3, 16, False),
    "mae_3d": lambda: mae_plain((8, 8, 12), 1, 24, True),
    "mae_rope": lambda: mae_large(),
    "unetr_2d": lambda: unetr_monai((16, 32), True),
    "unetr_3d_monai": lambda: unetr_monai((16, 16, 32), False),
    "unetr_3d": lambda: unetr_plain((8, 8, 16), 8),
    "sap_2d": lambda: sap_((16, 12)),
    "sap_3d": lambda: sap_((8, 12, 8)),
    "diffusion_2d": lambda: diffusion_((8, 12), 2, 3, "block", False, "cosine"),
    "diffusion_3d": lambda: diffusion_((4, 8, 8), 1, 0, "input", True, "linear"),
}


def cases(wanted=()):
    """Name and case, one at a time; every case has its own start of the random numbers."""
    for key, make in MAKERS.items():
        if not wanted or key in wanted:
            torch.manual_seed(0)
            yield key, make()

"""vitrail's ViT against timm: outputs, taps, loss and every gradient; weights there and back."""
import filecmp
import os

import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import RmsNorm, SwiGLU
from timm.models.vision_transformer import VisionTransformer

import common

SIZES = {"embed_dim": 192, "depth": 3, "num_heads": 3, "image_size": "[64, 64]", "patch_size": 16, "num_classes": 10}
PEER = dict(img_size=64, patch_size=16, embed_dim=192, depth=3, num_heads=3, num_classes=10)

CASES = {
    "vit_tiny": ({}, {}),
    "qk_norm, LayerScale, no class token, average pool": (
        {"qk_norm": "true", "layer_scale": 0.3, "class_token": "false", "pool": "avg"},
        dict(qk_norm=True, init_values=0.3, class_token=False, global_pool="avg")),
    "4 registers": ({"register_tokens": 4}, dict(reg_tokens=4)),
    "class token, registers and average pool": (
        {"register_tokens": 2, "pool": "avg"}, dict(reg_tokens=2, global_pool="avg")),
    "RMSNorm, SwiGLU, no qkv bias": (
        {"norm": "rmsnorm", "mlp": "swiglu", "mlp_hidden_dim": 160, "qkv_bias": "false"},
        dict(norm_layer=RmsNorm, mlp_layer=SwiGLU, act_layer=torch.nn.SiLU, mlp_ratio=160 / 192, qkv_bias=False)),
    "no positions": ({"pos_embed": "none"}, dict(pos_embed="none")),
    "attention pool": ({"pool": "attention"}, dict(global_pool="map")),
    "attention pool, registers, RMSNorm": (
        {"pool": "attention", "register_tokens": 2, "norm": "rmsnorm"},
        dict(global_pool="map", reg_tokens=2, norm_layer=RmsNorm)),
    "patch dropout, off in evaluation": ({"patch_drop_rate": 0.5}, dict(patch_drop_rate=0.5)),
    "no biases in blocks": ({"qkv_bias": "false", "proj_bias": "false"}, dict(qkv_bias=False, proj_bias=False)),
}


def peer_results(model, image, taps):
    found = {}
    hooks = [model.blocks[i].register_forward_hook(lambda m, a, out, i=i: found.__setitem__(f"tap/blocks.{i}", out))
             for i in range(len(model.blocks)) if f"blocks.{i}" in taps]
    output = model(image)
    for hook in hooks:
        hook.remove()
    return {"output": output, **found}


def check(title, ours, theirs, attention):
    where = common.folder()
    peer = VisionTransformer(**{**PEER, **theirs}).eval()
    common.scramble(peer)
    image, label = torch.randn(3, 3, 64, 64, requires_grad=True), torch.tensor([1, 7, 4])
    taps = ("blocks.0", "blocks.2")
    expected = peer_results(peer, image, taps)
    loss = torch.nn.functional.cross_entropy(expected["output"], label)
    expected = common.with_gradients(expected, loss, peer.named_parameters(), image)
    mine = common.forward(where, {**SIZES, **ours}, peer.state_dict(), {"image": image, "label": label},
                          f"train.attention={attention}", name_from="timm", taps=taps)
    common.compare(f"timm, {title}, {attention}", mine, expected)


def check_recompute():
    """The same bits with recompute and without."""
    where = common.folder()
    peer = VisionTransformer(**PEER)
    inputs = {"image": torch.randn(2, 3, 64, 64), "label": torch.tensor([1, 7])}
    results = [common.forward(where, SIZES, peer.state_dict(), inputs, f"train.recompute={word}") for word in ("none", "block")]
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    print(f"recompute: {len(results[0])} tensors equal bit for bit")


def check_round_trip():
    where = common.folder()
    names = [os.path.join(where, name + ".safetensors") for name in ("timm", "ours", "back")]
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=64, num_classes=10)
    common.scramble(model)
    save_file(model.state_dict(), names[0])
    common.run("weights", "import", names[0], "--from", "timm", "--output", names[1])
    common.run("weights", "export", names[1], "--to", "timm", "--output", names[2])
    first, back = load_file(names[0]), load_file(names[2])
    assert list(sorted(first)) == list(sorted(back))
    assert all(torch.equal(first[name].view(torch.uint8), back[name].view(torch.uint8)) for name in first)
    model.load_state_dict(back, strict=True)
    print(f"timm -> vitrail -> timm: {len(first)} tensors byte-equal; files equal: {filecmp.cmp(names[0], names[2], False)}")
    assert f"{len(first)} tensors equal, 0 differ" in common.run("weights", "diff", names[0], names[2])
    assert f"{len(first)} tensors" in common.run("weights", "inspect", names[0])


def check_wrong_shape():
    where = common.folder()
    names = [os.path.join(where, name) for name in ("w.safetensors", "in.safetensors", "out.safetensors")]
    save_file(VisionTransformer(**{**PEER, "num_classes": 12}).state_dict(), names[0])
    save_file({"image": torch.randn(1, 3, 64, 64)}, names[1])
    text = common.run("forward", common.recipe(where, SIZES), "--weights", names[0], "--input", names[1], "--output",
                      names[2], expect=4)
    assert "head.weight" in text and "[10, 192]" in text and "[12, 192]" in text, text
    assert len(text.strip().splitlines()) == 1, text
    print("weights of another shape:", text.strip())


for title, (ours, theirs) in CASES.items():
    for attention in ("sdpa", "plain"):
        check(title, ours, theirs, attention)
check_recompute()
check_round_trip()
check_wrong_shape()

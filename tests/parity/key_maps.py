"""Weights of other programs in vitrail: DINOv2 and MONAI live, torchtitan-mae and UCF-VIT by a plain writing of their
blocks under their names; back again byte-equal; and what `weights adapt` does against timm's own functions.

hugging_face.py has ViT and ViTMAE.
"""
import os

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import common


def there_and_back(title, tensors, scheme, *options):
    where = common.folder()
    files = [os.path.join(where, name) for name in ("theirs.safetensors", "ours.safetensors", "back.safetensors")]
    save_file({key: value.detach().clone().contiguous() for key, value in tensors.items()}, files[0])
    found = common.run("weights", "import", files[0], "--output", files[1], *options)
    assert f"names of {scheme} became" in found, found
    common.run("weights", "export", files[1], "--to", scheme, "--output", files[2], *options)
    theirs, back = load_file(files[0]), load_file(files[2])
    assert set(theirs) == set(back), f"{title}: names differ: {sorted(set(theirs) ^ set(back))[:6]}"
    assert all(torch.equal(theirs[name], back[name]) for name in theirs), f"{title}: values changed on the way"
    print(f"{title}: {len(theirs)} tensors, {scheme} -> vitrail -> {scheme} byte-equal")


def outputs(title, model, weights, inputs, expected, scheme):
    """The outputs and taps `expected`, from the other program's own file; its name is found by itself."""
    taps = tuple(name[4:] for name in expected if name.startswith("tap/"))
    mine = common.forward(common.folder(), model, weights, inputs, name_from="auto", taps=taps)
    common.compare(title, {name: mine[name] for name in expected}, {name: value.detach() for name, value in expected.items()})
    there_and_back(title, weights, scheme)


def dinov2():
    from transformers import (Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel)
    sizes = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, mlp_ratio=2, image_size=32, patch_size=8)
    ours = {"image_size": [32, 32], "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4, "layer_scale": 1.0,
            "num_classes": 48}
    for gated in (False, True):
        for registers in (0, 3):
            if registers:
                peer = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**sizes, num_register_tokens=registers, use_swiglu_ffn=gated))
            else:
                peer = Dinov2Model(Dinov2Config(**sizes, use_swiglu_ffn=gated))
            peer.eval()
            common.scramble(peer)
            image = torch.randn(2, 3, 32, 32)
            hidden = peer(image).last_hidden_state
            where = common.folder()
            peer.save_pretrained(where)
            weights = load_file(os.path.join(where, "model.safetensors"))
            mlp = {"mlp": "swiglu", "mlp_hidden_dim": 64} if gated else {"mlp_ratio": 2}
            # A head that returns the class token, so that `--backward` has a loss.
            head = {"classifier.weight": torch.eye(48), "classifier.bias": torch.zeros(48)}
            label = torch.tensor([1, 6])
            model = {**ours, **mlp, "register_tokens": registers, "norm_eps": 1e-6}
            title = f"transformers, DINOv2{', registers' if registers else ''}{', SwiGLU' if gated else ''}"
            for kind, names in (("hub names", weights), ("names in memory", peer.state_dict())):
                mine = common.forward(common.folder(), model, {**names, **head}, {"image": image, "label": label},
                                      name_from="auto", taps=("norm",))
                common.compare(f"{title}, {kind}", {"tap/norm": mine["tap/norm"], "output": mine["output"]},
                               {"tap/norm": hidden.detach(), "output": hidden[:, 0].detach()})
            there_and_back(title, weights, "hf")


def dinov3():
    from transformers import DINOv3ViTConfig, DINOv3ViTModel
    peer = DINOv3ViTModel(DINOv3ViTConfig(hidden_size=48, num_hidden_layers=1, num_attention_heads=4, intermediate_size=96,
                                          image_size=32, patch_size=8))
    where = common.folder()
    peer.save_pretrained(where)
    text = common.run("weights", "import", os.path.join(where, "model.safetensors"), "--output",
                      os.path.join(where, "ours.safetensors"), expect=4)
    assert "rotary" in text, text
    print("transformers, DINOv3: refused:", text.strip().splitlines()[-1])


def monai_vit():
    from monai.networks.nets import ViT
    for patch in ("conv", "perceptron"):
        for axes, channels in ((2, 3), (3, 1)):
            for head in (True, False):
                peer = ViT(channels, (16,) * axes, (4,) * axes, hidden_size=48, mlp_dim=96, num_layers=2, num_heads=4,
                           spatial_dims=axes, proj_type=patch, qkv_bias=head, classification=head, num_classes=5,
                           post_activation="none").eval()
                common.scramble(peer)
                image = torch.randn(2, channels, *(16,) * axes)
                model = {"image_size": [16] * axes, "patch_size": 4, "in_channels": channels, "embed_dim": 48, "depth": 2,
                         "num_heads": 4, "mlp_ratio": 2, "norm_eps": 1e-5, "qkv_bias": str(head).lower(), "num_classes": 5,
                         "class_token": str(head).lower(), "pool": "token" if head else "avg"}
                title = f"MONAI ViT, {axes}-D, {patch}{', classification' if head else ''}"
                weights, inputs = dict(peer.state_dict()), {"image": image, "label": torch.tensor([0, 3])}
                if head:
                    outputs(title, model, weights, inputs, {"output": peer(image)[0]}, "monai")
                    continue
                there_and_back(title, weights, "monai")
                # Without a head: its last hidden state, before the norm, which here is the head's (average pool).
                weights["classification_head.weight"], weights["classification_head.bias"] = torch.randn(5, 48), torch.zeros(5)
                tokens = peer(image)[1]
                pooled = peer.norm(tokens[-1].mean(1))
                weights["fc_norm.weight"], weights["fc_norm.bias"] = weights.pop("norm.weight"), weights.pop("norm.bias")
                mine = common.forward(common.folder(), model, weights, inputs, name_from="monai", taps=("blocks.1",))
                common.compare(title, {"tap/blocks.1": mine["tap/blocks.1"], "output": mine["output"]},
                               {"tap/blocks.1": tokens[-1].detach(),
                                "output": (pooled @ weights["classification_head.weight"].T).detach()})


def monai_unetr():
    """MONAI's own file, its prefix and all, in a model of kind unetr."""
    from monai.networks.nets import UNETR
    for axes in (2, 3):
        peer = UNETR(1, 3, (32,) * axes, feature_size=4, hidden_size=48, mlp_dim=96, num_heads=4, proj_type="conv",
                     norm_name="instance", spatial_dims=axes).eval()
        common.scramble(peer)
        image, label = torch.randn(2, 1, *(32,) * axes), torch.randint(0, 3, (2, *(32,) * axes))
        model = {"kind": "unetr", "image_size": [32] * axes, "patch_size": 16, "in_channels": 1, "embed_dim": 48, "depth": 12,
                 "num_heads": 4, "mlp_ratio": 2, "norm_eps": 1e-5, "qkv_bias": "false", "num_classes": 3, "class_token": "false",
                 "feature_size": 4, "decoder": "conv", "loss": "cross_entropy"}
        outputs(f"MONAI UNETR, {axes}-D", model, peer.state_dict(), {"image": image, "label": label}, {"output": peer(image)}, "monai")


def rms_norm(x, weight):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * weight


def llama_block(w, name, x, heads, theta, places):
    """eminorhan/torchtitan-mae's block written out, for tokens at `places` [B, K] of the raster: pairs of neighbouring
    channels are complex numbers, turned by place * theta^(-2k / E)."""
    B, K, D = x.shape
    E = D // heads
    y = rms_norm(x, w[name + "attention_norm.weight"])
    q, k, v = ((y @ w[f"{name}attention.{part}.weight"].T).view(B, K, -1, E) for part in ("wq", "wk", "wv"))
    angle = places[..., None].double() * theta ** (-torch.arange(0, E, 2).double() / E)
    turn = torch.polar(torch.ones_like(angle), angle)[:, :, None]
    q, k = (torch.view_as_real(torch.view_as_complex(t.double().reshape(B, K, -1, E // 2, 2)) * turn).flatten(-2).float()
            for t in (q, k))
    k, v = (t.repeat_interleave(heads // t.shape[2], dim=2) for t in (k, v))
    y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    x = x + y.transpose(1, 2).reshape(B, K, D) @ w[name + "attention.wo.weight"].T
    y = rms_norm(x, w[name + "ffn_norm.weight"])
    gate, value = (y @ w[f"{name}feed_forward.{part}.weight"].T for part in ("w1", "w3"))
    return x + (F.silu(gate) * value) @ w[name + "feed_forward.w2.weight"].T


def torchtitan_mae():
    D, heads, kv, hidden, width, P, side = 64, 4, 2, 96, 32, 4, 8
    generator = torch.Generator().manual_seed(3)
    random = lambda *shape: torch.randn(*shape, generator=generator) * 0.2
    w = {"encoder.patch_embedding.proj.weight": random(D, 1, P, P, P), "encoder.norm.weight": 1 + random(D),
         "decoder.embedding.weight": random(width, D), "decoder.mask_token": random(1, 1, width),
         "decoder.norm.weight": 1 + random(width), "decoder.output.weight": random(P**3, width)}
    for trunk, d, key_heads, inner in (("encoder", D, kv, hidden), ("decoder", width, heads, 48)):
        for i in range(2):
            name = f"{trunk}.layers.{i}."
            w[name + "attention_norm.weight"], w[name + "ffn_norm.weight"] = 1 + random(d), 1 + random(d)
            for part, rows in (("wq", d), ("wk", d // heads * key_heads), ("wv", d // heads * key_heads), ("wo", d)):
                w[f"{name}attention.{part}.weight"] = random(rows, d)
            w[name + "feed_forward.w1.weight"], w[name + "feed_forward.w3.weight"] = random(inner, d), random(inner, d)
            w[name + "feed_forward.w2.weight"] = random(d, inner)
    image = torch.randn(2, 1, side, side, side)
    x = F.conv3d(image, w["encoder.patch_embedding.proj.weight"], stride=P).flatten(2).transpose(1, 2)
    L = x.shape[1]
    # Half of the patches are hidden; the kept ones keep their places, whose angles they get.
    noise = torch.stack([torch.randperm(L, generator=generator) for _ in range(2)]).float() / L
    order = noise.argsort(1)
    keep, restore = order[:, :L // 2], order.argsort(1)
    theta, decoder_theta = 1e7, 1e3
    y = torch.gather(x, 1, keep[..., None].expand(-1, -1, D))
    for i in range(2):
        y = llama_block(w, f"encoder.layers.{i}.", y, heads, theta, keep)
    y = rms_norm(y, w["encoder.norm.weight"]) @ w["decoder.embedding.weight"].T
    y = torch.cat([y, w["decoder.mask_token"].expand(2, L - L // 2, -1)], 1)
    y = torch.gather(y, 1, restore[..., None].expand(-1, -1, width))
    for i in range(2):
        y = llama_block(w, f"decoder.layers.{i}.", y, heads, decoder_theta, torch.arange(L).expand(2, -1))
    y = rms_norm(y, w["decoder.norm.weight"]) @ w["decoder.output.weight"].T
    model = {"kind": "mae", "image_size": [side] * 3, "patch_size": P, "in_channels": 1, "embed_dim": D, "depth": 2,
             "num_heads": heads, "num_kv_heads": kv, "mlp": "swiglu", "mlp_hidden_dim": hidden, "norm": "rmsnorm",
             "norm_eps": 1e-6, "qkv_bias": "false", "proj_bias": "false", "patch_bias": "false", "class_token": "false",
             "pos_embed": "none", "rope": "raster", "rope_theta": theta, "decoder_rope_theta": decoder_theta,
             "decoder_embed_dim": width, "decoder_depth": 2, "decoder_num_heads": heads, "decoder_mlp_ratio": 1.5,
             "mask_ratio": 0.5}
    outputs("torchtitan-mae, written out", model, w, {"image": image, "mask_noise": noise}, {"output": y}, "torchtitan-mae")


def norm(w, name, x, eps=1e-6):
    return F.layer_norm(x, x.shape[-1:], w[name + ".weight"], w[name + ".bias"], eps)


def linear(w, name, x):
    return F.linear(x, w[name + ".weight"], w.get(name + ".bias"))


def ucf_block(w, name, x, heads):
    B, T, D = x.shape
    q, k, v = linear(w, name + "attn.qkv", norm(w, name + "norm1", x)).view(B, T, 3, heads, D // heads).permute(2, 0, 3, 1, 4)
    x = x + linear(w, name + "attn.proj", F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, T, D))
    return x + linear(w, name + "mlp.fc2", F.gelu(linear(w, name + "mlp.fc1", norm(w, name + "norm2", x))))


def ucf_vit():
    """A classifier over three variables whose tokens one query aggregates, under UCF-VIT's names."""
    D, heads, P, side, V = 48, 4, 4, 16, 3
    generator = torch.Generator().manual_seed(4)
    random = lambda *shape: torch.randn(*shape, generator=generator) * 0.2
    L = (side // P) ** 2
    w = {"cls_token": random(1, 1, D), "pos_embed": random(1, L + 1, D), "var_embed": random(1, V, D),
         "var_query": random(1, 1, D), "var_agg.q.weight": random(D, D), "var_agg.kv.weight": random(2 * D, D),
         "var_agg.proj.weight": random(D, D), "var_agg.proj.bias": random(D), "patch_embed.proj.weight": random(D, 1, P, P),
         "patch_embed.proj.bias": random(D), "norm.weight": 1 + random(D), "norm.bias": random(D),
         "head.weight": random(5, D), "head.bias": random(5)}
    for v in range(V):
        for end in ("weight", "bias"):
            w[f"token_embeds.{v}.proj.{end}"] = w[f"patch_embed.proj.{end}"].clone()
    for i in range(2):
        for part, rows, columns in (("attn.qkv", 3 * D, D), ("attn.proj", D, D), ("mlp.fc1", 2 * D, D), ("mlp.fc2", D, 2 * D)):
            w[f"blocks.{i}.{part}.weight"], w[f"blocks.{i}.{part}.bias"] = random(rows, columns), random(rows)
        for part in ("norm1", "norm2"):
            w[f"blocks.{i}.{part}.weight"], w[f"blocks.{i}.{part}.bias"] = 1 + random(D), random(D)
    image = torch.randn(2, V, side, side)
    x = torch.stack([F.conv2d(image[:, v:v + 1], w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=P)
                     .flatten(2).transpose(1, 2) for v in range(V)], 1) + w["var_embed"][:, :, None]
    x = x.transpose(1, 2).flatten(0, 1)  # [B L, V, D]
    q = linear(w, "var_agg.q", w["var_query"]).expand(len(x), -1, -1).view(-1, 1, heads, D // heads).transpose(1, 2)
    k, v = linear(w, "var_agg.kv", x).view(-1, V, 2, heads, D // heads).permute(2, 0, 3, 1, 4)
    x = linear(w, "var_agg.proj", F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, D)).view(2, L, D)
    x = torch.cat([w["cls_token"].expand(2, -1, -1), x], 1) + w["pos_embed"]
    for i in range(2):
        x = ucf_block(w, f"blocks.{i}.", x, heads)
    logits = linear(w, "head", norm(w, "norm", x)[:, 0])
    model = {"image_size": [side, side], "patch_size": P, "in_channels": V, "embed_dim": D, "depth": 2, "num_heads": heads,
             "mlp_ratio": 2, "num_classes": 5, "variables": "[u, v, t]"}
    outputs("UCF-VIT with variables, written out", model, w, {"image": image, "label": torch.tensor([0, 4])},
            {"output": logits}, "ucf-vit")


def adapted(model, weights):
    where = common.folder()
    path, output = os.path.join(where, "w.safetensors"), os.path.join(where, "adapted.safetensors")
    save_file({key: value.detach().clone().contiguous() for key, value in weights.items()}, path)
    text = common.run("weights", "adapt", path, common.recipe(where, model), "--output", output)
    return load_file(output), text


def resampling():
    """Against timm's resample_abs_pos_embed (1e-6), resample_patch_embed (1e-5) and adapt_input_conv."""
    from timm.layers import resample_abs_pos_embed, resample_patch_embed
    from timm.models._manipulate import adapt_input_conv
    from timm.models.vision_transformer import VisionTransformer
    sizes = {"embed_dim": 24, "depth": 1, "num_heads": 2, "num_classes": 5}
    for side, registers in ((64, 0), (32, 2)):
        peer = VisionTransformer(img_size=side, patch_size=8, embed_dim=24, depth=1, num_heads=2, num_classes=5, reg_tokens=registers)
        common.scramble(peer)
        weights = peer.state_dict()
        for image, patch, channels in (([48, 48], 8, 3), ([96, 80], 16, 1), ([40, 20], 4, 5), ([64, 48], 8, 3)):
            grid = [s // patch for s in image]
            mine, _ = adapted({**sizes, "image_size": image, "patch_size": patch, "in_channels": channels,
                               "register_tokens": registers}, weights)
            table = resample_abs_pos_embed(weights["pos_embed"], grid, num_prefix_tokens=1 + registers)
            worst = (mine["pos_embed"] - table).abs().max().item()
            conv = weights["patch_embed.proj.weight"]
            conv = resample_patch_embed(conv, [patch, patch]) if patch != 8 else conv
            conv = adapt_input_conv(channels, conv)
            worst_conv = (mine["patch_embed.proj.weight"] - conv).abs().max().item()
            print(f"timm, {side}x{side}/8 x 3 to {image[0]}x{image[1]}/{patch} x {channels}: positions differ by {worst:.1e} "
                  f"(allowed 1e-6), patches by {worst_conv:.1e} (allowed 1e-5)")
            assert worst <= 1e-6 and worst_conv <= 1e-5
            assert all(torch.equal(mine[name], value) for name, value in weights.items()
                       if name not in ("pos_embed", "patch_embed.proj.weight")), "a tensor that fitted was changed"


def trilinear():
    """2-D to 3-D and 3-D to 3-D against torch's own interpolation."""
    generator = torch.Generator().manual_seed(5)
    from timm.models.vision_transformer import VisionTransformer
    peer = VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=2, num_classes=5)
    model = {"embed_dim": 24, "depth": 1, "num_heads": 2, "num_classes": 5, "image_size": [16, 32, 32], "patch_size": 8}
    mine, text = adapted(model, peer.state_dict())
    plane = peer.pos_embed.detach()
    assert torch.equal(mine["pos_embed"], torch.cat([plane[:, :1], plane[:, 1:].repeat(1, 2, 1)], 1)), "not the plane's positions"
    inflated = peer.patch_embed.proj.weight.detach()[:, :, None].repeat(1, 1, 8, 1, 1) / 8
    assert torch.equal(mine["patch_embed.proj.weight"], inflated), "not the mean-preserving inflation"
    print("2-D to 3-D: positions and patches exactly those of the plane\n" + text)
    volume = dict(mine)
    volume["pos_embed"] = torch.randn(1, 1 + 27, 24, generator=generator)
    finer, _ = adapted({**model, "image_size": [40, 24, 32]}, volume)
    expected = F.interpolate(volume["pos_embed"][0, 1:].T.reshape(1, 24, 3, 3, 3), (5, 3, 4), mode="trilinear").flatten(2)[0].T
    worst = (finer["pos_embed"][0, 1:] - expected).abs().max().item()
    print(f"3-D positions 3x3x3 to 5x3x4: differ from torch's trilinear by {worst:.1e} (allowed 1e-6)")
    assert worst <= 1e-6


dinov2()
dinov3()
monai_vit()
monai_unetr()
torchtitan_mae()
ucf_vit()
resampling()
trilinear()

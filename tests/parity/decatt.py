"""The loss between heads against its formula in PyTorch on timm's blocks: value and every gradient, in fp64 over a trunk of
its own program, in fp32 over a whole ViT."""
import os
import subprocess
import sys
from functools import partial

import torch
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import Block, VisionTransformer

import common

TRUNK = os.path.abspath(sys.argv[2])
# fp64 rounds at 1e-16; a gradient is a sum of some thousand terms through three blocks.
ALLOWED_FP64 = 1e-10


def heads_loss(attended, heads):
    """A [B, N, T E]; C1 = A A^T / |A|^2 per sample; C2 = mean over b of C1^2; the sum of C2 off its diagonal."""
    b, t, d = attended.shape
    a = attended.reshape(b, t, heads, d // heads).permute(0, 2, 1, 3).reshape(b, heads, -1)
    c1 = a @ a.transpose(1, 2) / (a ** 2).sum((1, 2), keepdim=True)
    c2 = (c1 ** 2).mean(0)
    return c2.sum() - c2.diagonal().sum()


def thirds_loss(x, heads):
    """The first program's: rows in the order of memory, C2 [B, N] summed over j, less C2[k, k]."""
    b = x.shape[0]
    a = x.contiguous().view(b, heads, -1)
    c1 = a @ a.transpose(1, 2) / (a ** 2).sum((1, 2), keepdim=True)
    c2 = (c1 ** 2).sum(-1) / b
    return c2.sum() - sum(c2[k, k] for k in range(min(heads, b)))


def tapped(blocks):
    """What each block's projection reads, filled by a forward pass."""
    found = {}
    for i, block in enumerate(blocks):
        block.attn.proj.register_forward_pre_hook(lambda m, args, i=i: found.__setitem__(i, args[0]))
    return found


def check_trunk(form, engine, heads=3, width=24):
    where = common.folder()
    blocks = torch.nn.ModuleList(
        Block(width, heads, qkv_bias=True, mlp_ratio=2, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6)) for _ in range(3)
    ).double()
    common.scramble(blocks, 0.3)
    x = torch.randn(4, 6, width, dtype=torch.float64, requires_grad=True)
    found = tapped(blocks)
    y = x
    for block in blocks:
        y = block(y)
    loss = thirds_loss(y, heads) if form == "token_thirds" else \
        sum(heads_loss(found[i], heads) for i in range(3)) / 3
    loss.backward()
    files = [os.path.join(where, name) for name in ("in.safetensors", "out.safetensors")]
    save_file({"x": x.detach(), **{name: p.detach() for name, p in blocks.named_parameters()}}, files[0])
    done = subprocess.run([TRUNK, engine, form, str(heads), *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    mine = load_file(files[1])
    peer = {"loss": loss.detach(), "grad/x": x.grad}
    for name, parameter in blocks.named_parameters():
        if parameter.grad is not None:
            peer["grad/" + name] = parameter.grad
    # A bias of keys has none, and behind the last tap there is nothing: an engine may write zeros.
    for name in [name for name in mine if name not in peer]:
        assert mine.pop(name).abs().max() == 0, f"{name} must have no gradient"
    for tensors in (mine, peer):
        for name in [name for name in tensors if name.endswith("qkv.bias")]:
            bias = tensors.pop(name)
            tensors[name + " of q"], tensors[name + " of v"] = bias[:width], bias[2 * width:]
            assert bias[width:2 * width].abs().max() < 1e-14, "a bias of keys must have no gradient"
    assert mine["loss"].dtype == torch.float64
    common.compare(f"{form}, {engine}, fp64", mine, peer, ALLOWED_FP64)


def check_model(engine, form):
    where = common.folder()
    sizes = {"embed_dim": 96, "depth": 4, "num_heads": 3, "image_size": "[32, 32]", "patch_size": 8, "num_classes": 10}
    peer = VisionTransformer(img_size=32, patch_size=8, embed_dim=96, depth=4, num_heads=3, num_classes=10)
    common.scramble(peer)
    image, label = torch.randn(3, 3, 32, 32, requires_grad=True), torch.tensor([1, 7, 4])
    found, outputs = tapped(peer.blocks), {}
    for i, block in enumerate(peer.blocks):
        block.register_forward_hook(lambda m, a, out, i=i: outputs.__setitem__(i, out))
    output = peer(image)
    blocks = (0, 2)
    term = thirds_loss(outputs[blocks[-1]], 3) if form == "token_thirds" else \
        sum(heads_loss(found[i], 3) for i in blocks) / len(blocks)
    loss = torch.nn.functional.cross_entropy(output, label) + 5 * term
    expected = common.with_gradients({"output": output}, loss, peer.named_parameters(), image)
    mine = common.forward(where, sizes, peer.state_dict(), {"image": image, "label": label}, "--train",
                          f"train.engine={engine}", f"train.decatt={{weight: 5, blocks: [0, 2], form: {form}}}",
                          name_from="timm")
    common.compare(f"{form}, {engine}, ViT in fp32 (term {term.item():.3f} of {loss.item():.3f})", mine, expected)


for form in ("heads", "token_thirds"):
    for engine in ("autograd", "fused", "autograd+block", "fused+block"):
        check_trunk(form, engine)
    for engine in ("autograd", "fused"):
        check_model(engine, form)

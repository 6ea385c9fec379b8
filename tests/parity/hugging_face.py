"""Weights of transformers' ViT and ViTMAE: imported they compute the same, exported they load again unchanged."""
import os

import torch
from safetensors.torch import load_file, save_file
from transformers import ViTConfig, ViTForImageClassification, ViTMAEConfig, ViTMAEForPreTraining

import common

SIZES = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, image_size=32, patch_size=8,
             hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, layer_norm_eps=1e-12)
OURS = {"image_size": [32, 32], "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4, "mlp_ratio": 2,
        "norm_eps": 1e-12}


def files_of(peer, where):
    """In memory names (release 5), and the names that save_pretrained writes for the hub."""
    memory = os.path.join(where, "memory.safetensors")
    save_file({name: value.contiguous() for name, value in peer.state_dict().items()}, memory)
    peer.save_pretrained(os.path.join(where, "hub"))
    return {"state_dict": memory, "save_pretrained": os.path.join(where, "hub", "model.safetensors")}


def check(title, peer, model, inputs, expected):
    where = common.folder()
    ours = os.path.join(where, "ours.safetensors")
    for kind, path in files_of(peer, where).items():
        mine = common.forward(where, model, load_file(path), inputs, name_from="hf")
        common.compare(f"transformers, {title}, {kind}", {name: mine[name] for name in expected}, expected)
        common.run("weights", "import", path, "--from", "auto", "--output", ours)
        common.run("weights", "export", ours, "--to", "hf", "--output", os.path.join(where, "back.safetensors"))
        back = load_file(os.path.join(where, "back.safetensors"))
        hub = load_file(os.path.join(where, "hub", "model.safetensors"))
        same_names = set(back) == set(hub)
        folder = os.path.join(where, "again")
        peer.config.save_pretrained(folder)
        save_file(back, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        again = type(peer).from_pretrained(folder).state_dict()
        assert all(torch.equal(again[name], value) for name, value in peer.state_dict().items()), "changed on the way"
        print(f"transformers, {title}, {kind}: hf -> vitrail -> hf equal, hub names equal: {same_names}")


def vit():
    peer = ViTForImageClassification(ViTConfig(**SIZES, num_labels=7)).eval()
    common.scramble(peer)
    image, label = torch.randn(2, 3, 32, 32), torch.tensor([1, 6])
    out = peer(image, labels=label)
    check("ViT", peer, {**OURS, "num_classes": 7}, {"image": image, "label": label},
          {"output": out.logits.detach(), "loss": out.loss.detach()})


def mae():
    config = ViTMAEConfig(**SIZES, decoder_hidden_size=24, decoder_num_hidden_layers=2, decoder_num_attention_heads=4,
                          decoder_intermediate_size=48, mask_ratio=0.75)
    peer = ViTMAEForPreTraining(config).eval()
    common.scramble(peer)
    image, noise = torch.randn(2, 3, 32, 32), torch.rand(2, 16)
    out = peer(image, noise=noise)
    model = {**OURS, "kind": "mae", "decoder_embed_dim": 24, "decoder_depth": 2, "decoder_num_heads": 4,
             "decoder_mlp_ratio": 2}
    check("ViTMAE", peer, model, {"image": image, "mask_noise": noise},
          {"output": out.logits.detach(), "loss": out.loss.detach(), "mask": out.mask.detach()})


vit()
mae()

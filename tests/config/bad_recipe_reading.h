#pragma once
/// Keys, types and words that are refused.

#include "tests/config/bad_recipe.h"

namespace vitrail::config {

inline const std::vector<BadRecipe>& bad_readings() {
  static const std::vector<BadRecipe> table{
      {"model:\n  num_head: 3\n",
       {},
       "[config] model.num_head is not a known key; did you mean 'num_heads'?  (r.yaml:2:3)"},
      {"modle: {depth: 3}\n",
       {},
       "[config] modle is not a known key; did you mean 'model'?  (r.yaml:1:1)"},
      {"train: {lr: 0.1, steps: 1}\ndata: {sources: [{reader: random}]}\n",
       {},
       "[config] train.lr is not a known key; did you mean 'train.optimizer.lr'?  (r.yaml:1:9)"},
      {"model: {flavour: sweet}\n",
       {},
       "[config] model.flavour is not a known key; vitrail check --reference lists them all  "
       "(r.yaml:1:9)"},
      {"data: {sources: [{reader: random, rooot: x}]}\ntrain: {steps: 1}\n",
       {},
       "[config] data.sources[0].rooot is not a known key; did you mean 'root'?  (r.yaml:1:35)"},
      {"model: {Depth: 3}\n",
       {},
       "[config] model.Depth is not a known key; did you mean 'depth'?  (r.yaml:1:9)"},
      {"model:\n  depth: twelve\n",
       {},
       "[config] model.depth must be a whole number but got 'twelve'  (r.yaml:2:10)"},
      {"model: {depth: 12.5}\n",
       {},
       "[config] model.depth must be a whole number but got '12.5'  (r.yaml:1:16)"},
      {"model: {depth: \"12\"}\n",
       {},
       "[config] model.depth must be a whole number but got '12' in quotes  (r.yaml:1:16)"},
      {"model: {depth: [12]}\n",
       {},
       "[config] model.depth must be a whole number but got a list  (r.yaml:1:16)"},
      {"model: {depth: 99999999999999999999}\n",
       {},
       "[config] model.depth must be a whole number of at most 64 bits but got "
       "'99999999999999999999'  (r.yaml:1:16)"},
      {"model: {depth: null}\n",
       {},
       "[config] model.depth must be a whole number but got null  (r.yaml:1:16)"},
      {"model: {mlp_ratio: big}\n",
       {},
       "[config] model.mlp_ratio must be a number but got 'big'  (r.yaml:1:20)"},
      {"model: {mlp_ratio: .nan}\n",
       {},
       "[config] model.mlp_ratio must be a finite number but got '.nan'  (r.yaml:1:20)"},
      {"model: {mlp_ratio: inf}\n",
       {},
       "[config] model.mlp_ratio must be a finite number but got 'inf'  (r.yaml:1:20)"},
      {"model: {mlp_ratio: 1e999}\n",
       {},
       "[config] model.mlp_ratio must be a number that fits 64-bit floating point but got '1e999'  "
       "(r.yaml:1:20)"},
      {"model: {qkv_bias: yes}\n",
       {},
       "[config] model.qkv_bias must be true or false but got 'yes'  (r.yaml:1:19)"},
      {"model: {qkv_bias: 1}\n",
       {},
       "[config] model.qkv_bias must be true or false but got '1'  (r.yaml:1:19)"},
      {"model: {layer_scale: small}\n",
       {},
       "[config] model.layer_scale must be a number or null but got 'small'  (r.yaml:1:22)"},
      {"model: {image_size: 32}\n",
       {},
       "[config] model.image_size must be a list of whole numbers but got '32'  (r.yaml:1:21)"},
      {"model: {image_size: [32, x]}\n",
       {},
       "[config] model.image_size[1] must be a whole number but got 'x'  (r.yaml:1:26)"},
      {"model: 3\n", {}, "[config] model must be a map but got '3'  (r.yaml:1:8)"},
      {"model: [depth, 3]\n", {}, "[config] model must be a map but got a list  (r.yaml:1:8)"},
      {"run: {name: [a]}\n", {}, "[config] run.name must be text but got a list  (r.yaml:1:13)"},
      {"data: {sources: {reader: random}}\ntrain: {steps: 1}\n",
       {},
       "[config] data.sources must be a list of maps but got a map  (r.yaml:1:17)"},
      {"data: {sources: [random]}\ntrain: {steps: 1}\n",
       {},
       "[config] data.sources[0] must be a map but got 'random'  (r.yaml:1:18)"},
      {"train: {optimizer: adamw}\n",
       {},
       "[config] train.optimizer must be a map but got 'adamw'  (r.yaml:1:20)"},
      {"data: {sources: [{reader: random, mean: 0.5}]}\ntrain: {steps: 1}\n",
       {},
       "[config] data.sources[0].mean must be a list of numbers but got '0.5'  (r.yaml:1:41)"},
      {"model: {norm: batchnorm}\n",
       {},
       "[config] model.norm must be one of layernorm, rmsnorm but got 'batchnorm'  (r.yaml:1:15)"},
      {"model: {norm: RMSNorm}\n",
       {},
       "[config] model.norm must be one of layernorm, rmsnorm but got 'RMSNorm'; did you mean "
       "'rmsnorm'?  (r.yaml:1:15)"},
      {"model: {kind: vitt}\n",
       {},
       "[config] model.kind must be one of vit, mae, unetr, sap, diffusion, rat, vit_detection but got 'vitt'; did you "
       "mean 'vit'?  "
       "(r.yaml:1:15)"},
      {"run: {device: tpu}\n",
       {},
       "[config] run.device must be one of auto, cpu, cuda but got 'tpu'; did you mean 'cpu'?  "
       "(r.yaml:1:15)"},
      {"model: {preset: vit_tinny}\n",
       {},
       "[config] model.preset must be the name of a preset but got 'vit_tinny'; did you mean "
       "'vit_tiny'?  (r.yaml:1:17)"},
      {"model: {preset: base}\n",
       {},
       "[config] model.preset must be the name of a preset but got 'base'; did you mean "
       "'vit_base'?  (r.yaml:1:17)"},
      {"model: {preset: resnet50}\n",
       {},
       "[config] model.preset must be the name of a preset but got 'resnet50'; vitrail check "
       "--reference lists them  (r.yaml:1:17)"},
      {"data: {sources: [{reader: image_foldr, root: x}]}\ntrain: {steps: 1}\n",
       {},
       "[config] data.sources[0].reader must be one of image_folder, image_list, images, "
       "image_stack, cifar, idx, nifti, npy, raw, tiff, zarr, n5, coco, voc, tar, digits, random "
       "but "
       "got 'image_foldr'; did you mean 'image_folder'?  (r.yaml:1:27)"},
      {"train: {engine: fusd}\n",
       {},
       "[config] train.engine must be one of auto, fused, autograd but got 'fusd'; did you mean 'fused'?  "
       "(r.yaml:1:17)"},
      {"train: {recompute: selectiv}\n",
       {},
       "[config] train.recompute must be one of none, cheap, block, every_k, selective but got "
       "'selectiv'; did you mean 'selective'?  (r.yaml:1:20)"},
      {"parallel: {strategy: zero4}\n",
       {},
       "[config] parallel.strategy must be one of none, ddp, zero1, zero2, zero3, hybrid but "
       "got 'zero4'; did you mean 'zero1'?  (r.yaml:1:22)"},
      {"parallel: {tensor: 5}\n",
       {},
       "[config] parallel.tensor must divide model.num_heads but got 5 and 12  "
       "(r.yaml:1:20)\n[config] parallel.tensor must divide the MLP's hidden width but got 5 "
       "and 3072  (r.yaml:1:20)"},
      {"parallel: {offload: activations}\n",
       {},
       "[config] parallel.offload must be one of none, optimizer, parameters, nvme but got "
       "'activations'  (r.yaml:1:21)"},
      {"data: {sources: [{reader: random, split: {hash: 1, parts: train}}]}\ntrain: {steps: 1}\n",
       {},
       "[config] data.sources[0].split.parts is not a known key; known are start, end, list, hash "
       "and part  (r.yaml:1:52)"},
  };
  return table;
}

}  // namespace vitrail::config

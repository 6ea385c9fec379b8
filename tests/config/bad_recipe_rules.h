#pragma once
/// Values that are refused because of what other values say.

#include "tests/config/bad_recipe.h"

namespace vitrail::config {

inline const std::vector<BadRecipe>& bad_values() {
  static const std::vector<BadRecipe> table{
      {kBase,
       {"model.num_heads=10"},
       "[config] model.embed_dim must be a multiple of model.num_heads but got 64 and 10; 8 heads "
       "divide it  (r.yaml:5:14, command line: model.num_heads=10)"},
      {kBase,
       {"model.embed_dim=0"},
       "[config] model.embed_dim must be at least 1 but got 0  (command line: model.embed_dim=0)"},
      {kBase,
       {"model.depth=20000"},
       "[config] model.depth must be at most 10000 but got 20000  (command line: "
       "model.depth=20000)"},
      {kBase,
       {"model.depth=-1"},
       "[config] model.depth must be at least 1 but got -1  (command line: model.depth=-1)"},
      {kBase,
       {"model.image_size=[8]"},
       "[config] model.image_size must be [H, W] or [D, H, W] but got [8]  (command line: "
       "model.image_size=[8])"},
      {kBase,
       {"model.image_size=[9,8]"},
       "[config] model.image_size[0] must be a multiple of model.patch_size but got 9 and 2  "
       "(command line: model.image_size=[9,8], r.yaml:4:15)"},
      {kBase,
       {"model.image_size=[8,0]"},
       "[config] model.image_size[1] must be at least 1 but got 0  (command line: "
       "model.image_size=[8,0])"},
      {kBase,
       {"model.image_size=[65536,65536]", "model.patch_size=4"},
       "[config] model.image_size [65536, 65536] in patches of 4 must give at most 16777216 tokens "
       "but gives 268435456  (command line: model.image_size=[65536,65536], command line: "
       "model.patch_size=4)"},
      {kBase,
       {"model.image_size=[65536,65536,65536]", "model.patch_size=4096",
        "data.sources=[{reader: random}]"},
       "[config] model.image_size [65536, 65536, 65536] with 3 channels must give at most "
       "17179869184 values but gives 844424930131968  (command line: "
       "model.image_size=[65536,65536,65536])"},
      {kBase,
       {"model.pos_embed=sincos", "model.embed_dim=66", "model.num_heads=2"},
       "[config] model.embed_dim must be a multiple of 4 for sincos positions in 2-D but got 66; "
       "64 "
       "or 68 would do  (command line: model.embed_dim=66, command line: model.pos_embed=sincos)"},
      {kBase,
       {"model.pos_embed=sincos", "model.image_size=[8,8,8]", "data.sources=[{reader: random}]"},
       "[config] model.embed_dim must be a multiple of 6 for sincos positions in 3-D but got 64; "
       "60 "
       "or 72 would do  (r.yaml:5:14, command line: model.pos_embed=sincos)"},
      {kBase,
       {"model.drop_path_rate=1"},
       "[config] model.drop_path_rate must be at least 0 and below 1 but got 1  (command line: "
       "model.drop_path_rate=1)"},
      {kBase,
       {"model.attn_drop_rate=-0.1"},
       "[config] model.attn_drop_rate must be at least 0 and below 1 but got -0.1  (command line: "
       "model.attn_drop_rate=-0.1)"},
      {kBase,
       {"model.kind=mae", "model.mask_ratio=1"},
       "[config] model.mask_ratio must be above 0 and below 1 but got 1  (command line: "
       "model.mask_ratio=1)"},
      {kBase,
       {"model.kind=mae", "model.mask_ratio=0.99"},
       "[config] model.mask_ratio must keep and hide at least one of 16 patches but 0.99 keeps 0  "
       "(command line: model.mask_ratio=0.99)"},
      {kBase,
       {"model.kind=mae", "model.mask_ratio=1e-18"},
       "[config] model.mask_ratio must keep and hide at least one of 16 patches but 1e-18 keeps 16 "
       " (command line: model.mask_ratio=1e-18)"},
      {kBase,
       {"model.kind=mae", "model.decoder_num_heads=5"},
       "[config] model.decoder_embed_dim must be a multiple of model.decoder_num_heads but got 512 "
       "and 5; 4 heads divide it  (command line: model.decoder_num_heads=5)"},
      {kBase,
       {"model.class_token=false", "model.pool=token"},
       "[config] model.pool token needs model.class_token true but it is false; use pool: avg  "
       "(command line: model.pool=token, command line: model.class_token=false)"},
      {kBase,
       {"model.mlp_ratio=0"},
       "[config] model.mlp_ratio must be above 0 but got 0  (command line: model.mlp_ratio=0)"},
      {kBase,
       {"model.mlp_ratio=1e9"},
       "[config] model.mlp_ratio must give an MLP width from 1 to 4194304 but got 64 * 1000000000  "
       "(command line: model.mlp_ratio=1e9, r.yaml:5:14)"},
      {kBase,
       {"model.num_classes=-1"},
       "[config] model.num_classes must be at least 0 but got -1  (command line: "
       "model.num_classes=-1)"},
      {kBase,
       {"model.num_classes=0"},
       "[config] model.num_classes must be at least 1 to train a classifier but got 0  (command "
       "line: model.num_classes=0)"},
      {kBase,
       {"model.pool=none"},
       "[config] model.pool must be token, avg or attention to train a classifier but got 'none'  "
       "(command "
       "line: model.pool=none)"},
      {kBase,
       {"model.label_smoothing=1"},
       "[config] model.label_smoothing must be at least 0 and below 1 but got 1  (command line: "
       "model.label_smoothing=1)"},
      {kBase,
       {"model.norm_eps=0"},
       "[config] model.norm_eps must be above 0 but got 0  (command line: model.norm_eps=0)"},
      {kBase,
       {"train={epochs: 2, steps: 5}"},
       "[config] train.epochs and train.steps exclude each other but got 2 and 5; set one to null  "
       "(command line: train={epochs: 2, steps: 5})"},
      {kBase,
       {"train.epochs=null"},
       "[config] one of train.epochs and train.steps must be given but neither is  (command line: "
       "train.epochs=null)"},
      {kBase,
       {"train.epochs=0"},
       "[config] train.epochs must be at least 1 but got 0  (command line: train.epochs=0)"},
      {kBase,
       {"data.batch_size=0"},
       "[config] data.batch_size must be at least 1 but got 0  (command line: data.batch_size=0)"},
      {kBase,
       {"train.micro_batches=7"},
       "[config] data.batch_size must be a multiple of train.micro_batches but got 64 and 7  "
       "(r.yaml:8:15, command line: train.micro_batches=7)"},
      {kBase,
       {"train.optimizer.lr=0"},
       "[config] train.optimizer.lr must be above 0 but got 0  (command line: "
       "train.optimizer.lr=0)"},
      {kBase,
       {"train.optimizer.betas=[0.9]"},
       "[config] train.optimizer.betas must hold 2 numbers but holds 1  (command line: "
       "train.optimizer.betas=[0.9])"},
      {kBase,
       {"train.optimizer.betas=[0.9,1]"},
       "[config] train.optimizer.betas[1] must be at least 0 and below 1 but got 1  (command line: "
       "train.optimizer.betas=[0.9,1])"},
      {kBase,
       {"train.schedule.warmup_steps=-1"},
       "[config] train.schedule.warmup_steps must be at least 0 but got -1  (command line: "
       "train.schedule.warmup_steps=-1)"},
      {kBase,
       {"train.schedule.min_lr=1"},
       "[config] train.schedule.min_lr must be at most train.optimizer.lr but got 1 and 0.001  "
       "(command line: train.schedule.min_lr=1)"},
      {kBase,
       {"train.clip_grad_norm=-1"},
       "[config] train.clip_grad_norm must be at least 0 but got -1  (command line: "
       "train.clip_grad_norm=-1)"},
      {kBase,
       {"train.ema_decay=1"},
       "[config] train.ema_decay must be at least 0 and below 1 but got 1  (command line: "
       "train.ema_decay=1)"},
      {kBase,
       {"data.sources=[]"},
       "[config] data.sources must hold at least one source to train from but is empty  (command "
       "line: data.sources=[])"},
      {kBase,
       {"data.sources[0].split=[0.5,0.2]"},
       "[config] data.sources[0].split must be [start, end] with 0 <= start < end <= 1 but got "
       "[0.5, 0.2]  (command line: data.sources[0].split=[0.5,0.2])"},
      {kBase,
       {"data.sources[0].split=[0,0.5,1]"},
       "[config] data.sources[0].split must be [start, end] with 0 <= start < end <= 1 but got [0, "
       "0.5, 1]  (command line: data.sources[0].split=[0,0.5,1])"},
      {kBase,
       {"data.sources[0].mean=[0.5,0.5]"},
       "[config] data.sources[0].mean must hold 1 or model.in_channels = 3 numbers but holds 2  "
       "(command line: data.sources[0].mean=[0.5,0.5])"},
      {kBase,
       {"data.sources[0].std=[0]"},
       "[config] data.sources[0].std[0] must be above 0 but got 0  (command line: "
       "data.sources[0].std=[0])"},
      {kBase,
       {"data.sources[0].augment=[flop]"},
       "[config] data.sources[0].augment[0] 'flop' is not known; the known steps are flip, "
       "flips, rot90, rot90_3d, crop:PAD, shift:PIXELS, "
       "resized_crop[:MIN:MAX[:RATIO_LOW:RATIO_HIGH]], "
       "affine:DEGREES:TRANSLATE:SCALE_LOW:SCALE_HIGH[:SHEAR], "
       "color_jitter:BRIGHTNESS:CONTRAST:SATURATION:HUE, gray:P, solarize:P[:THRESHOLD], "
       "blur:SIGMA_MAX[:P], randaugment:N:M, trivialaugment, autoaugment:cifar10 or "
       "autoaugment:imagenet, intensity:SHIFT:SCALE, gamma:LOW:HIGH, noise:STD, erasing:P or "
       "erasing:P:noise, mixup:ALPHA, cutmix:ALPHA  (command line: "
       "data.sources[0].augment=[flop])"},
      {kBase,
       {"data.sources[0].augment=[crop]"},
       "[config] data.sources[0].augment[0] 'crop' needs 1 number(s) but has 0; it is written "
       "crop:PAD  (command line: data.sources[0].augment=[crop])"},
      {kBase,
       {"data.sources[0].augment=[shift:-1]"},
       "[config] data.sources[0].augment[0] 'shift:-1' needs a whole number from 0 to 4096 as "
       "number 1 but got -1; it is written shift:PIXELS  (command line: "
       "data.sources[0].augment=[shift:-1])"},
      {kBase,
       {"data.sources[0].augment=[crop:1.5]"},
       "[config] data.sources[0].augment[0] 'crop:1.5' needs a whole number from 0 to 4096 as "
       "number 1 but got 1.5; it is written crop:PAD  (command line: "
       "data.sources[0].augment=[crop:1.5])"},
      {kBase,
       {"data.sources[0].root="},
       "[config] data.sources[0].root must name the data of the reader digits but is empty  "
       "(command line: data.sources[0].root=)"},
      {kBase,
       {"data.sources[0].weight=0"},
       "[config] data.sources[0].weight must be above 0 but got 0  (command line: "
       "data.sources[0].weight=0)"},
      {kBase,
       {"data.sources[0].resize=[16]"},
       "[config] data.sources[0].resize must have as many sides as model.image_size but got 1 and "
       "2  (command line: data.sources[0].resize=[16], r.yaml:3:15)"},
      {kBase,
       {"data.sources[0].resize=[16,4]"},
       "[config] data.sources[0].resize[1] must be at least model.image_size[1] but got 4 and 8  "
       "(command line: data.sources[0].resize=[16,4], r.yaml:3:19)"},
      {kBase,
       {"data.sources[0]={reader: random, root: many}"},
       "[config] data.sources[0].root of the reader random must be a number of samples or empty "
       "but got 'many'  (command line: data.sources[0]={reader: random, root: many})"},
      {kBase,
       {"eval.sources=[{reader: random},{reader: random}]"},
       "[config] eval.sources[1].name must differ from that of eval.sources[0] but both are "
       "'random'  (command line: eval.sources=[{reader: random},{reader: random}])"},
      {kBase,
       {"checkpoint.keep=-1"},
       "[config] checkpoint.keep must be at least 0 but got -1  (command line: "
       "checkpoint.keep=-1)"},
      {kBase,
       {"logging.every_steps=0"},
       "[config] logging.every_steps must be at least 1 but got 0  (command line: "
       "logging.every_steps=0)"},
      {kBase,
       {"run.name=a/b"},
       "[config] run.name must be usable as a folder name (no '/', at most 200 bytes) but is 'a/b' "
       " (command line: run.name=a/b)"},
      {kBase,
       {"run.name=.."},
       "[config] run.name must be usable as a folder name (no '/', at most 200 bytes) but is '..'  "
       "(command line: run.name=..)"},
      {kBase,
       {"run.name="},
       "[config] run.name must be usable as a folder name (no '/', at most 200 bytes) but is ''  "
       "(command line: run.name=)"},
      {kBase,
       {"run.output="},
       "[config] run.output must name a folder but is empty  (command line: run.output=)"},
      {kBase,
       {"run.seed=-1"},
       "[config] run.seed must be at least 0 but got -1  (command line: run.seed=-1)"},
      {kBase,
       {"parallel.replicate=-1", "parallel.shard=-1"},
       "[config] only one of parallel.replicate and parallel.shard can be -1 (all ranks that are "
       "left) but both are  (command line: parallel.replicate=-1, command line: "
       "parallel.shard=-1)"},
      {kBase,
       {"parallel.replicate=0"},
       "[config] parallel.replicate must be a number of ranks from 1 to 1048576, or -1, but got 0  "
       "(command line: parallel.replicate=0)"},
      {kBase,
       {"parallel.tensor=5"},
       "[config] parallel.tensor must divide model.num_heads but got 5 and 4  (command line: "
       "parallel.tensor=5, r.yaml:6:14)\n[config] parallel.tensor must divide the MLP's hidden "
       "width but got 5 and 256  (command line: parallel.tensor=5)"},
      {kBase,
       {"parallel.tensor=0"},
       "[config] parallel.tensor must be at least 1 but got 0  (command line: parallel.tensor=0)"},
      {kBase,
       {"parallel.split_channels=true"},
       "[config] parallel.split_channels needs parallel.tensor above 1 but it is 1  (command "
       "line: parallel.split_channels=true)"},
      {kBase,
       {"parallel.tensor=3", "parallel.split_channels=true"},
       "[config] parallel.tensor must divide model.num_heads but got 3 and 4  (command line: "
       "parallel.tensor=3, r.yaml:6:14)\n[config] parallel.tensor must divide the MLP's hidden "
       "width but got 3 and 256  (command line: parallel.tensor=3)\n[config] "
       "parallel.split_channels divides model.variables but there are none  (command line: "
       "parallel.split_channels=true)"},
      {kBase,
       {"parallel.sequence=4", "parallel.ulysses=3"},
       "[config] parallel.ulysses must divide parallel.sequence but got 3 and 4  (command line: "
       "parallel.ulysses=3, command line: parallel.sequence=4)\n[config] parallel.ulysses x "
       "parallel.tensor must divide model.num_heads but got 3 x 1 and 4  (command line: "
       "parallel.ulysses=3, r.yaml:6:14)"},
      {kBase,
       {"parallel.sequence=8", "parallel.ulysses=8"},
       "[config] parallel.ulysses x parallel.tensor must divide model.num_heads but got 8 x 1 "
       "and 4  (command line: parallel.ulysses=8, r.yaml:6:14)"},
      {kBase,
       {"parallel.pipeline=64"},
       "[config] parallel.pipeline x pipeline_parts must not exceed the model's 12 blocks but "
       "got 64  (command line: parallel.pipeline=64)"},
      {kBase,
       {"parallel.pipeline_parts=2"},
       "[config] parallel.pipeline_parts 2 needs parallel.pipeline_schedule interleaved but it "
       "is 1f1b  (command line: parallel.pipeline_parts=2)"},
      {kBase,
       {"parallel.pipeline=2", "parallel.pipeline_schedule=interleaved",
        "parallel.pipeline_parts=2"},
       "[config] the interleaved schedule needs train.micro_batches to be a multiple of "
       "parallel.pipeline but got 1 and 2  (command line: parallel.pipeline=2)"},
      {kBase,
       {"train.offload_activations=true"},
       "[config] train.offload_activations keeps what recompute saves but train.recompute is "
       "none  (command line: train.offload_activations=true)"},
      {kBase,
       {"parallel.shard_optimizer=all"},
       "[config] parallel.shard_optimizer all needs a strategy that divides the optimizer but "
       "parallel.strategy is ddp  (command line: parallel.shard_optimizer=all)"},
      {kBase,
       {"parallel.strategy=zero2", "parallel.offload=parameters"},
       "[config] parallel.offload parameters needs parallel.strategy zero3 or hybrid but it is "
       "zero2  (command line: parallel.offload=parameters, command line: "
       "parallel.strategy=zero2)"},
      {kBase,
       {"parallel.offload=nvme"},
       "[config] parallel.offload_folder must name a folder for parallel.offload nvme but is "
       "empty  (command line: parallel.offload=nvme)"},
      {kBase,
       {"train.optimizer.kind=sgd", "train.optimizer.state=bf16"},
       "[config] train.optimizer.state bf16 is for the moments of adamw but train.optimizer.kind "
       "is sgd; set state to fp32  (command line: train.optimizer.state=bf16, command line: "
       "train.optimizer.kind=sgd)"},
      {kBase,
       {"parallel.offload=optimizer", "train.optimizer.state=fp8"},
       "[config] train.optimizer.state fp8 is for moments on the device but parallel.offload is "
       "optimizer; set one of them back  (command line: train.optimizer.state=fp8, command line: "
       "parallel.offload=optimizer)"},
      {kBase,
       {"train.precision=fp8", "train.engine=autograd"},
       "[config] train.precision fp8 needs the fused engine but train.engine is autograd; set "
       "train.engine to auto or fused  (command line: train.precision=fp8, command line: "
       "train.engine=autograd)"},
      {kBase,
       {"train.fp8_weight_gradients=fp8", "train.precision=bf16"},
       "[config] train.fp8_weight_gradients fp8 is for train.precision fp8 but train.precision is "
       "bf16; set it to fp8 or leave the former out  (command line: "
       "train.fp8_weight_gradients=fp8, command line: train.precision=bf16)"},
      {kBase,
       {"train.precision=fp8", "model.embed_dim=72", "model.num_heads=2"},
       "[config] model.embed_dim must be a multiple of 16 for train.precision fp8 but got 72  "
       "(command line: model.embed_dim=72, command line: train.precision=fp8)"},
      {kBase,
       {"train.precision=fp8", "model.mlp_hidden_dim=100"},
       "[config] model.mlp_hidden_dim must be a multiple of 16 for train.precision fp8 but got "
       "100  (command line: model.mlp_hidden_dim=100, command line: train.precision=fp8)"},
      {kBase,
       {"train.precision=fp8", "parallel.tensor=2"},
       "[config] train.precision fp8 needs the fused engine, which does not run blocks divided "
       "over tensor ranks, but parallel.tensor is 2; set train.precision to bf16 or "
       "parallel.tensor to 1  (command line: train.precision=fp8, command line: "
       "parallel.tensor=2)"},
      {kBase,
       {"parallel.prefetch_depth=-1"},
       "[config] parallel.prefetch_depth must be at least 0 but got -1  (command line: "
       "parallel.prefetch_depth=-1)"},
      {kBase,
       {"train.recompute=every_k", "train.recompute_every=0"},
       "[config] train.recompute_every must be at least 1 but got 0  (command line: "
       "train.recompute_every=0)"},
  };
  return table;
}

}  // namespace vitrail::config

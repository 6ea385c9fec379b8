#pragma once
/// Models whose options do not go together.

#include "tests/config/bad_recipe.h"

namespace vitrail::config {

inline const std::vector<BadRecipe>& bad_models() {
  static const std::vector<BadRecipe> table{
      {kModel,
       {"model.kind=unetr", "model.decoder=linear"},
       "[config] model.decoder linear needs model.skips false but it is true; set model.skips: "
       "false or model.decoder: conv  (command line: model.decoder=linear)"},
      {kModel,
       {"model.kind=unetr", "model.decoder=transformer"},
       "[config] model.decoder must be conv or linear for unetr but got transformer  (command "
       "line: model.decoder=transformer, command line: model.kind=unetr)"},
      {kModel,
       {"model.kind=unetr", "model.depth=3"},
       "[config] model.depth must be at least 4 for unetr with model.skips but got 3; set "
       "model.skips: false or more blocks  (command line: model.depth=3)"},
      {kModel,
       {"model.kind=unetr", "model.feature_size=0"},
       "[config] model.feature_size must be at least 1 but got 0  (command line: "
       "model.feature_size=0)"},
      {kModel,
       {"model.kind=unetr", "model.num_classes=1"},
       "[config] model.num_classes must be at least 2 for unetr, background included, but got 1 "
       " (command line: model.num_classes=1, command line: model.kind=unetr)"},
      {kModel,
       {"model.kind=sap", "model.num_classes=0"},
       "[config] model.num_classes must be at least 2 for sap, background included, but got 0  "
       "(command line: model.num_classes=0, command line: model.kind=sap)"},
      {kModel,
       {"model.kind=sap", "model.decoder_embed_dim=0"},
       "[config] model.decoder_embed_dim must be at least 1 but got 0  (command line: "
       "model.decoder_embed_dim=0)"},
      {kModel,
       {"model.kind=mae", "model.decoder=conv"},
       "[config] model.decoder must be transformer or linear for mae but got conv  (command "
       "line: model.decoder=conv, command line: model.kind=mae)"},
      {kModel,
       {"model.kind=diffusion", "model.decoder=conv"},
       "[config] model.decoder must be transformer or linear for diffusion but got conv  "
       "(command line: model.decoder=conv, command line: model.kind=diffusion)"},
      {kModel,
       {"model.kind=unetr", "model.class_token=true"},
       "[config] model.class_token must be false for unetr, which has no use for it, but is "
       "true  (command line: model.class_token=true, command line: model.kind=unetr)"},
      {kModel,
       {"model.kind=sap", "model.class_token=true"},
       "[config] model.class_token must be false for sap, which has no use for it, but is true  "
       "(command line: model.class_token=true, command line: model.kind=sap)"},
      {kModel,
       {"model.kind=diffusion", "model.class_token=true"},
       "[config] model.class_token must be false for diffusion, which has no use for it, but is "
       "true  (command line: model.class_token=true, command line: model.kind=diffusion)"},
      {kModel,
       {"model.kind=mae", "model.register_tokens=2"},
       "[config] model.register_tokens must be 0 for mae but got 2  (command line: "
       "model.register_tokens=2, command line: model.kind=mae)"},
      {kModel,
       {"model.kind=unetr", "model.register_tokens=2"},
       "[config] model.register_tokens must be 0 for unetr but got 2  (command line: "
       "model.register_tokens=2, command line: model.kind=unetr)"},
      {kModel,
       {"model.kind=sap", "model.register_tokens=2"},
       "[config] model.register_tokens must be 0 for sap but got 2  (command line: "
       "model.register_tokens=2, command line: model.kind=sap)"},
      {kModel,
       {"model.kind=diffusion", "model.register_tokens=2"},
       "[config] model.register_tokens must be 0 for diffusion but got 2  (command line: "
       "model.register_tokens=2, command line: model.kind=diffusion)"},
      {kModel,
       {"model.kind=mae", "model.patch_drop_rate=0.5"},
       "[config] model.patch_drop_rate must be 0 for mae, whose output needs every patch, but "
       "got 0.5  (command line: model.patch_drop_rate=0.5, command line: model.kind=mae)"},
      {kModel,
       {"model.kind=unetr", "model.patch_drop_rate=0.5"},
       "[config] model.patch_drop_rate must be 0 for unetr, whose output needs every patch, but "
       "got 0.5  (command line: model.patch_drop_rate=0.5, command line: model.kind=unetr)"},
      {kModel,
       {"model.patch_drop_rate=1"},
       "[config] model.patch_drop_rate must be at least 0 and below 1 but got 1  (command line: "
       "model.patch_drop_rate=1)"},
      {kModel,
       {"model.kind=mae", "model.pool=attention"},
       "[config] model.pool attention needs model.kind vit but it is mae; leave model.pool out  "
       "(command line: model.pool=attention, command line: model.kind=mae)"},
      {kModel,
       {"model.kind=mae", "model.class_token=false", "model.pool=token"},
       "[config] model.pool token needs model.class_token true but it is false; use pool: avg  "
       "(command line: model.pool=token, command line: model.class_token=false)"},
      {kModel,
       {"model.loss=dice"},
       "[config] model.loss must be one of cross_entropy, focal, mse for vit but got dice  "
       "(command "
       "line: model.loss=dice)"},
      {kModel,
       {"model.kind=mae", "model.loss=cross_entropy"},
       "[config] model.loss must be one of masked_mse, mse for mae but got cross_entropy  "
       "(command line: model.loss=cross_entropy, command line: model.kind=mae)"},
      {kModel,
       {"model.kind=unetr", "model.loss=mse", "model.num_classes=0"},
       "[config] model.num_classes must be at least 1 for unetr with the loss mse, but got 0  "
       "(command line: model.num_classes=0, command line: model.kind=unetr)"},
      {kModel,
       {"model.kind=sap", "model.loss=masked_mse"},
       "[config] model.loss must be one of dice_ce, dice, generalized_dice, cross_entropy, "
       "focal, dice_focal, mse for sap but got masked_mse  (command line: model.loss=masked_mse, "
       "command line: model.kind=sap)"},
      {kModel,
       {"model.kind=diffusion", "model.loss=masked_mse"},
       "[config] model.loss must be mse for diffusion but got masked_mse  (command line: "
       "model.loss=masked_mse, command line: model.kind=diffusion)"},
      {kModel,
       {"model.num_classes=3", "model.class_weights=[1,2]"},
       "[config] model.class_weights must hold model.num_classes = 3 numbers but holds 2  "
       "(command line: model.class_weights=[1,2], command line: model.num_classes=3)"},
      {kModel,
       {"model.num_classes=2", "model.class_weights=[1,-2]"},
       "[config] model.class_weights[1] must be at least 0 but got -2  (command line: "
       "model.class_weights=[1,-2])"},
      {kModel,
       {"model.num_classes=2", "model.class_weights=[0,0]"},
       "[config] model.class_weights must hold a number above 0 but all are 0  (command line: "
       "model.class_weights=[0,0])"},
      {kModel,
       {"model.focal_gamma=-1"},
       "[config] model.focal_gamma must be at least 0 but got -1  (command line: "
       "model.focal_gamma=-1)"},
      {kModel,
       {"model.kind=diffusion", "model.num_timesteps=1"},
       "[config] model.num_timesteps must be at least 2 but got 1  (command line: "
       "model.num_timesteps=1)"},
      {kModel,
       {"model.kind=diffusion", "model.num_timesteps=100001"},
       "[config] model.num_timesteps must be at most 100000 but got 100001  (command line: "
       "model.num_timesteps=100001)"},
      {kModel,
       {"model.kind=diffusion", "model.embed_dim=45", "model.num_heads=5", "model.pos_embed=none"},
       "[config] model.embed_dim must be even for diffusion, whose times are sines and cosines, "
       "but got 45  (command line: model.embed_dim=45, command line: model.kind=diffusion)"},
      {kModel,
       {"model.time_drop_rate=1"},
       "[config] model.time_drop_rate must be at least 0 and below 1 but got 1  (command line: "
       "model.time_drop_rate=1)"},
      {kModel,
       {"model.class_drop_rate=-0.5"},
       "[config] model.class_drop_rate must be at least 0 and below 1 but got -0.5  (command "
       "line: model.class_drop_rate=-0.5)"},
      {kModel,
       {"model.kind=diffusion", "model.num_kv_heads=4", "model.decoder_num_heads=2"},
       "[config] model.decoder_num_heads must be a multiple of model.num_kv_heads but got 2 and "
       "4  (command line: model.decoder_num_heads=2, command line: model.num_kv_heads=4)"},
      {kModel,
       {"model.num_kv_heads=3"},
       "[config] model.num_heads must be a multiple of model.num_kv_heads but got 4 and 3  "
       "(r.yaml:1:96, command line: model.num_kv_heads=3)"},
      {kModel,
       {"model.num_kv_heads=0"},
       "[config] model.num_kv_heads must be at least 1 but got 0  (command line: "
       "model.num_kv_heads=0)"},
      {kModel,
       {"model.rope=raster", "model.embed_dim=60", "model.num_heads=4"},
       "[config] model.embed_dim / model.num_heads must be a multiple of 2 for raster rope in "
       "2-D but got 60 / 4 = 15; change one of them or model.rope  (command line: "
       "model.embed_dim=60, command line: model.num_heads=4, command line: model.rope=raster)"},
      {kModel,
       {"model.rope=axial", "model.embed_dim=40", "model.num_heads=4"},
       "[config] model.embed_dim / model.num_heads must be a multiple of 4 for axial rope in "
       "2-D but got 40 / 4 = 10; change one of them or model.rope  (command line: "
       "model.embed_dim=40, command line: model.num_heads=4, command line: model.rope=axial)"},
      {kModel,
       {"model.rope=axial", "model.image_size=[8,8,8]", "model.embed_dim=64"},
       "[config] model.embed_dim / model.num_heads must be a multiple of 6 for axial rope in "
       "3-D but got 64 / 4 = 16; change one of them or model.rope  (command line: "
       "model.embed_dim=64, r.yaml:1:96, command line: model.rope=axial)"},
      {kModel,
       {"model.kind=mae", "model.rope=axial", "model.decoder_embed_dim=24"},
       "[config] model.decoder_embed_dim / model.decoder_num_heads must be a multiple of 4 for "
       "axial rope in 2-D but got 24 / 4 = 6; change one of them or model.rope  (command line: "
       "model.decoder_embed_dim=24, r.yaml:1:141, command line: model.rope=axial)"},
      {kModel,
       {"model.kind=diffusion", "model.rope=raster", "model.decoder_embed_dim=60"},
       "[config] model.decoder_embed_dim / model.decoder_num_heads must be a multiple of 2 for "
       "raster rope in 2-D but got 60 / 4 = 15; change one of them or model.rope  (command "
       "line: model.decoder_embed_dim=60, r.yaml:1:141, command line: model.rope=raster)"},
      {kModel,
       {"model.rope_theta=0"},
       "[config] model.rope_theta must be above 0 but got 0  (command line: model.rope_theta=0)"},
      {kModel,
       {"model.kind=mae", "model.decoder_rope_theta=-1"},
       "[config] model.decoder_rope_theta must be above 0 but got -1  (command line: "
       "model.decoder_rope_theta=-1)"},
      {kModel,
       {"model.kind=mae", "model.pos_embed=learned", "model.image_size=[8,8,8]",
        "model.embed_dim=64"},
       "[config] model.embed_dim must be a multiple of 6 for learned positions of mae in 3-D, "
       "which start as sincos, but got 64; 60 or 72 would do  (command line: "
       "model.embed_dim=64, command line: model.pos_embed=learned)"},
      {kModel,
       {"model.kind=mae", "model.image_size=[8,8,8]", "model.decoder_embed_dim=64"},
       "[config] model.decoder_embed_dim must be a multiple of 6 for sincos positions in 3-D "
       "but got 64; 60 or 72 would do  (command line: model.decoder_embed_dim=64)"},
      {kModel,
       {"model.kind=diffusion", "model.pos_embed=learned", "model.image_size=[8,8,8]",
        "model.embed_dim=64"},
       "[config] model.embed_dim must be a multiple of 6 for learned positions of diffusion in "
       "3-D, which start as sincos, but got 64; 60 or 72 would do  (command line: "
       "model.embed_dim=64, command line: model.pos_embed=learned)"},
      {kModel,
       {"model.kind=unetr", "model.pos_embed=sincos", "model.image_size=[8,8,8]",
        "model.embed_dim=64"},
       "[config] model.embed_dim must be a multiple of 6 for sincos positions in 3-D but got "
       "64; 60 or 72 would do  (command line: model.embed_dim=64, command line: "
       "model.pos_embed=sincos)"},
      {kModel,
       {"model.pos_embed=sincos", "model.image_size=[8,8,8]", "model.embed_dim=4"},
       "[config] model.embed_dim must be a multiple of 6 for sincos positions in 3-D but got 4; "
       "12 would do  (command line: model.embed_dim=4, command line: model.pos_embed=sincos)"},
      {kModel,
       {"model.variables=[u,v,u]", "model.in_channels=3"},
       "[config] model.variables[2] must differ from model.variables[0] but both are 'u'  "
       "(command line: model.variables=[u,v,u])"},
      {kModel,
       {"model.variables=[u,\"\"]", "model.in_channels=2"},
       "[config] model.variables[1] must be a name but is empty  (command line: "
       "model.variables=[u,\"\"])"},
      {kModel,
       {"model.variables=[u,v]", "model.in_channels=3"},
       "[config] model.in_channels must be the number of model.variables but got 3 and 2; leave "
       "model.in_channels out  (command line: model.in_channels=3, command line: "
       "model.variables=[u,v])"},
      {kModel,
       {"model.single_channel=true"},
       "[config] model.single_channel true needs model.variables but there are none; name the "
       "variables  (command line: model.single_channel=true)"},
      {kModel,
       {"model.variables=[u,v]", "model.in_channels=2", "model.embed_dim=45", "model.num_heads=5"},
       "[config] model.embed_dim must be even for model.variable_embedding but got 45  (command "
       "line: model.embed_dim=45)"},
      {kModel,
       {"model.aggregation.queries=0"},
       "[config] model.aggregation.queries must be at least 1 but got 0  (command line: "
       "model.aggregation.queries=0)"},
      {kModel,
       {"model.aggregation.queries=65"},
       "[config] model.aggregation.queries must be at most 64 but got 65  (command line: "
       "model.aggregation.queries=65)"},
      {kModel,
       {"model.aggregation.num_heads=5"},
       "[config] model.aggregation.num_heads must divide model.embed_dim but got 5 and 48  "
       "(command line: model.aggregation.num_heads=5, r.yaml:1:71)"},
      {kModel,
       {"model.aggregation.num_heads=0"},
       "[config] model.aggregation.num_heads must be at least 1 but got 0  (command line: "
       "model.aggregation.num_heads=0)"},
      {kModel,
       {"model.aggregation.groups=0"},
       "[config] model.aggregation.groups must be at least 1 but got 0  (command line: "
       "model.aggregation.groups=0)"},
      {kModel,
       {"model.variables=[u,v,w]", "model.in_channels=3", "model.aggregation.groups=2"},
       "[config] model.aggregation.groups must divide the number of model.variables but got 2 "
       "and 3  (command line: model.aggregation.groups=2, command line: model.variables=[u,v,w])"},
      {kModel,
       {"model.variables=[u,v,w]", "model.in_channels=3", "model.aggregation.groups=0"},
       "[config] model.aggregation.groups must be at least 1 but got 0  (command line: "
       "model.aggregation.groups=0)"},
      {kModel,
       {"model.kind=diffusion", "model.adaptive.fixed_length=16"},
       "[config] model.adaptive.fixed_length must be 0 for diffusion, which predicts whole "
       "images, but got 16  (command line: model.adaptive.fixed_length=16, command line: "
       "model.kind=diffusion)"},
      {kModel,
       {"model.adaptive.fixed_length=-1"},
       "[config] model.adaptive.fixed_length must be at least 0 but got -1  (command line: "
       "model.adaptive.fixed_length=-1)"},
      {kModel,
       {"model.adaptive.fixed_length=16", "model.rope=raster"},
       "[config] model.rope must be none with model.adaptive.fixed_length, whose tokens form no "
       "grid, but got raster  (command line: model.rope=raster, command line: "
       "model.adaptive.fixed_length=16)"},
      {kModel,
       {"model.kind=mae", "model.adaptive.fixed_length=3", "model.mask_ratio=0.9"},
       "[config] model.mask_ratio must keep and hide at least one of 3 patches but 0.9 keeps 0  "
       "(command line: model.mask_ratio=0.9)"},
      {kModel,
       {"model.adaptive={fixed_length: 16, value_floor: -2}"},
       "[config] model.adaptive.value_floor must be at least -1 but got -2  (command line: "
       "model.adaptive={fixed_length: 16, value_floor: -2})"},
      {kModel,
       {"model.adaptive={fixed_length: 16, importance: given, importance_channel: 1}"},
       "[config] model.adaptive.importance_channel must be at most 0 but got 1  (command line: "
       "model.adaptive={fixed_length: 16, importance: given, importance_channel: 1})"},
      {kModel,
       {"model.adaptive={fixed_length: 16, importance: feature_based}", "model.in_channels=3"},
       "[config] model.adaptive.scorer_weights must name the network's weights for the "
       "importance feature_based but is empty  (command line: model.adaptive={fixed_length: 16, "
       "importance: feature_based})"},
      {kModel,
       {"model.adaptive={fixed_length: 16, importance: feature_based, scorer_weights: w}"},
       "[config] model.adaptive.importance feature_based needs images of 2 sides and 3 "
       "channels  (command line: model.adaptive={fixed_length: 16, importance: feature_based, "
       "scorer_weights: w}, r.yaml:1:21, r.yaml:1:57)"},
      {kModel,
       {"model.adaptive={fixed_length: 16, trees: per_channel}"},
       "[config] model.adaptive.trees per_channel needs model.variables, several in a batch, "
       "whose embeddings tell the leaves apart  (command line: model.adaptive={fixed_length: "
       "16, trees: per_channel})"},
      {kModel,
       {"model.adaptive={fixed_length: 16, trees: per_channel}", "model.kind=sap",
        "model.variables=[u,v]", "model.in_channels=2"},
       "[config] model.adaptive.trees per_channel needs model.kind vit or mae but the kind is "
       "sap, which has one prediction a place  (command line: model.adaptive={fixed_length: 16, "
       "trees: per_channel}, command line: model.kind=sap)"},
      {kModel,
       {"model.adaptive={fixed_length: 16, trees: per_channel, importance: given}",
        "model.variables=[u,v]", "model.in_channels=2"},
       "[config] model.adaptive.trees per_channel divides each channel by its own pixels; "
       "model.adaptive.importance must not be given  (command line: "
       "model.adaptive={fixed_length: 16, trees: per_channel, importance: given})"},
      {kModel,
       {"model.adaptive={fixed_length: 15, compat: ucf-vit}"},
       "[config] model.adaptive.compat ucf-vit needs a model.adaptive.fixed_length of 3 n + 1 "
       "but got 15  (command line: model.adaptive={fixed_length: 15, compat: ucf-vit})"},
      {kModel,
       {"model.adaptive={fixed_length: 16, compat: ucf-vit}", "model.image_size=[12, 12]"},
       "[config] model.adaptive.compat ucf-vit needs equal sides that are powers of two but got "
       "[12, 12]  (command line: model.adaptive={fixed_length: 16, compat: ucf-vit}, command "
       "line: model.image_size=[12, 12])"},
      {kModel,
       {"model.adaptive={fixed_length: 16, compat: ucf-vit, order: raster}"},
       "[config] model.adaptive.compat ucf-vit has an order and edges of its own; leave "
       "model.adaptive.importance and model.adaptive.order out  (command line: "
       "model.adaptive={fixed_length: 16, compat: ucf-vit, order: raster})"},
      {kModel,
       {"model.adaptive={fixed_length: 16, area_weight: true}"},
       "[config] model.adaptive.area_weight needs a loss over leaves, that of mae or sap, but "
       "the kind is vit  (command line: model.adaptive={fixed_length: 16, area_weight: true})"},
      {kModel,
       {"model.adaptive={fixed_length: 16, loss_space: image}", "model.kind=unetr"},
       "[config] model.adaptive.loss_space image needs mae or sap but the kind is unetr  "
       "(command line: model.adaptive={fixed_length: 16, loss_space: image}, command line: "
       "model.kind=unetr)"},
      {kModel,
       {"model.adaptive={fixed_length: 16, loss_space: image, area_weight: true}",
        "model.kind=sap"},
       "[config] model.adaptive.area_weight belongs to loss_space leaf: on the image every "
       "pixel counts once already  (command line: model.adaptive={fixed_length: 16, loss_space: "
       "image, area_weight: true})"},
      {kModel,
       {"model.adaptive={fixed_length: 16, loss_space: image}", "model.kind=mae",
        "model.norm_pix_loss=true"},
       "[config] model.norm_pix_loss needs model.adaptive.loss_space leaf: normalised patches "
       "have no image to be pasted to  (command line: model.norm_pix_loss=true, command line: "
       "model.adaptive={fixed_length: 16, loss_space: image})"},
      {kModel,
       {"model.adaptive.fixed_length=16", "model.mixed_resolution={num_tokens: 4, max_patch: 4}"},
       "[config] model.mixed_resolution and model.adaptive are two ways to make tokens; leave "
       "one out  (command line: model.mixed_resolution={num_tokens: 4, max_patch: 4}, command "
       "line: model.adaptive.fixed_length=16)"},
      {kModel,
       {"model.mixed_resolution={num_tokens: 64}"},
       "[config] model.mixed_resolution.max_patch must divide every side of model.image_size "
       "but got 64 and [8, 8]  (r.yaml:1:21)"},
      {kModel,
       {"model.mixed_resolution={num_tokens: 4, max_patch: 6}"},
       "[config] model.mixed_resolution.max_patch must be the smallest patch times a power of "
       "two but got 6 and 2  (command line: model.mixed_resolution={num_tokens: 4, max_patch: "
       "6}, r.yaml:1:41)"},
      {kModel,
       {"model.mixed_resolution={num_tokens: 4, min_patch: 4, max_patch: 8}"},
       "[config] model.mixed_resolution.min_patch must equal model.patch_size, the edge of "
       "every token's pixels, but got 4 and 2  (command line: "
       "model.mixed_resolution={num_tokens: 4, min_patch: 4, max_patch: 8}, r.yaml:1:41)"},
      {kModel,
       {"model.mixed_resolution={num_tokens: 5, max_patch: 4}"},
       "[config] model.mixed_resolution.num_tokens must be 4 + 3 n and at most 16 but got 5: 4 "
       "patches of edge 4, and each division adds 3  (command line: "
       "model.mixed_resolution={num_tokens: 5, max_patch: 4})"},
      {kModel,
       {"model.mixed_resolution={num_tokens: 19, max_patch: 4}"},
       "[config] model.mixed_resolution.num_tokens must be 4 + 3 n and at most 16 but got 19: 4 "
       "patches of edge 4, and each division adds 3  (command line: "
       "model.mixed_resolution={num_tokens: 19, max_patch: 4})"},
      {kModel,
       {"model.mixed_resolution={num_tokens: 4, max_patch: 4}", "model.kind=diffusion"},
       "[config] model.mixed_resolution needs images of 2 sides, no model.variables, and a kind "
       "other than diffusion  (command line: model.mixed_resolution={num_tokens: 4, max_patch: "
       "4}, r.yaml:1:21, command line: model.kind=diffusion)"},
      {kModel,
       {"model.mixed_resolution={num_tokens: 4, max_patch: 4}", "model.rope=axial"},
       "[config] model.rope must be none with model.mixed_resolution.num_tokens, whose tokens "
       "form no grid, but got axial  (command line: model.rope=axial, command line: "
       "model.mixed_resolution={num_tokens: 4, max_patch: 4})"},
      {kModel,
       {"model.mixed_resolution={num_tokens: 4, max_patch: 4, scorer: given, scorer_channel: 3}"},
       "[config] model.mixed_resolution.scorer_channel must be at most 0 but got 3  (command "
       "line: model.mixed_resolution={num_tokens: 4, max_patch: 4, scorer: given, "
       "scorer_chann...)"},
      {kModel,
       {"model.mixed_resolution={num_tokens: 4, max_patch: 4, scorer: feature_based}"},
       "[config] model.mixed_resolution.scorer_weights must name the network's weights for the "
       "scorer feature_based but is empty  (command line: model.mixed_resolution={num_tokens: "
       "4, max_patch: 4, scorer: feature_based})\n[config] model.mixed_resolution.scorer "
       "feature_based needs 3 channels but model.in_channels is 1  (command line: "
       "model.mixed_resolution={num_tokens: 4, max_patch: 4, scorer: feature_based}, "
       "r.yaml:1:57)"},
      {kModel,
       {"data.patching=gpu"},
       "[config] data.patching must be one of auto, loader, step but got 'gpu'  (command line: "
       "data.patching=gpu)"},
      {kModel,
       {"model.adaptive={fixed_length: 16, order: hilbert}"},
       "[config] model.adaptive.order must be one of morton, raster but got 'hilbert'  (command "
       "line: model.adaptive={fixed_length: 16, order: hilbert})"},
      {kModel,
       {"model.preset=mae3d_2b", "model.kind=vit"},
       "[config] model.preset mae3d_2b is for model.kind mae but that is vit; leave model.kind "
       "out or take another preset  (command line: model.preset=mae3d_2b)"},
      {kModel,
       {"model.preset=mae3d_8b", "model.kind=mea", "model.num_kv_heads=null"},
       "[config] model.kind must be one of vit, mae, unetr, sap, diffusion, rat, vit_detection but got 'mea'; did "
       "you mean 'mae'?  (command line: model.kind=mea)"},
      {kModel,
       {"model.preset=mae3d_2c"},
       "[config] model.preset must be the name of a preset but got 'mae3d_2c'; did you mean "
       "'mae3d_2b'?  (command line: model.preset=mae3d_2c)"},
      {kModel,
       {"model.aggregation.kind=mean"},
       "[config] model.aggregation.kind must be one of cross_attention, linear but got 'mean'  "
       "(command line: model.aggregation.kind=mean)"},
      {kModel,
       {"model.aggregation.query=2"},
       "[config] model.aggregation.query is not a known key; vitrail check --reference lists "
       "them all  (command line: model.aggregation.query=2)"},
      {kModel,
       {"model.aggregation=2"},
       "[config] model.aggregation must be a map but got '2'  (command line: "
       "model.aggregation=2)"},
      {kModel,
       {"model.adaptive.length=196"},
       "[config] model.adaptive.length is not a known key; vitrail check --reference lists them "
       "all  (command line: model.adaptive.length=196)"},
      {kModel,
       {"train.optimizer.layer_decay=0"},
       "[config] train.optimizer.layer_decay must be above 0 and at most 1 but got 0  (command "
       "line: train.optimizer.layer_decay=0)"},
      {kModel,
       {"train.optimizer.layer_decay=1.5"},
       "[config] train.optimizer.layer_decay must be above 0 and at most 1 but got 1.5  "
       "(command line: train.optimizer.layer_decay=1.5)"},
      {kModel,
       {"model.proj_drop_rate=1"},
       "[config] model.proj_drop_rate must be at least 0 and below 1 but got 1  (command line: "
       "model.proj_drop_rate=1)"},
      {kModel,
       {"model.pos_drop_rate=1"},
       "[config] model.pos_drop_rate must be at least 0 and below 1 but got 1  (command line: "
       "model.pos_drop_rate=1)"},
      {kModel,
       {"model.drop_rate=-1"},
       "[config] model.drop_rate must be at least 0 and below 1 but got -1  (command line: "
       "model.drop_rate=-1)"},
      {kModel,
       {"model.register_tokens=-1"},
       "[config] model.register_tokens must be at least 0 but got -1  (command line: "
       "model.register_tokens=-1)"},
      {kModel,
       {"model.patch_size=0"},
       "[config] model.patch_size must be at least 1 but got 0  (command line: "
       "model.patch_size=0)"},
      {kModel,
       {"model.in_channels=0"},
       "[config] model.in_channels must be at least 1 but got 0  (command line: "
       "model.in_channels=0)"},
      {kModel,
       {"model.mlp_hidden_dim=0"},
       "[config] model.mlp_hidden_dim must be at least 1 but got 0  (command line: "
       "model.mlp_hidden_dim=0)"},
      {kModel,
       {"model.num_heads=0"},
       "[config] model.num_heads must be at least 1 but got 0  (command line: model.num_heads=0)"},
      {kModel,
       {"model.kind=mae", "model.decoder_depth=0"},
       "[config] model.decoder_depth must be at least 1 but got 0  (command line: "
       "model.decoder_depth=0)"},
      {kModel,
       {"model.kind=mae", "model.decoder_mlp_ratio=0"},
       "[config] model.decoder_mlp_ratio must be above 0 but got 0  (command line: "
       "model.decoder_mlp_ratio=0)"},
      {kModel,
       {"model.kind=mae", "model.decoder_embed_dim=0"},
       "[config] model.decoder_embed_dim must be at least 1 but got 0  (command line: "
       "model.decoder_embed_dim=0)"},
      {kModel,
       {"parallel.tensor=0"},
       "[config] parallel.tensor must be at least 1 but got 0  (command line: parallel.tensor=0)"},
      {kModel,
       {"parallel.bucket_mib=0"},
       "[config] parallel.bucket_mib must be above 0 but got 0  (command line: "
       "parallel.bucket_mib=0)"},
      {kModel,
       {"parallel.bucket_mib=65537"},
       "[config] parallel.bucket_mib must be at most 65536 but got 65537  (command line: "
       "parallel.bucket_mib=65537)"},
  };
  return table;
}

}  // namespace vitrail::config

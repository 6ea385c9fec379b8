#pragma once
/// Models that find boxes whose options do not go together.

#include "tests/config/bad_recipe.h"

namespace vitrail::config {

/// A small good recipe of a model that finds boxes.
constexpr const char* kDetection =
    "model:\n"
    "  kind: vit_detection\n"
    "  image_size: [32, 32]\n"
    "  patch_size: 8\n"
    "  num_classes: 3\n"
    "  embed_dim: 48\n"
    "  num_heads: 4\n"
    "  detection: {num_queries: 10}\n"
    "data:\n"
    "  sources: [{reader: voc, root: x}]\n"
    "train: {epochs: 2}\n";

inline const std::vector<BadRecipe>& bad_detections() {
  static const std::vector<BadRecipe> table{
      {kDetection,
       {"model.loss=mse"},
       "[config] model.loss must be boxes for vit_detection but got mse  (command line: "
       "model.loss=mse, r.yaml:2:9)"},
      {kDetection,
       {"model.image_size=[8, 32, 32]", "data.sources[0].reader=random", "data.sources[0].root=8"},
       "[config] model.image_size must be [H, W] where boxes are learnt but has 3 sides  (command "
       "line: model.image_size=[8, 32, 32], r.yaml:2:9)"},
      {kDetection,
       {"model.num_classes=0"},
       "[config] model.num_classes must be at least 1 where boxes are learnt, the background not "
       "counted, but got 0  (command line: model.num_classes=0, r.yaml:2:9)"},
      {kDetection,
       {"model.class_token=true"},
       "[config] model.class_token must be false for vit_detection, which has no use for it, but "
       "is true  (command line: model.class_token=true, r.yaml:2:9)"},
      {kDetection,
       {"model.adaptive.fixed_length=7"},
       "[config] tokens of many sizes need another model.kind than vit_detection, whose boxes are "
       "found on a grid of patches  (command line: model.adaptive.fixed_length=7, r.yaml:2:9)"},
      {kDetection,
       {"model.detection.decoder_embed_dim=30", "model.detection.decoder_num_heads=3"},
       "[config] model.detection.decoder_embed_dim must be a multiple of 4 for the sines and "
       "cosines of boxes but got 30  (command line: model.detection.decoder_embed_dim=30)"},
      {kDetection,
       {"model.detection.decoder_num_heads=5"},
       "[config] model.embed_dim must be a multiple of model.detection.decoder_num_heads but got "
       "48 and 5  (r.yaml:6:14, command line: model.detection.decoder_num_heads=5)"},
      {kDetection,
       {"model.detection.decoder_depth=0"},
       "[config] model.detection.decoder_depth must be at least 1 for learned queries, which know "
       "nothing of the image yet, but got 0; use queries: grid  (command line: "
       "model.detection.decoder_depth=0)"},
      {kDetection,
       {"model.detection.num_queries=17", "model.detection.queries=grid"},
       "[config] model.detection.num_queries must be at most the 16 tokens that queries of the "
       "grid come from but got 17  (command line: model.detection.num_queries=17, r.yaml:3:15)"},
      {kDetection,
       {"model.detection.num_queries=0"},
       "[config] model.detection.num_queries must be at least 1 but got 0  (command line: "
       "model.detection.num_queries=0)"},
      {kDetection,
       {"model.detection.l1_weight=0", "model.detection.giou_weight=0"},
       "[config] model.detection.l1_weight or giou_weight must be above 0 but both are 0: nothing "
       "would teach the boxes  (command line: model.detection.l1_weight=0, command line: "
       "model.detection.giou_weight=0)"},
      {kDetection,
       {"model.detection.class_weight=-1"},
       "[config] model.detection.class_weight must be at least 0 but got -1  (command line: "
       "model.detection.class_weight=-1)"},
      {kDetection,
       {"model.detection.focal_alpha=2"},
       "[config] model.detection.focal_alpha must be from 0 to 1 but got 2  (command line: "
       "model.detection.focal_alpha=2)"},
      {kDetection,
       {"model.detection.auxiliary_matches=3", "model.detection.auxiliary_losses=false"},
       "[config] model.detection.auxiliary_matches 3 needs model.detection.auxiliary_losses true "
       "but it is false  (command line: model.detection.auxiliary_matches=3, command line: "
       "model.detection.auxiliary_losses=false)"},
      {kDetection,
       {"model.detection.auxiliary_matches=3", "model.detection.matching=index"},
       "[config] model.detection.auxiliary_matches 3 needs model.detection.matching hungarian but "
       "it is index  (command line: model.detection.auxiliary_matches=3, command line: "
       "model.detection.matching=index)"},
      {kDetection,
       {"model.class_weights=[1, 1, 2]"},
       "[config] model.class_weights must be empty where boxes are learnt; "
       "model.detection.no_object_weight and focal_alpha weigh classes there  (command line: "
       "model.class_weights=[1, 1, 2], r.yaml:2:9)"},
      {kDetection,
       {"model.label_smoothing=0.1"},
       "[config] model.label_smoothing must be 0 where boxes are learnt but got 0.1  (command "
       "line: model.label_smoothing=0.1, r.yaml:2:9)"},
      {kDetection,
       {"model.drop_rate=0.1"},
       "[config] model.drop_rate must be 0 where boxes are learnt, whose head drops nothing, but "
       "got 0.1  (command line: model.drop_rate=0.1, r.yaml:2:9)"},
      {kDetection,
       {"data.sources[0].augment=[flip, mixup:0.2]"},
       "[config] data.sources[0].augment[1] 'mixup:0.2' puts another sample's pixels into an image "
       "but not its boxes; leave it out where boxes are learnt  (command line: "
       "data.sources[0].augment=[flip, mixup:0.2])"},
      {kDetection,
       {"data.sources[0].augment=[cutmix:1]"},
       "[config] data.sources[0].augment[0] 'cutmix:1' puts another sample's pixels into an image "
       "but not its boxes; leave it out where boxes are learnt  (command line: "
       "data.sources[0].augment=[cutmix:1])"},
      {kDetection,
       {"data.sources[0].reader=image_folder"},
       "[config] data.sources[0].reader must be a format with boxes (coco, voc, random) to train "
       "or "
       "evaluate a model that finds boxes but image_folder holds none  (command line: "
       "data.sources[0].reader=image_folder)"},
  };
  return table;
}

}  // namespace vitrail::config

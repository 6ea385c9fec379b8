#pragma once
/// Sources whose options do not go together or do not fit the model.

#include "tests/config/bad_recipe.h"

namespace vitrail::config {

inline const std::vector<BadRecipe>& bad_sources() {
  static const std::vector<BadRecipe> table{
      {kSegmentation,
       {"model.kind=sap", "data.sources[0]={reader: digits, root: x, labels: y}"},
       "[config] data.sources[0].labels needs the reader images, image_stack or nifti but it is "
       "digits  (command line: data.sources[0]={reader: digits, root: x, labels: y})"},
      {kSegmentation,
       {"data.sources[0].reader=image_folder"},
       "[config] data.sources[0].labels needs the reader images, image_stack or nifti but it is "
       "image_folder  (r.yaml:8:47, command line: data.sources[0].reader=image_folder)"},
      {kSegmentation,
       {"data.sources[0].labels="},
       "[config] data.sources[0].labels must name the masks to train or evaluate unetr but is "
       "empty  (command line: data.sources[0].labels=)"},
      {kSegmentation,
       {"eval.sources=[{reader: images, root: x}]"},
       "[config] eval.sources[0].labels must name the masks to train or evaluate unetr but is "
       "empty  (command line: eval.sources=[{reader: images, root: x}])"},
      {kSegmentation,
       {"data.sources[0].label_maps=[a]", "data.sources[0].labels="},
       "[config] data.sources[0].label_maps needs the reader nifti but it is images  (command "
       "line: data.sources[0].label_maps=[a], r.yaml:8:22)"},
      {kSegmentation,
       {"data.sources[0]={reader: nifti, root: x, labels: y, label_maps: [a]}"},
       "[config] data.sources[0].label_maps and data.sources[0].labels exclude each other but "
       "both are given  (command line: data.sources[0]={reader: nifti, root: x, labels: y, "
       "label_maps: [a]})"},
      {kSegmentation,
       {"data.sources[0]={reader: nifti, root: x, label_maps: [a, b]}"},
       "[config] data.sources[0].label_maps must hold one map per class from 1 on, "
       "model.num_classes - 1 = 1, but holds 2  (command line: data.sources[0]={reader: nifti, "
       "root: x, label_maps: [a, b]})"},
      {kSegmentation,
       {"data.sources[0].label_values=[0,0]"},
       "[config] data.sources[0].label_values must differ from each other but got [0, 0]  "
       "(command line: data.sources[0].label_values=[0,0])"},
      {kSegmentation,
       {"data.sources[0].label_values=[0,1,2]"},
       "[config] data.sources[0].label_values must hold model.num_classes = 2 values but holds "
       "3  (command line: data.sources[0].label_values=[0,1,2])"},
      {kSegmentation,
       {"data.sources[0]={reader: nifti, root: x, label_maps: [a], label_values: [0, 1]}"},
       "[config] data.sources[0].label_values needs data.sources[0].labels, whose values it "
       "names, but that is empty  (command line: data.sources[0]={reader: nifti, root: x, "
       "label_maps: [a], label_values: [0, 1]})"},
      {kSegmentation,
       {"data.sources[0].region=[0,1]"},
       "[config] data.sources[0].region must be start and end of 2 axes, 4 numbers, with 0 <= "
       "start < end <= 1 but got [0, 1]  (command line: data.sources[0].region=[0,1])"},
      {kSegmentation,
       {"data.sources[0].region=[0,1,0.5,0.5]"},
       "[config] data.sources[0].region must be start and end of 2 axes, 4 numbers, with 0 <= "
       "start < end <= 1 but got [0, 1, 0.5, 0.5]  (command line: "
       "data.sources[0].region=[0,1,0.5,0.5])"},
      {kSegmentation,
       {"data.sources[0].region=[0,1,0.5,1.5]"},
       "[config] data.sources[0].region must be start and end of 2 axes, 4 numbers, with 0 <= "
       "start < end <= 1 but got [0, 1, 0.5, 1.5]  (command line: "
       "data.sources[0].region=[0,1,0.5,1.5])"},
      {kSegmentation,
       {"data.sources[0].region=[-0.1,1,0,1]"},
       "[config] data.sources[0].region must be start and end of 2 axes, 4 numbers, with 0 <= "
       "start < end <= 1 but got [-0.1, 1, 0, 1]  (command line: "
       "data.sources[0].region=[-0.1,1,0,1])"},
      {kSegmentation,
       {"data.sources[0]={reader: nifti, root: x, labels: y, slices: 0, region: [0,1,0,1]}"},
       "[config] data.sources[0].region must be start and end of 3 axes, 6 numbers, with 0 <= "
       "start < end <= 1 but got [0, 1, 0, 1]  (command line: data.sources[0]={reader: nifti, "
       "root: x, labels: y, slices: 0, region: [0,1,0,1]...)"},
      {kSegmentation,
       {"data.sources[0].slices=0"},
       "[config] data.sources[0].slices needs the reader image_stack or nifti but it is images  "
       "(command line: data.sources[0].slices=0, r.yaml:8:22)"},
      {kSegmentation,
       {"data.sources[0]={reader: nifti, root: x, labels: y, slices: 3}"},
       "[config] data.sources[0].slices must be at most 2 but got 3  (command line: "
       "data.sources[0]={reader: nifti, root: x, labels: y, slices: 3})"},
      {kSegmentation,
       {"model.image_size=[16,16,16]",
        "data.sources[0]={reader: nifti, root: x, labels: y, slices: 0}"},
       "[config] data.sources[0].slices needs model.image_size [H, W] but it has 3 sides  "
       "(command line: data.sources[0]={reader: nifti, root: x, labels: y, slices: 0}, command "
       "line: model.image_size=[16,16,16])"},
      {kSegmentation,
       {"model.image_size=[16,16,16]"},
       "[config] data.sources[0].reader images reads images of 2 sides but model.image_size has "
       "3; the reader image_stack makes volumes of them  (r.yaml:8:22, command line: "
       "model.image_size=[16,16,16])"},
      {kSegmentation,
       {"data.sources[0].reader=image_stack"},
       "[config] data.sources[0].reader image_stack reads volumes of 3 sides but "
       "model.image_size has 2; set data.sources[0].slices or use the reader images  (command "
       "line: data.sources[0].reader=image_stack, r.yaml:3:15)"},
      {kSegmentation,
       {"data.sources[0].random_crop.size=[16]"},
       "[config] data.sources[0].random_crop.size must be model.image_size [16, 16] or empty "
       "but got [16]  (command line: data.sources[0].random_crop.size=[16], r.yaml:3:15)\n"
       "[config] data.sources[0].random_crop.per_epoch must be at least 1 with "
       "data.sources[0].random_crop.size but got 0  (command line: "
       "data.sources[0].random_crop.size=[16])"},
      {kSegmentation,
       {"data.sources[0].random_crop={size: [8, 8], per_epoch: 4}"},
       "[config] data.sources[0].random_crop.size must be model.image_size [16, 16] or empty "
       "but got [8, 8]  (command line: data.sources[0].random_crop={size: [8, 8], per_epoch: "
       "4}, r.yaml:3:15)"},
      {kSegmentation,
       {"data.sources[0].random_crop.size=[16,16]"},
       "[config] data.sources[0].random_crop.per_epoch must be at least 1 with "
       "data.sources[0].random_crop.size but got 0  (command line: "
       "data.sources[0].random_crop.size=[16,16])"},
      {kSegmentation,
       {"data.sources[0].random_crop.per_epoch=-1"},
       "[config] data.sources[0].random_crop.per_epoch must be at least 0 but got -1  (command "
       "line: data.sources[0].random_crop.per_epoch=-1)"},
      {kSegmentation,
       {"data.sources[0].random_crop.per_epoch=2000000"},
       "[config] data.sources[0].random_crop.per_epoch must be at most 1048576 but got 2000000  "
       "(command line: data.sources[0].random_crop.per_epoch=2000000)"},
      {kSegmentation,
       {"data.sources[0].random_crop.per_epoch=4", "data.sources[0].tile=[16,16]"},
       "[config] data.sources[0].random_crop.per_epoch and data.sources[0].tile exclude each "
       "other but got 4 and [16, 16]; crops are for training, tiles for evaluation  (command "
       "line: data.sources[0].random_crop.per_epoch=4, command line: "
       "data.sources[0].tile=[16,16])"},
      {kSegmentation,
       {"data.sources[0].tile=[8,8]"},
       "[config] data.sources[0].tile must be model.image_size [16, 16] or empty but got [8, 8] "
       " (command line: data.sources[0].tile=[8,8], r.yaml:3:15)"},
      {kSegmentation,
       {"data.sources[0].overlap=[0.5,0.5]"},
       "[config] data.sources[0].overlap must hold one ratio for each side of "
       "data.sources[0].tile but holds 2 for 0  (command line: "
       "data.sources[0].overlap=[0.5,0.5])"},
      {kSegmentation,
       {"data.sources[0].tile=[16,16]", "data.sources[0].overlap=[0.5]"},
       "[config] data.sources[0].overlap must hold one ratio for each side of "
       "data.sources[0].tile but holds 1 for 2  (command line: data.sources[0].overlap=[0.5], "
       "command line: data.sources[0].tile=[16,16])"},
      {kSegmentation,
       {"data.sources[0].tile=[16,16]", "data.sources[0].overlap=[0.5,0.95]"},
       "[config] data.sources[0].overlap[1] must be at least 0 and at most 0.9 but got 0.95  "
       "(command line: data.sources[0].overlap=[0.5,0.95])"},
      {kSegmentation,
       {"data.sources[0].tile=[16,16]", "data.sources[0].overlap=[-0.1,0]"},
       "[config] data.sources[0].overlap[0] must be at least 0 and at most 0.9 but got -0.1  "
       "(command line: data.sources[0].overlap=[-0.1,0])"},
      {kSegmentation,
       {"data.sources[0].normalize=percentile"},
       "[config] data.sources[0].percentile must be [low, high] with 0 <= low < high <= 100 for "
       "normalize percentile but got []  (r.yaml:8:13)"},
      {kSegmentation,
       {"data.sources[0].normalize={percentile: [99, 1]}"},
       "[config] data.sources[0].percentile must be [low, high] with 0 <= low < high <= 100 for "
       "normalize percentile but got [99, 1]  (command line: "
       "data.sources[0].normalize={percentile: [99, 1]})"},
      {kSegmentation,
       {"data.sources[0].normalize={percentile: [1, 101]}"},
       "[config] data.sources[0].percentile must be [low, high] with 0 <= low < high <= 100 for "
       "normalize percentile but got [1, 101]  (command line: "
       "data.sources[0].normalize={percentile: [1, 101]})"},
      {kSegmentation,
       {"data.sources[0].normalize={percentile: [-1, 99]}"},
       "[config] data.sources[0].percentile must be [low, high] with 0 <= low < high <= 100 for "
       "normalize percentile but got [-1, 99]  (command line: "
       "data.sources[0].normalize={percentile: [-1, 99]})"},
      {kSegmentation,
       {"data.sources[0].percentile=[1, 99]"},
       "[config] data.sources[0].percentile needs data.sources[0].normalize percentile but it "
       "is unit  (command line: data.sources[0].percentile=[1, 99])"},
      {kSegmentation,
       {"data.sources[0].normalize={mean: [0.5]}"},
       "[config] data.sources[0].normalize must be a word, {mean: [...], std: [...]} or "
       "{percentile: [low, high]} but got another map  (command line: "
       "data.sources[0].normalize={mean: [0.5]})"},
      {kSegmentation,
       {"data.sources[0].normalize={mean: [0.5], std: [0.5]}", "data.sources[0].std=[0.1]"},
       "[config] data.sources[0].std is also given inside normalize  (command line: "
       "data.sources[0].normalize={mean: [0.5], std: [0.5]})"},
      {kSegmentation,
       {"data.sources[0].normalize=null"},
       "[config] data.sources[0].normalize must be one of unit, minmax, percentile, none but "
       "got null  (command line: data.sources[0].normalize=null)"},
      {kSegmentation,
       {"data.sources[0].normalize=zscore"},
       "[config] data.sources[0].normalize must be one of unit, minmax, percentile, none but "
       "got 'zscore'  (command line: data.sources[0].normalize=zscore)"},
      {kSegmentation,
       {"model.image_size=[16,32]", "data.sources[0].augment=[flips,rot90]"},
       "[config] data.sources[0].augment[1] rot90 needs the last two sides of model.image_size "
       "to be equal but they are 16 and 32  (command line: "
       "data.sources[0].augment=[flips,rot90], command line: model.image_size=[16,32])"},
      {kSegmentation,
       {"data.sources[0].variables=[u]"},
       "[config] data.sources[0].variables[0] must be one of model.variables [] but got 'u'  "
       "(command line: data.sources[0].variables=[u])"},
      {kSegmentation,
       {"model.variables=[u,v]", "data.sources[0].variables=[u,w]"},
       "[config] data.sources[0].variables[1] must be one of model.variables [u, v] but got 'w' "
       " (command line: data.sources[0].variables=[u,w], command line: model.variables=[u,v])"},
      {kSegmentation,
       {"model.variables=[u,v]", "data.sources[0].variables=[u,u]"},
       "[config] data.sources[0].variables[1] repeats 'u'; name each variable once  (command "
       "line: data.sources[0].variables=[u,u])"},
      {kSegmentation,
       {"model.variables=[u,v]", "data.sources[0].variables=[u]", "data.sources[0].mean=[0.5,0.5]"},
       "[config] data.sources[0].mean must hold 1 number or one for each of "
       "data.sources[0].variables, 1, but holds 2  (command line: "
       "data.sources[0].mean=[0.5,0.5], command line: data.sources[0].variables=[u])"},
      {kSegmentation,
       {"model.variables=[u,v]", "data.sources[0].variables=[u]",
        "data.sources[1]={reader: random, variables: [v]}"},
       "[config] data.sources[1].variables must be those of data.sources[0] but got [v] and [u] "
       " (command line: data.sources[1]={reader: random, variables: [v]}, command line: "
       "data.sources[0].variables=[u])"},
      {kSegmentation,
       {"model.kind=vit", "model.num_classes=2"},
       "[config] data.sources[0].reader must be image_folder, nifti, digits or random to train "
       "or evaluate a classifier but images holds no classes  (r.yaml:8:22)"},
      {kSegmentation,
       {"model.kind=sap", "model.adaptive.fixed_length=16"},
       "[config] model.adaptive.fixed_length must be 0 to train in this version, which reads no "
       "adaptive patches, but got 16; vitrail forward takes them  (command line: "
       "model.adaptive.fixed_length=16)"},
      {kSegmentation,
       {"model.image_size=[16,16,16]",
        "data.sources=[{reader: image_folder, root: x},{reader: digits, root: x}]",
        "model.kind=mae", "model.pos_embed=none"},
       "[config] data.sources[0].reader image_folder reads images of 2 sides but "
       "model.image_size has 3  (command line: data.sources=[{reader: image_folder, root: "
       "x},{reader: digits, root: x}], command line: model.image_size=[16,16,16])\n"
       "[config] data.sources[1].reader digits reads images of 2 sides but model.image_size has "
       "3  (command line: data.sources=[{reader: image_folder, root: x},{reader: digits, root: "
       "x}], command line: model.image_size=[16,16,16])"},
      {kSegmentation,
       {"data.sources[0].label_reader=nifti"},
       "[config] data.sources[0].label_reader is not in this version; labels are read as the "
       "images are  (command line: data.sources[0].label_reader=nifti)"},
      {kSegmentation,
       {"data.sources[0].array=volumes/raw"},
       "[config] data.sources[0].array is not in this version  (command line: "
       "data.sources[0].array=volumes/raw)"},
      {kSegmentation,
       {"data.sources[0].channels=[0]"},
       "[config] data.sources[0].channels is not in this version  (command line: "
       "data.sources[0].channels=[0])"},
      {kSegmentation,
       {"data.sources[0].use_all_data=true"},
       "[config] data.sources[0].use_all_data is not in this version; tile covers all of an "
       "image, its last window flush with the end  (command line: "
       "data.sources[0].use_all_data=true)"},
      {kSegmentation,
       {"data.sources[0].reader=zarr"},
       "[config] data.sources[0].reader 'zarr' is not in this version; there are image_folder, "
       "images, image_stack, nifti, digits, random  (command line: data.sources[0].reader=zarr)"},
      {kSegmentation,
       {"data.share=load_once"},
       "[config] data.share is not in this version  (command line: data.share=load_once)"},
      {kSegmentation,
       {"data.sources[0].resize=[0,16]"},
       "[config] data.sources[0].resize[0] must be at least 1 but got 0  (command line: "
       "data.sources[0].resize=[0,16])"},
      {kSegmentation,
       {"data.sources[0].mean=[0.5,0.5]"},
       "[config] data.sources[0].mean must hold 1 or model.in_channels = 3 numbers but holds 2  "
       "(command line: data.sources[0].mean=[0.5,0.5])"},
      {kSegmentation,
       {"data.sources[0].std=[1,1]"},
       "[config] data.sources[0].std must hold 1 or model.in_channels = 3 numbers but holds 2  "
       "(command line: data.sources[0].std=[1,1])"},
  };
  return table;
}

}  // namespace vitrail::config

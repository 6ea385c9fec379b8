#pragma once
/// Sources whose options do not go together or do not fit the model.

#include "tests/config/bad_recipe.h"

namespace vitrail::config {

inline const std::vector<BadRecipe>& bad_sources() {
  static const std::vector<BadRecipe> table{
      {kSegmentation,
       {"model.kind=sap", "data.sources[0]={reader: digits, root: x, labels: y}"},
       "[config] data.sources[0].labels needs the reader images, image_stack, nifti, npy, raw, "
       "tiff, zarr, n5, idx, coco or voc but it is digits  (command line: data.sources[0]={reader: "
       "digits, root: x, labels: y})"},
      {kSegmentation,
       {"data.sources[0].reader=image_folder"},
       "[config] data.sources[0].labels needs the reader images, image_stack, nifti, npy, raw, "
       "tiff, zarr, n5, idx, coco or voc but it is image_folder  (r.yaml:8:47, command line: "
       "data.sources[0].reader=image_folder)"},
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
       "[config] data.sources[0].slices needs the reader image_stack, nifti, npy, raw, tiff, "
       "zarr or n5 but it is images  (command line: data.sources[0].slices=0, r.yaml:8:22)"},
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
       "[config] data.sources[0].random_crop.size must have as many sides as model.image_size "
       "[16, 16] but got [16]  (command line: data.sources[0].random_crop.size=[16], r.yaml:3:15)\n"
       "[config] data.sources[0].random_crop.per_epoch must be at least 1 with "
       "data.sources[0].random_crop.size but got 0  (command line: "
       "data.sources[0].random_crop.size=[16])"},
      {kSegmentation,
       {"data.sources[0].random_crop={size: [8, 0], per_epoch: 4}"},
       "[config] data.sources[0].random_crop.size[1] must be at least 1 but got 0  (command line: "
       "data.sources[0].random_crop={size: [8, 0], per_epoch: 4})"},
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
       {"data.sources[0].tile=[8,-8]"},
       "[config] data.sources[0].tile[1] must be at least 1 but got -8  (command line: "
       "data.sources[0].tile=[8,-8])"},
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
       "[config] data.sources[0].augment[1] 'rot90' needs the last two sides to be equal but "
       "got 16 and 32; make model.image_size (and resize) square  (command line: "
       "data.sources[0].augment=[flips,rot90])"},
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
       "[config] data.sources[0].reader must be a format with classes (image_folder, image_list, "
       "cifar, idx, nifti, npy, zarr, n5, tar, digits, random) to train or evaluate a classifier "
       "but images holds none  (r.yaml:8:22)"},
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
       {"data.sources[0].label_reader=csv"},
       "[config] data.sources[0].label_reader must be one of same, images, nifti, npy, raw, tiff, "
       "zarr, n5 but got 'csv'  (command line: data.sources[0].label_reader=csv)"},
      {kSegmentation,
       {"data.sources[0].label_reader=zarr", "data.sources[0].labels="},
       "[config] data.sources[0].label_reader needs data.sources[0].labels, which it reads, but "
       "that is empty  (command line: data.sources[0].label_reader=zarr, command line: "
       "data.sources[0].labels=)\n[config] data.sources[0].labels must name the masks to train "
       "or evaluate unetr but is empty  (command line: data.sources[0].labels=)"},
      {kSegmentation,
       {"data.sources[0].array=volumes/raw"},
       "[config] data.sources[0].array needs the reader npy, zarr or n5 but it is images  (command "
       "line: data.sources[0].array=volumes/raw, r.yaml:8:22)"},
      {kSegmentation,
       {"data.sources[0].channels=[0]"},
       "[config] data.sources[0].channels needs the reader npy, raw, tiff, zarr or n5 but it is "
       "images  (command line: data.sources[0].channels=[0], r.yaml:8:22)\n[config] "
       "data.sources[0].channels must choose 3 channels but chooses 1  (command line: "
       "data.sources[0].channels=[0])"},
      {kSegmentation,
       {"data.sources[0].reader=zarr", "data.sources[0].channels=[1,1]", "model.in_channels=2"},
       "[config] data.sources[0].channels[1] repeats 1; name each channel once  (command line: "
       "data.sources[0].channels=[1,1])"},
      {kSegmentation,
       {"data.sources[0].reader=zarr", "data.sources[0].axes=yq"},
       "[config] data.sources[0].axes must be different letters out of n c t z y x but got 'yq'  "
       "(command line: data.sources[0].axes=yq)"},
      {kSegmentation,
       {"data.sources[0].reader=zarr", "data.sources[0].axes=zyx"},
       "[config] data.sources[0].axes must have 2 of the letters z y x, as many sides as "
       "model.image_size, but got 'zyx'  (command line: data.sources[0].axes=zyx, r.yaml:3:15)"},
      {kSegmentation,
       {"data.sources[0].reader=raw"},
       "[config] data.sources[0].dtype and data.sources[0].shape must say what the bytes of the "
       "reader raw are but got '' and []  (r.yaml:8:13)"},
      {kSegmentation,
       {"data.sources[0].dtype=uint8"},
       "[config] data.sources[0].dtype, data.sources[0].shape and data.sources[0].offset need "
       "data.sources[0].reader raw but it is images, whose files say so themselves  (command line: "
       "data.sources[0].dtype=uint8, r.yaml:8:22)"},
      {kSegmentation,
       {"data.sources[0].split={list: a.txt, start: 0.5}"},
       "[config] data.sources[0].split_list names the samples and excludes data.sources[0].split "
       "and data.sources[0].split_hash  (command line: data.sources[0].split={list: a.txt, start: "
       "0.5})"},
      {kSegmentation,
       {"data.sources[0].split={part: val}"},
       "[config] data.sources[0].split_part needs data.sources[0].split_hash, whose range it is a "
       "part of  (command line: data.sources[0].split={part: val})"},
      {kSegmentation,
       {"data.sources[0].reader=hdf5"},
       "[config] data.sources[0].reader 'hdf5' is not in this version; there are image_folder, "
       "image_list, images, image_stack, cifar, idx, nifti, npy, raw, tiff, zarr, n5, coco, voc, "
       "tar, digits, random  (command line: data.sources[0].reader=hdf5)"},
      {kSegmentation,
       {"data.ranks_per_source=[1]"},
       "[config] data.ranks_per_source needs data.mixing rank but it is sample  (command line: "
       "data.ranks_per_source=[1])"},
      {kSegmentation,
       {"data.read_timeout_s=-1"},
       "[config] data.read_timeout_s must be at least 0 but got -1  (command line: "
       "data.read_timeout_s=-1)"},
      {kSegmentation,
       {"data.share=one_rank"},
       "[config] data.share must be one of every_rank, load_once but got 'one_rank'  (command line: "
       "data.share=one_rank)"},
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

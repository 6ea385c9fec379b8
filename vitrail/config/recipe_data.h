#pragma once
/// The recipe's section `data`: what it is trained on. See recipe.h for how fields are described.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "vitrail/config/choice.h"

namespace vitrail::config {

/// Windows drawn anew every epoch.
struct RandomCrop {
  std::vector<int64_t> size;
  int64_t per_epoch = 0;
  bool align = false;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("size", self.size, "side lengths of the window; empty = model.image_size");
    visit("per_epoch", self.per_epoch, "windows of each image or volume in an epoch; 0 = none");
    visit("align", self.align,
          "windows begin where chunks of the file begin, so that as few as possible are read");
  }
  bool operator==(const RandomCrop&) const = default;
};

/// One source of samples; see docs/data.md.
struct Source {
  std::string name;
  Choice reader{"image_folder",
                {"image_folder", "image_list", "images", "image_stack", "cifar", "idx", "nifti",
                 "npy", "raw", "tiff", "zarr", "n5", "coco", "voc", "tar", "digits", "random"}};
  std::string root;
  std::string array;
  std::string axes;
  std::string dtype;
  std::vector<int64_t> shape;
  int64_t offset = 0;
  std::vector<int64_t> channels;
  std::string labels;
  Choice label_reader{"same", {"same", "images", "nifti", "npy", "raw", "tiff", "zarr", "n5"}};
  std::string label_array;
  std::vector<std::string> label_maps;
  std::vector<int64_t> label_values;
  std::vector<std::string> variables;
  double weight = 1.0;
  std::vector<double> split;
  std::string split_list;
  std::optional<int64_t> split_hash;
  Choice split_part{"all", {"all", "train", "val", "test"}};
  std::vector<double> region;
  std::optional<int64_t> slices;
  RandomCrop random_crop;
  std::vector<int64_t> tile;
  std::vector<double> overlap;
  bool use_all_data = true;
  Choice normalize{"unit", {"unit", "minmax", "percentile", "none"}};
  std::vector<double> percentile;
  std::string statistics;
  std::vector<int64_t> resize;
  std::vector<double> mean;
  std::vector<double> std;
  std::vector<std::string> augment;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("name", self.name, "name in logs and metrics; default: the reader's name");
    visit("reader", self.reader, "format of the source");
    visit("root", self.root, "file, folder or glob");
    visit("array", self.array,
          "zarr, n5, npz: path of the array inside the container; empty = the only array, or the "
          "largest scale of an OME-NGFF image");
    visit("axes", self.axes,
          "npy, raw, tiff, zarr, n5: a letter for each axis of a file: n samples, c channels, "
          "z y x; empty = as the file says, else [n] [c] sides");
    visit("dtype", self.dtype,
          "raw: type of a number: uint8 ... float64, with < or > in front for the byte order");
    visit("shape", self.shape, "raw: length of each axis of a file, the last one fastest");
    visit("offset", self.offset, "raw: bytes before the first number");
    visit("channels", self.channels,
          "which channels of a file are used, in this order; empty = all");
    visit("labels", self.labels,
          "file, folder or glob of masks (of target values where model.loss compares values), in "
          "the order of the images");
    visit("label_reader", self.label_reader, "format of the labels");
    visit("label_array", self.label_array,
          "zarr, n5, npz: path of the labels' array inside their container");
    visit("label_maps", self.label_maps,
          "nifti: one probability map per class from 1 on; a voxel's class is the largest map of "
          "at least 0.5, else 0");
    visit("label_values", self.label_values,
          "value in a mask of class 0, 1, ...; empty = values are classes");
    visit("variables", self.variables,
          "names of the channels, out of model.variables; empty = all of them in order");
    visit("weight", self.weight, "share of samples when there are several sources");
    visit("split", self.split,
          "[start, end) as ratios of the sorted list, taken before any shuffle; empty = all");
    visit("split_list", self.split_list,
          "text file of the samples that are used, one path (relative to root) or number a line; "
          "also written split: {list: FILE}");
    visit("split_hash", self.split_hash,
          "splits by a hash of each sample's path and this number, so that a sample stays on its "
          "side when others come; also written split: {hash: N, part: train}");
    visit("split_part", self.split_part,
          "with split_hash: train takes 80 %, val 10 %, test 10 % of the hash's range");
    visit("region", self.region,
          "part of every image or volume that is used: start and end ratio per axis; empty = all");
    visit("slices", self.slices,
          "cut volumes into 2-D slices across this axis (0, 1 or 2); null = whole volumes");
    visit("random_crop", self.random_crop, "training windows at random places");
    visit("tile", self.tile,
          "cut images or volumes into windows of these sides that cover them; the last of a row is "
          "flush with the end; empty = whole");
    visit("overlap", self.overlap,
          "tile: shared part of neighbours as a ratio per axis; empty = 0");
    visit("use_all_data", self.use_all_data,
          "tile: false leaves out the last window of a row where it would be flush with the end");
    visit("normalize", self.normalize,
          "values to [0, 1] before mean and std: by the type's full scale (floats as they are), by "
          "each image's own range, by its percentiles, or not at all");
    visit("percentile", self.percentile, "normalize percentile: [low, high] in percent");
    visit("statistics", self.statistics,
          "JSON file of vitrail data inspect --statistics: mean and std where they are not given, "
          "and the range of minmax and percentile for the data as a whole");
    visit("resize", self.resize,
          "side lengths to resize to (bilinear, half-pixel centres); empty = model.image_size");
    visit("mean", self.mean,
          "subtracted per channel after normalize; empty = 0.5, with normalize none 0");
    visit("std", self.std, "divided by per channel after that; empty = 0.5, with normalize none 1");
    visit("augment", self.augment,
          "training steps in order, as NAME or NAME:NUMBER:...; docs/data.md lists them");
  }
  bool operator==(const Source&) const = default;
};

struct Data {
  int64_t batch_size = 64;
  int64_t workers = 2;
  int64_t prefetch = 4;
  bool drop_last = true;
  Choice on_error{"stop", {"stop", "skip"}};
  double max_broken = 0.01;
  double read_timeout_s = 600;
  int64_t read_retries = 1;
  Choice share{"every_rank", {"every_rank", "load_once"}};
  Choice patching{"auto", {"auto", "loader", "step"}};
  double cache_gib = 2.0;
  Choice mixing{"sample", {"sample", "batch", "rank"}};
  std::vector<int64_t> ranks_per_source;
  std::vector<Source> sources;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("batch_size", self.batch_size, "global: samples per optimizer step over all ranks");
    visit("workers", self.workers, "reading threads per rank");
    visit("prefetch", self.prefetch, "batches kept ready per rank");
    visit("drop_last", self.drop_last,
          "training skips the last incomplete global batch of an epoch");
    visit("on_error", self.on_error,
          "a broken file stops the run, or is named and replaced by the next sample");
    visit("max_broken", self.max_broken,
          "on_error skip: the run stops when more than this share of the samples (and more than "
          "10) is broken");
    visit("read_timeout_s", self.read_timeout_s,
          "a read that takes longer counts as broken; 0 = never");
    visit("read_retries", self.read_retries,
          "how often a read that failed or took too long is tried again");
    visit("share", self.share,
          "ranks that need the same samples (pipeline, sequence, tensor): each reads them for "
          "itself, "
          "or the first of them reads and sends them to the others");
    visit("patching", self.patching,
          "where adaptive leaves are made: by the loader's threads, in the step on the model's "
          "device, or auto: in the step on a GPU or behind augmentation done there");
    visit("cache_gib", self.cache_gib, "memory for decoded files and chunks per rank");
    visit("mixing", self.mixing,
          "what is made of several sources: a sample of any in every place, one source a batch, or "
          "one source a rank");
    visit("ranks_per_source", self.ranks_per_source,
          "mixing rank: data ranks of each source; empty = by measured cost (vitrail balance)");
    visit("sources", self.sources, "where samples come from");
  }
  bool operator==(const Data&) const = default;
};

}  // namespace vitrail::config

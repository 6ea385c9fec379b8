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

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("size", self.size, "side lengths of the window; empty = model.image_size");
    visit("per_epoch", self.per_epoch, "windows of each image or volume in an epoch; 0 = none");
  }
  bool operator==(const RandomCrop&) const = default;
};

/// One source of samples; see docs/data.md.
struct Source {
  std::string name;
  Choice reader{"image_folder",
                {"image_folder", "images", "image_stack", "nifti", "digits", "random"}};
  std::string root;
  std::string labels;
  std::vector<std::string> label_maps;
  std::vector<int64_t> label_values;
  std::vector<std::string> variables;
  double weight = 1.0;
  std::vector<double> split;
  std::vector<double> region;
  std::optional<int64_t> slices;
  RandomCrop random_crop;
  std::vector<int64_t> tile;
  std::vector<double> overlap;
  Choice normalize{"unit", {"unit", "minmax", "percentile", "none"}};
  std::vector<double> percentile;
  std::vector<int64_t> resize;
  std::vector<double> mean;
  std::vector<double> std;
  std::vector<std::string> augment;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("name", self.name, "name in logs and metrics; default: the reader's name");
    visit("reader", self.reader, "format of the source");
    visit("root", self.root, "file, folder or (images, image_stack, nifti) glob");
    visit("labels", self.labels,
          "images, image_stack, nifti: file, folder or glob of masks, in the order of the images");
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
    visit("normalize", self.normalize,
          "values to [0, 1] before mean and std: by the type's full scale (floats as they are), by "
          "each image's own range, by its percentiles, or not at all");
    visit("percentile", self.percentile, "normalize percentile: [low, high] in percent");
    visit("resize", self.resize,
          "side lengths to resize to (bilinear, half-pixel centres); empty = model.image_size");
    visit("mean", self.mean,
          "subtracted per channel after normalize; empty = 0.5, with normalize none 0");
    visit("std", self.std, "divided by per channel after that; empty = 0.5, with normalize none 1");
    visit("augment", self.augment,
          "training steps in order: flip, flips (every axis), rot90 (last two axes), crop:PAD, "
          "shift:PIXELS");
  }
  bool operator==(const Source&) const = default;
};

struct Data {
  int64_t batch_size = 64;
  int64_t workers = 2;
  int64_t prefetch = 4;
  bool drop_last = true;
  Choice on_error{"stop", {"stop", "skip"}};
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
    visit("sources", self.sources, "where samples come from");
  }
  bool operator==(const Data&) const = default;
};

}  // namespace vitrail::config

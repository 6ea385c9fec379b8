#pragma once
/// Which axis of an array is what.

#include <cstdint>
#include <string>
#include <vector>

#include "vitrail/io/array.h"

namespace vitrail::data {

/// Axes of a file by their meaning; -1 = the file lacks it.
struct ArrayAxes {
  int64_t samples = -1, channels = -1;
  std::vector<int64_t> sides;  // one per side of an image: [z] y x
};

/// What is known beforehand.
struct AxesRule {
  std::string letters;       // of the source: n c z y x t; empty = as the file says
  size_t sides = 2;          // of an image: 2 or 3
  bool has_samples = false;  // k + 1 axes without letters are samples and sides, not channels and
                             // sides (labels of images that have a samples' axis)
};

/// The source's letters, else the file's, else by their number: k axes are the sides, k + 1 channels
/// and sides, k + 2 samples, channels and sides. t, and z for images of two sides, may be one long;
/// a z that the file lacks counts as one.
/// throws   DataError naming `path`: letters that do not fit the file; ConfigError: letters that are
///          none.
ArrayAxes find_axes(const io::ArrayFile& file, const AxesRule& rule, const std::string& path);

}  // namespace vitrail::data

#pragma once
/// Reads the values of a source once, by many threads, and keeps what describes them.

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/reader.h"
#include "vitrail/data/statistics.h"

namespace vitrail::data {

/// Called now and then by any thread, by one at a time: parts of files done, of how many.
using Progress = std::function<void(int64_t done, int64_t total)>;

struct ValuesReport {
  SourceStatistics statistics;
  std::map<int64_t, int64_t> mask_pixels;  // class -> pixels
  std::map<int64_t, std::string> broken;   // number in the list -> message; these count nowhere
};

/// Values and masks of up to `max_samples` files spread evenly over the list.
///
/// Memory   per thread a decoded file, of readers that read boxes a box of about 8 million values.
/// Threads  the result does not depend on how many.
ValuesReport read_values(const Reader& reader, const config::Source& source,
                         const config::Model& model, int64_t workers, int64_t max_samples,
                         const Progress& progress);

/// Boxes of about `values` values, multiples of the reader's chunks, that cover an image of `sides`
/// without overlap.
std::vector<Box> boxes_of(const std::vector<int64_t>& sides, const std::vector<int64_t>& chunk,
                          int64_t values);

}  // namespace vitrail::data

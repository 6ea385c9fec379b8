#pragma once
/// The keys split, split_list, split_hash and split_part of a source as places of its sorted list.
///
/// Rules    split alone: ratios of the list. split_list alone. split_hash: every sample has a number u
///          in [0, 1), a function of its name and of split_hash; split_part takes train [0, 0.8), val
///          [0.8, 0.9), test [0.9, 1), or split takes its [start, end) of u. Any other two of them
///          exclude each other.
/// Order    always that of the sorted list; a split never repeats a sample.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"

namespace vitrail::data {

struct SplitRange {
  int64_t first = 0, last = 0;
};

/// [llround(start * size), llround(end * size)); all without a split.
/// throws   ConfigError: not 0 <= start < end <= 1. DataError naming `path`: an empty part.
SplitRange split_range(const config::Source& source, int64_t size, const std::string& path);

/// The name that a sample has in a split: its path relative to source.root, or to the folder of a
/// root that is a file or a glob; the path itself when it lies elsewhere.
std::string split_name(const std::string& root, const std::string& path);

/// u of a sample: FNV-1a (64 bits) over the bytes of the name, started from its offset basis ^
/// mix64(number), finished by mix64; the upper 53 bits over 2^53.
double split_unit(const std::string& name, int64_t number);

/// True when the split names samples one by one instead of a run of the list.
bool chooses_by_name(const config::Source& source);

/// The places of the samples that a list or a hash takes, ascending. `path_of` gives the path of a
/// sample as Reader::describe does.
/// throws   ConfigError: keys that exclude each other. DataError: a list that cannot be read, a line
///          of it that names no sample or one that was named before, no sample left.
std::vector<int64_t> split_places(const config::Source& source, int64_t size,
                                  const std::function<std::string(int64_t)>& path_of);

}  // namespace vitrail::data

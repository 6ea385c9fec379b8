#pragma once
/// How many data ranks each source gets: by largest remainder of what the sources cost.

#include <cstdint>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"

namespace vitrail::data {

/// `total` whole shares, at least one for every part, in proportion to `costs`.
///
/// Rule     with the quota q = total * cost / sum of costs, a part gets max(1, floor(q)). What is left
///          goes, one at a time, to the largest q - shares; what is too much is taken, one at a time,
///          from the smallest q - shares among the parts of more than one. Of equal ones the part of
///          the larger cost per share counts as the needier, then the earlier.
/// Needs    costs above zero.
/// throws   ConfigError: fewer shares than parts, a cost that is not above zero; `what` names the
///          shares, e.g. "data ranks".
std::vector<int64_t> balance(const std::vector<int64_t>& costs, int64_t total,
                             const std::string& what = "data ranks");

/// What a source costs per epoch.
struct SourceCost {
  std::string name;
  int64_t files = 0;
  int64_t windows = 0;  // of an epoch, before source.weight
  int64_t samples = 0;  // of an epoch: llround(weight * windows)
  int64_t cost = 0;     // sum over files of windows * pixels * channels, times the weight
};

/// Reads every header of every file, on `threads` threads; no pixels.
/// throws   as open_reader and Windows; DataError of the first broken header in order.
std::vector<SourceCost> measure_costs(const std::vector<config::Source>& sources,
                                      const config::Model& model, int64_t threads);

/// The assignment that mixing: rank uses, for people and programs.
struct Balance {
  struct Row {
    SourceCost source;
    int64_t ranks = 0;
    int64_t batches =
        0;            // of each of its ranks until every sample was read once, the last one filled
    double idle = 0;  // share of an epoch's batches that are further passes over its samples
  };
  std::vector<Row> rows;
  int64_t data_ranks = 0, batch_size = 0;
  int64_t iterations = 0;  // of an epoch, on every rank: the largest of `batches`
  /// 1 - (needed batches of all ranks) / (iterations * data_ranks).
  double idle = 0;
};

/// throws   as balance and measure_costs; ConfigError: data.batch_size not a multiple of the ranks,
///          data.ranks_per_source that do not fit.
Balance balance_recipe(const config::Recipe& recipe, int64_t data_ranks);
std::string to_text(const Balance& balance);
std::string to_json(const Balance& balance);

}  // namespace vitrail::data

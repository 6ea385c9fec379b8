#include <cmath>

#include "vitrail/core/error.h"
#include "vitrail/data/loader.h"

namespace vitrail::data {
namespace {

Mixing mixing_of(const config::Choice& word) {
  if (word == "batch") return Mixing::batch;
  if (word == "rank") return Mixing::rank;
  return Mixing::sample;
}

/// A GPU makes leaves faster than the threads beside it.
Patching patching_of(const config::Choice& word, bool on_gpu) {
  if (word == "loader") return Patching::loader;
  if (word == "step" || on_gpu) return Patching::step;
  return Patching::automatic;
}

}  // namespace

LoaderOptions loader_options(const config::Recipe& recipe, int64_t data_rank, int64_t data_ranks,
                             bool pin) {
  const config::Data& data = recipe.data;
  VT_REQUIRE(ConfigError, data.cache_gib >= 0 && data.cache_gib <= 1 << 20,
             "[data] data.cache_gib must lie in [0, 2^20] but is {}", data.cache_gib);
  LoaderOptions options;
  options.global_batch = data.batch_size;
  options.data_rank = data_rank;
  options.data_ranks = data_ranks;
  options.workers = data.workers;
  options.prefetch = data.prefetch;
  options.drop_last = data.drop_last;
  options.skip_errors = data.on_error == "skip";
  options.pin_memory = pin;
  options.seed = static_cast<uint64_t>(recipe.run.seed);
  options.max_broken = data.max_broken;
  options.read_timeout_s = data.read_timeout_s;
  options.read_retries = data.read_retries;
  options.cache_bytes = std::llround(data.cache_gib * (int64_t{1} << 30));
  options.mixing = mixing_of(data.mixing);
  options.ranks_per_source = data.ranks_per_source;
  options.patching = patching_of(data.patching, pin);
  return options;
}

LoaderOptions evaluation_options(const config::Recipe& recipe, int64_t data_rank,
                                 int64_t data_ranks, bool pin) {
  LoaderOptions options = loader_options(recipe, data_rank, data_ranks, pin);
  const bool is_own = recipe.eval.batch_size > 0;
  if (is_own) options.global_batch = recipe.eval.batch_size;
  VT_REQUIRE(ConfigError, options.global_batch % data_ranks == 0,
             "[layout] {} must be a multiple of the data ranks but got {} and {}",
             is_own ? "eval.batch_size" : "data.batch_size", options.global_batch, data_ranks);
  options.training = false;
  options.drop_last = false;
  options.mixing = Mixing::sample;
  return options;
}

}  // namespace vitrail::data

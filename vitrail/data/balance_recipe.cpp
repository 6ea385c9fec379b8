#include <algorithm>

#include "vitrail/core/error.h"
#include "vitrail/data/balance.h"
#include "vitrail/data/mixing.h"
#include <nlohmann/json.hpp>

namespace vitrail::data {

Balance balance_recipe(const config::Recipe& recipe, int64_t data_ranks) {
  VT_REQUIRE(ConfigError, data_ranks >= 1, "[balance] --ranks must be at least 1 but is {}",
             data_ranks);
  VT_REQUIRE(ConfigError, recipe.data.batch_size % data_ranks == 0,
             "[balance] data.batch_size must be a multiple of the data ranks but got {} for {} "
             "ranks",
             recipe.data.batch_size, data_ranks);
  const std::vector<SourceCost> costs =
      measure_costs(recipe.data.sources, recipe.model, std::max<int64_t>(recipe.data.workers, 1));
  Balance result{{}, data_ranks, recipe.data.batch_size, 0, 0};
  const std::vector<int64_t> ranks = assign_ranks(costs, recipe.data.ranks_per_source, data_ranks);
  const int64_t per_rank = recipe.data.batch_size / data_ranks;
  double needed = 0;
  for (size_t s = 0; s < costs.size(); ++s) {
    const int64_t together = per_rank * ranks[s];
    result.rows.push_back({costs[s], ranks[s], (costs[s].samples + together - 1) / together, 0});
    result.iterations = std::max(result.iterations, result.rows.back().batches);
    needed += static_cast<double>(costs[s].samples) / static_cast<double>(per_rank);
  }
  const auto iterations = static_cast<double>(result.iterations);
  for (Balance::Row& row : result.rows)
    row.idle = 1 - static_cast<double>(row.source.samples) /
                       (iterations * static_cast<double>(per_rank * row.ranks));
  result.idle = 1 - needed / (iterations * static_cast<double>(data_ranks));
  return result;
}

std::string to_text(const Balance& balance) {
  size_t width = 6;
  for (const Balance::Row& row : balance.rows) width = std::max(width, row.source.name.size());
  std::string text = fmt::format("{:{}}  {:>10} {:>12} {:>18} {:>6} {:>10} {:>9}\n", "source",
                                 width, "files", "samples", "cost", "ranks", "batches", "repeated");
  for (const Balance::Row& row : balance.rows)
    text += fmt::format("{:{}}  {:>10} {:>12} {:>18} {:>6} {:>10} {:>8.1f}%\n", row.source.name,
                        width, row.source.files, row.source.samples, row.source.cost, row.ranks,
                        row.batches, 100 * row.idle);
  return text + fmt::format(
                    "{} data ranks, {} samples a rank and step, {} iterations an epoch; "
                    "{:.1f}% of them repeat samples\n",
                    balance.data_ranks, balance.batch_size / balance.data_ranks, balance.iterations,
                    100 * balance.idle);
}

std::string to_json(const Balance& balance) {
  nlohmann::ordered_json json{{"data_ranks", balance.data_ranks},
                              {"batch_size", balance.batch_size},
                              {"iterations", balance.iterations},
                              {"idle", balance.idle},
                              {"sources", nlohmann::ordered_json::array()}};
  for (const Balance::Row& row : balance.rows)
    json["sources"].push_back({{"name", row.source.name},
                               {"files", row.source.files},
                               {"windows", row.source.windows},
                               {"samples", row.source.samples},
                               {"cost", row.source.cost},
                               {"ranks", row.ranks},
                               {"batches", row.batches},
                               {"idle", row.idle}});
  return json.dump();
}

}  // namespace vitrail::data

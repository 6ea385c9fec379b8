#include "vitrail/data/balance.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "vitrail/core/checked.h"
#include "vitrail/core/error.h"
#include "vitrail/core/thread_pool.h"
#include "vitrail/data/reader.h"
#include "vitrail/data/windows.h"

namespace vitrail::data {
namespace {

__extension__ using Wide = __int128;  // products of two costs

/// Shares of one part, and how far they are from its quota.
class Part {
 public:
  Part(int64_t cost, int64_t sum, int64_t total) : cost_(cost), quota_(Wide{cost} * total) {
    shares = std::max<int64_t>(1, static_cast<int64_t>(quota_ / sum));
    sum_ = sum;
  }
  /// True when this part would rather get a share than the other.
  bool is_needier(const Part& other) const {
    const Wide mine = missing(), its = other.missing();
    if (mine != its) return mine > its;
    return Wide{cost_} * other.shares > Wide{other.cost_} * shares;
  }

  int64_t shares = 0;

 private:
  /// (quota - shares) * sum of costs.
  Wide missing() const { return quota_ - Wide{shares} * sum_; }

  int64_t cost_, sum_ = 0;
  Wide quota_;  // times the sum of costs
};

/// The pixels of a file's windows, all of equal sides.
int64_t pixels_of(const Reader& reader, const Windows& windows, int64_t file, int64_t first,
                  int64_t next) {
  const std::string path = reader.describe(file).path;
  const std::vector<int64_t> sides = reader.shape(file).sides;
  const Window window = windows.at(first, {}, sides, path);
  return core::checked_mul(core::checked_product(window.sides, "the pixels of a window"),
                           next - first, "the pixels of a file's windows");
}

int64_t measure(const Reader& reader, const Windows& windows, int64_t channels, int64_t threads) {
  const int64_t files = reader.size();
  std::vector<int64_t> pixels(static_cast<size_t>(files));
  core::parallel_for(static_cast<int>(std::max<int64_t>(threads, 1)), 0, files, 16,
                     [&](int64_t first, int64_t last) {
                       for (int64_t file = first; file < last; ++file)
                         pixels[static_cast<size_t>(file)] =
                             pixels_of(reader, windows, file, windows.first_of(file),
                                       windows.first_of(file + 1));
                     });
  int64_t sum = 0;
  for (const int64_t value : pixels)
    sum = core::checked_add(sum, value, "the pixels of a source's windows");
  return core::checked_mul(sum, channels, "the values of a source's windows");
}

}  // namespace

std::vector<int64_t> balance(const std::vector<int64_t>& costs, int64_t total,
                             const std::string& what) {
  const auto parts = static_cast<int64_t>(costs.size());
  VT_REQUIRE(ConfigError, parts > 0 && total >= parts,
             "[balance] there must be at least one of the {} for every source but got {} for {} "
             "sources; leave sources out or set data.mixing to sample",
             what, total, parts);
  int64_t sum = 0;
  for (const int64_t cost : costs) {
    VT_REQUIRE(ConfigError, cost > 0,
               "[balance] every source must cost more than nothing but got {}; leave out sources "
               "of weight 0",
               cost);
    sum = core::checked_add(sum, cost, "the cost of all sources");
  }
  std::vector<Part> shares;
  for (const int64_t cost : costs) shares.emplace_back(cost, sum, total);
  int64_t given = 0;
  for (const Part& part : shares) given += part.shares;
  for (; given < total; ++given)
    ++std::min_element(shares.begin(), shares.end(), [](const Part& a, const Part& b) {
        return a.is_needier(b);
      })->shares;
  for (; given > total; --given) {
    Part* least = nullptr;
    for (Part& part : shares)
      if (part.shares > 1 && (least == nullptr || !part.is_needier(*least))) least = &part;
    --least->shares;
  }
  std::vector<int64_t> result;
  for (const Part& part : shares) result.push_back(part.shares);
  return result;
}

std::vector<SourceCost> measure_costs(const std::vector<config::Source>& sources,
                                      const config::Model& model, int64_t threads) {
  std::vector<SourceCost> costs;
  for (const config::Source& source : sources) {
    const std::unique_ptr<Reader> reader = open_reader(source, model);
    const Windows windows(source, model, *reader, /*training=*/true);
    SourceCost cost{source_name(source), reader->size(), windows.size(), 0, 0};
    cost.samples = std::llround(source.weight * static_cast<double>(cost.windows));
    const int64_t values = measure(*reader, windows, channels_of(source, model), threads);
    cost.cost =
        source.weight == 1.0 ? values : std::llround(source.weight * static_cast<double>(values));
    costs.push_back(cost);
  }
  return costs;
}

}  // namespace vitrail::data

#include "vitrail/train/handshake.h"

#include <sstream>
#include <vector>

#include <fmt/ranges.h>

#include "vitrail/core/checksum.h"
#include "vitrail/core/error.h"

namespace vitrail::train {

namespace {

std::string ranks_text(const std::vector<size_t>& ranks) {
  return fmt::format("rank{} {}", ranks.size() == 1 ? "" : "s", fmt::join(ranks, ", "));
}

/// The ranks whose text equals that of the first rank that differs from rank 0; empty when all agree.
std::vector<size_t> first_dissenters(const std::vector<std::string>& of_rank) {
  std::vector<size_t> found;
  for (size_t rank = 1; rank < of_rank.size(); ++rank)
    if (of_rank[rank] != of_rank[0] && (found.empty() || of_rank[rank] == of_rank[found[0]]))
      found.push_back(rank);
  return found;
}

/// Number and text of the first line in which two texts differ.
std::string first_difference(const std::string& one, const std::string& other) {
  std::istringstream left(one), right(other);
  for (int line = 1;; ++line) {
    std::string a, b;
    const bool has_a = static_cast<bool>(std::getline(left, a));
    const bool has_b = static_cast<bool>(std::getline(right, b));
    if (!has_a && !has_b) return "nothing";
    if (a != b || has_a != has_b)
      return fmt::format("line {}: '{}' there, '{}' on rank 0", line, has_b ? b : "(end)",
                         has_a ? a : "(end)");
  }
}

std::string short_form(const std::string& text) {
  return fmt::format("{} {:08x}", text.size(), core::crc32c(text.data(), text.size()));
}

}  // namespace

void handshake(comm::Communicator& world, const Identity& mine) {
  const std::vector<std::string> versions = comm::gather_strings(world, mine.version);
  if (const auto ranks = first_dissenters(versions); !ranks.empty())
    core::fail<core::CommError>(
        "[handshake] all ranks must run the same program but {} run{} {} and rank 0 {}; check that "
        "every host sees the same build",
        ranks_text(ranks), ranks.size() == 1 ? "s" : "", versions[ranks[0]], versions[0]);

  const std::vector<std::string> forms = comm::gather_strings(world, short_form(mine.recipe));
  if (const auto ranks = first_dissenters(forms); !ranks.empty()) {
    const std::vector<std::string> recipes = comm::gather_strings(world, mine.recipe);
    core::fail<core::ConfigError>(
        "[handshake] all ranks must have the same recipe but that of {} differs, in {}; give every "
        "rank the same file and overrides",
        ranks_text(ranks), first_difference(recipes[0], recipes[ranks[0]]));
  }

  const std::vector<std::string> devices = comm::gather_strings(world, mine.device);
  if (const auto ranks = first_dissenters(devices); !ranks.empty())
    core::fail<core::CommError>(
        "[handshake] all ranks must compute on the same kind of device but {} on {} and rank 0 on "
        "{}; set run.device, or check CUDA_VISIBLE_DEVICES",
        ranks_text(ranks), devices[ranks[0]], devices[0]);
}

void handshake(comm::Communicator& world, const config::ResolvedRecipe& recipe,
               const std::string& version, at::Device device) {
  if (world.size() == 1) return;
  handshake(world, {version, device.is_cuda() ? "cuda" : "cpu", config::to_yaml(recipe.recipe)});
}

}  // namespace vitrail::train

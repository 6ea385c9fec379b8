#include "vitrail/train/checkpoint_load.h"

#include <algorithm>
#include <map>
#include <set>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/dtype.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {

namespace {

using core::CheckpointError;
using nlohmann::json;

constexpr size_t kShownDifferences = 5;
constexpr size_t kToldDifferences = 256;  // by each rank to the others

/// First differences of two sets of names, one kind of state at a time, in words.
class Differences {
 public:
  void add(const std::string& kind, bool in_checkpoint, std::string text) {
    if (!kind.empty()) (in_checkpoint ? extra_kinds_ : missing_kinds_).insert(kind);
    if (!seen_.insert(text).second) return;  // another rank said so
    if (shown_.size() < kShownDifferences) shown_.push_back(std::move(text));
  }
  void raise(const std::string& path) const {
    if (seen_.empty()) return;
    const size_t more = seen_.size() - shown_.size();
    core::fail<CheckpointError>("[checkpoint] {}: does not fit this run: {}{}{}", path,
                                fmt::join(shown_, "; "),
                                more ? fmt::format("; and {} more", more) : "", advice());
  }

 private:
  std::string advice() const {
    if (missing_kinds_.contains("ema"))
      return "; the checkpoint has no moving average (it was saved without train.ema_decay): "
             "remove train.ema_decay, or "
             "start anew with model.weights.path";
    if (extra_kinds_.contains("ema"))
      return "; the checkpoint holds a moving average: set train.ema_decay, or start anew with "
             "model.weights.path";
    if (!missing_kinds_.empty() || !extra_kinds_.empty())
      return "; it was saved with another train.optimizer.kind: use that one, or start anew with "
             "model.weights.path";
    return "; it was saved by another model: use its recipe, or another run.name";
  }
  std::set<std::string> missing_kinds_, extra_kinds_, seen_;
  std::vector<std::string> shown_;
};

/// What does not fit about a tensor that this rank has, in words; empty when it fits.
std::string why_unfit(const StatePiece& piece, const TensorEntry* entry) {
  const std::string shape = shape_text(piece.whole_shape);
  if (!entry) return fmt::format("{} {} is missing", piece.name, shape);
  if (entry->shape != piece.whole_shape)
    return fmt::format("{} must have shape {} but got {}", piece.name, shape,
                       shape_text(entry->shape));
  if (entry->dtype != piece.dtype)
    return fmt::format("{} must be {} but got {}", piece.name, core::name(piece.dtype),
                       core::name(entry->dtype));
  return "";
}

/// This rank's answer: which of the manifest's tensors it has (one character each), and what does not fit.
json answer_of(const Manifest& manifest, const std::vector<StatePiece>& pieces) {
  std::set<std::string> has;
  json unfit = json::array();
  for (const StatePiece& piece : pieces) {
    if (!has.insert(piece.name).second) continue;
    const auto found = manifest.tensors.find(piece.name);
    const bool missing = found == manifest.tensors.end();
    const std::string why = why_unfit(piece, missing ? nullptr : &found->second);
    if (!why.empty() && unfit.size() < kToldDifferences)
      unfit.push_back({missing ? kind_of(piece.name) : "", missing, why});
  }
  std::string held;
  for (const auto& [name, entry] : manifest.tensors) held += has.contains(name) ? '1' : '0';
  return {{"held", held}, {"unfit", unfit}};
}

}  // namespace

std::string kind_of(const std::string& name) {
  const size_t slash = name.find('/');
  return slash == std::string::npos ? "" : name.substr(0, slash);
}

void throw_together(comm::Communicator& group, const std::string& error) {
  const auto errors = comm::gather_strings(group, error);
  for (size_t rank = 0; rank < errors.size(); ++rank)
    VT_REQUIRE(CheckpointError, errors[rank].empty(), "{}{}", errors[rank],
               group.size() > 1 ? fmt::format(" (rank {})", rank) : "");
}

void check_fit(const Manifest& manifest, const std::string& path,
               const std::vector<StatePiece>& pieces, comm::Communicator& group) {
  const std::string mine =
      answer_of(manifest, pieces).dump(-1, ' ', false, json::error_handler_t::replace);
  Differences differences;
  std::string held(manifest.tensors.size(), '0');
  for (const std::string& text : comm::gather_strings(group, mine)) {
    const json answer = json::parse(text);
    const auto& has = answer["held"].get_ref<const std::string&>();
    VT_REQUIRE(CheckpointError, has.size() == held.size(),
               "[checkpoint] {}: ranks see different checkpoints there; is it on a file system "
               "that all ranks share?",
               path);
    for (size_t i = 0; i < held.size(); ++i)
      if (has[i] == '1') held[i] = '1';
    for (const json& unfit : answer["unfit"])
      differences.add(unfit[0].get<std::string>(), !unfit[1].get<bool>(),
                      unfit[2].get<std::string>());
  }
  size_t index = 0;
  for (const auto& [name, entry] : manifest.tensors)
    if (held[index++] == '0')
      differences.add(kind_of(name), true,
                      fmt::format("{} {} is not in this run", name, shape_text(entry.shape)));
  differences.raise(path);
}

void read_parts(const TensorEntry& entry, const std::string& name, const std::vector<Part>& parts,
                RegionReader& regions) {
  const int64_t width = core::size_bytes(entry.dtype);
  std::vector<RegionRun> runs;
  for (const Region& region : entry.regions) {
    const parallel::BoxRange source{entry.boxes[static_cast<size_t>(region.box)], region.start,
                                    region.count};
    runs.clear();
    for (const Part& part : parts)
      for_each_common_run(source, *part.range, [&](int64_t from, int64_t to, int64_t count) {
        runs.push_back({from * width, count * width, part.out + to * width});
      });
    std::sort(runs.begin(), runs.end(),
              [](const RegionRun& a, const RegionRun& b) { return a.first < b.first; });
    regions.read(region, name, runs);
  }
}

void fill_pieces(const Manifest& manifest, const std::vector<StatePiece>& pieces,
                 RegionReader& regions) {
  const at::NoGradGuard no_grad;
  std::map<std::string, std::vector<const StatePiece*>> by_name;
  for (const StatePiece& piece : pieces) by_name[piece.name].push_back(&piece);
  for (const auto& [name, held] : by_name) {
    std::vector<Part> parts;
    std::vector<std::pair<at::Tensor, at::Tensor>> copies;  // from host memory to where they belong
    for (const StatePiece* piece : held) {
      at::Tensor data = piece->data.detach();
      if (!data.device().is_cpu() || !data.is_contiguous()) {
        copies.emplace_back(at::empty(data.sizes(), data.options().device(at::kCPU)), data);
        data = copies.back().first;
      }
      parts.push_back({&piece->range, static_cast<char*>(data.mutable_data_ptr())});
    }
    read_parts(manifest.tensors.at(name), name, parts, regions);
    for (auto& [from, to] : copies) to.copy_(from);
  }
}

}  // namespace vitrail::train

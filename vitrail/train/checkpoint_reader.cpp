// Loading: every region is read in pieces, checked by its checksum, and copied where it belongs.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/core/checksum.h"
#include "vitrail/core/error.h"
#include "vitrail/ops/dtype.h"
#include "vitrail/train/checkpoint.h"
#include "vitrail/train/checkpoint_files.h"
#include "vitrail/train/checkpoint_folder.h"
#include "vitrail/train/checkpoint_manifest.h"
#include "vitrail/train/checkpoint_tensor.h"

namespace vitrail::train {

namespace {

namespace fs = std::filesystem;
using core::CheckpointError;
using core::fail;

constexpr int64_t kReadBytes = 4 << 20;

/// Checksum of a range of a file; the bytes go to `out` when it is not null.
uint32_t read_checked(const InputFile& file, int64_t offset, int64_t bytes, char* out) {
  std::vector<char> scratch(out ? 0 : static_cast<size_t>(std::min(bytes, kReadBytes)));
  uint32_t crc = 0;
  for (int64_t done = 0; done < bytes;) {
    const int64_t part = std::min(bytes - done, kReadBytes);
    char* place = out ? out + done : scratch.data();
    file.read(offset + done, place, part);
    crc = core::crc32c(place, static_cast<size_t>(part), crc);
    done += part;
  }
  return crc;
}

void check_crc(uint32_t expected, uint32_t got, const std::string& file, const std::string& what) {
  VT_REQUIRE(CheckpointError, expected == got,
             "[checkpoint] {}: {} must have checksum {:08x} but got {:08x}: the file is damaged",
             file, what, expected, got);
}

/// "blocks", "exp_avg", "ema": the kind of state a name belongs to.
std::string kind_of(const std::string& name) {
  const size_t slash = name.find('/');
  return slash == std::string::npos ? "" : name.substr(0, slash);
}

constexpr size_t kShownDifferences = 5;

/// First differences of two sets of names, one kind of state at a time, in words.
class Differences {
 public:
  void add(const std::string& kind, bool in_checkpoint, std::string text) {
    if (!kind.empty()) (in_checkpoint ? extra_kinds_ : missing_kinds_).insert(kind);
    if (shown_.size() < kShownDifferences) shown_.push_back(std::move(text));
    ++count_;
  }
  void raise(const std::string& path) const {
    if (count_ == 0) return;
    const size_t more = count_ - shown_.size();
    fail<CheckpointError>("[checkpoint] {}: does not fit this run: {}{}{}", path,
                          fmt::join(shown_, "; "), more ? fmt::format("; and {} more", more) : "",
                          advice());
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
  std::set<std::string> missing_kinds_, extra_kinds_;
  std::vector<std::string> shown_;
  size_t count_ = 0;
};

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.to(at::kDouble).contiguous(), y = b.to(at::kDouble).contiguous();
  const double *p = x.const_data_ptr<double>(), *q = y.const_data_ptr<double>();
  double largest = 0;
  for (int64_t i = 0; i < x.numel(); ++i) {
    if (p[i] == q[i] || (std::isnan(p[i]) && std::isnan(q[i]))) continue;
    const double difference = std::fabs(p[i] - q[i]);
    largest = std::max(largest, std::isnan(difference) ? INFINITY : difference);
  }
  return largest;
}

}  // namespace

std::vector<TensorState> state_tensors(parallel::UnitSet& units, Optimizer& optimizer) {
  std::vector<TensorState> tensors;
  units.for_each_slot([&](const parallel::ParameterSlot& slot) {
    tensors.push_back({slot.name, parallel::UnitSet::view(units.master(), slot)});
  });
  for (const Optimizer::State& state : optimizer.states())
    units.for_each_slot([&](const parallel::ParameterSlot& slot) {
      tensors.push_back({state.name + "/" + slot.name, parallel::UnitSet::view(state.arena, slot)});
    });
  return tensors;
}

CheckpointReader::CheckpointReader(const std::string& path) : path_(path) {
  std::error_code ignored;
  VT_REQUIRE(CheckpointError, fs::is_directory(path, ignored), "[checkpoint] {}: no such folder",
             path);
  const std::string name = (fs::path(path) / kManifestName).string();
  manifest_ = std::make_unique<Manifest>(parse_manifest(read_text(name, kMaxManifestBytes), name));
  const auto step = step_in_name(fs::path(path).filename().string());
  VT_REQUIRE(CheckpointError, !step || *step == manifest_->info.step,
             "[checkpoint] {}: the folder's name says step {} but the manifest says {}", name,
             step.value_or(0), manifest_->info.step);
  for (const auto& [file, entry] : manifest_->files) {
    const InputFile opened((fs::path(path) / file).string());
    VT_REQUIRE(CheckpointError, opened.size() == entry.bytes,
               "[checkpoint] {}/{}: must have {} bytes but got {}", path, file, entry.bytes,
               opened.size());
  }
}
CheckpointReader::~CheckpointReader() = default;
CheckpointReader::CheckpointReader(CheckpointReader&&) noexcept = default;

const CheckpointInfo& CheckpointReader::info() const { return manifest_->info; }

std::vector<std::string> CheckpointReader::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : manifest_->tensors) names.push_back(name);
  return names;
}

at::Tensor CheckpointReader::read(const std::string& name) const {
  const auto found = manifest_->tensors.find(name);
  VT_REQUIRE(CheckpointError, found != manifest_->tensors.end(),
             "[checkpoint] {}: holds no tensor {}", path_, name);
  const TensorEntry& entry = found->second;
  at::Tensor tensor = at::empty(entry.shape, ops::scalar_type(entry.dtype));
  auto* data = static_cast<char*>(tensor.mutable_data_ptr());
  for (const Region& region : entry.regions) {
    const std::string path = (fs::path(path_) / region.file).string();
    const uint32_t crc = read_checked(InputFile(path), region.offset, region.bytes,
                                      data + region.start * core::size_bytes(entry.dtype));
    check_crc(region.crc32c, crc, path, "tensor " + name);
  }
  return tensor;
}

void CheckpointReader::load(const std::vector<TensorState>& tensors) const {
  Differences differences;
  std::set<std::string> wanted;
  for (const auto& [name, tensor] : tensors) {
    wanted.insert(name);
    const auto found = manifest_->tensors.find(name);
    if (found == manifest_->tensors.end()) {
      differences.add(kind_of(name), false,
                      fmt::format("{} {} is missing", name, shape_text(tensor.sizes().vec())));
    } else if (found->second.shape != tensor.sizes()) {
      differences.add(
          "", true,
          fmt::format("{} must have shape {} but got {}", name, shape_text(tensor.sizes().vec()),
                      shape_text(found->second.shape)));
    } else if (found->second.dtype != dtype_of(tensor, name)) {
      differences.add(
          "", true,
          fmt::format("{} must be {} but got {}", name, core::name(dtype_of(tensor, name)),
                      core::name(found->second.dtype)));
    }
  }
  for (const auto& [name, entry] : manifest_->tensors)
    if (!wanted.contains(name))
      differences.add(kind_of(name), true,
                      fmt::format("{} {} is not in this run", name, shape_text(entry.shape)));
  differences.raise(path_);
  for (const auto& [name, tensor] : tensors) tensor.detach().copy_(read(name));
}

void CheckpointReader::verify(int part, int parts) const {
  std::map<std::string, std::vector<std::pair<const std::string*, const Region*>>> by_file;
  for (const auto& [name, entry] : manifest_->tensors)
    for (const Region& region : entry.regions) by_file[region.file].emplace_back(&name, &region);
  int index = 0;
  for (const auto& [file, entry] : manifest_->files) {
    if (index++ % parts != part) continue;
    const std::string path = (fs::path(path_) / file).string();
    const InputFile opened(path);
    check_crc(entry.header_crc32c, read_checked(opened, 0, entry.header_bytes, nullptr), path,
              "the header");
    for (const auto& [name, region] : by_file[file])
      check_crc(region->crc32c, read_checked(opened, region->offset, region->bytes, nullptr), path,
                "tensor " + *name);
  }
}

std::vector<nn::NamedTensor> read_parameters(const std::string& path, bool ema) {
  const CheckpointReader reader(resolve_checkpoint(path));
  const std::string kind = ema ? "ema" : "";
  std::vector<nn::NamedTensor> parameters;
  for (const std::string& name : reader.names())
    if (kind_of(name) == kind)
      parameters.push_back(
          {ema ? name.substr(kind.size() + 1) : name, reader.read(name).to(at::kFloat)});
  VT_REQUIRE(CheckpointError, !ema || !parameters.empty(),
             "[checkpoint] {}: holds no moving average of the weights; it was saved by a run "
             "without train.ema_decay",
             reader.path());
  return parameters;
}

std::vector<TensorDifference> compare_checkpoints(const CheckpointReader& a,
                                                  const CheckpointReader& b) {
  const auto &left = a.manifest().tensors, &right = b.manifest().tensors;
  std::vector<TensorDifference> result;
  for (const auto& [name, entry] : left) {
    const auto other = right.find(name);
    if (other == right.end())
      result.push_back({name, "only in the first"});
    else if (other->second.shape != entry.shape)
      result.push_back({name, fmt::format("shape {} and {}", shape_text(entry.shape),
                                          shape_text(other->second.shape))});
    else
      result.push_back({name, "", largest_difference(a.read(name), b.read(name))});
  }
  for (const auto& [name, entry] : right)
    if (!left.contains(name)) result.push_back({name, "only in the second"});
  std::sort(result.begin(), result.end(),
            [](const auto& x, const auto& y) { return x.name < y.name; });
  return result;
}

}  // namespace vitrail::train

// Opening, reading and comparing checkpoints.

#include <algorithm>
#include <cmath>
#include <filesystem>

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/dtype.h"
#include "vitrail/train/checkpoint.h"
#include "vitrail/train/checkpoint_files.h"
#include "vitrail/train/checkpoint_folder.h"
#include "vitrail/train/checkpoint_load.h"
#include "vitrail/train/checkpoint_manifest.h"
#include "vitrail/train/checkpoint_regions.h"

namespace vitrail::train {

namespace {

namespace fs = std::filesystem;
using core::CheckpointError;

const TensorEntry& entry_of(const Manifest& manifest, const std::string& name,
                            const std::string& path) {
  const auto found = manifest.tensors.find(name);
  VT_REQUIRE(CheckpointError, found != manifest.tensors.end(),
             "[checkpoint] {}: holds no tensor {}", path, name);
  return found->second;
}

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
  const TensorEntry& entry = entry_of(*manifest_, name, path_);
  at::Tensor tensor = at::empty(entry.shape, ops::scalar_type(entry.dtype));
  read(name, {parallel::whole_box(entry.shape), 0, entry.count()}, tensor.mutable_data_ptr());
  return tensor;
}

void CheckpointReader::read(const std::string& name, const parallel::BoxRange& range,
                            void* out) const {
  RegionReader regions(path_);
  read_parts(entry_of(*manifest_, name, path_), name, {{&range, static_cast<char*>(out)}}, regions);
  bytes_read_ += regions.bytes_read();
}

int64_t CheckpointReader::bytes_read() const { return bytes_read_; }

void CheckpointReader::load(const std::vector<TensorState>& tensors) const {
  load(whole_pieces(tensors), *comm::self_communicator());
}

void CheckpointReader::load(const std::vector<StatePiece>& pieces,
                            comm::Communicator& group) const {
  check_fit(*manifest_, path_, pieces, group);
  std::string error;
  try {
    RegionReader regions(path_);
    fill_pieces(*manifest_, pieces, regions);
    bytes_read_ += regions.bytes_read();
  } catch (const std::exception& raised) {
    error = raised.what();
  }
  throw_together(group, error);
}

void CheckpointReader::verify(int part, int parts) const {
  int64_t total = 0, place = 0;
  for (const auto& [name, file] : manifest_->files) total += file.bytes;
  // A block belongs to the part in which its first byte lies, all blocks one after another.
  const auto is_mine = [&](int64_t bytes) {
    const auto owner =
        static_cast<int>(static_cast<__int128>(place) * parts / std::max<int64_t>(total, 1));
    place += bytes;
    return owner == part;
  };
  RegionReader regions(path_);
  for (const auto& [name, file] : manifest_->files)
    if (is_mine(file.header_bytes)) regions.verify_header(name, file);
  for (const auto& [name, entry] : manifest_->tensors)
    for (const Region& region : entry.regions)
      for (int64_t block = 0; block < static_cast<int64_t>(region.crc32c.size()); ++block)
        if (is_mine(std::min(region.block_bytes(), region.bytes - block * region.block_bytes())))
          regions.verify_block(region, name, block);
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

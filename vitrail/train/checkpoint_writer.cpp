// Saving: snapshot on the caller's thread, then (on a thread of its own with `async`) write, vote,
// publish, prune.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <exception>
#include <mutex>
#include <set>
#include <thread>

#include <ATen/ops/empty.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/checksum.h"
#include "vitrail/core/clock.h"
#include "vitrail/core/error.h"
#include "vitrail/io/safetensors.h"
#include "vitrail/train/checkpoint.h"
#include "vitrail/train/checkpoint_files.h"
#include "vitrail/train/checkpoint_folder.h"
#include "vitrail/train/checkpoint_manifest.h"
#include "vitrail/train/checkpoint_tensor.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {

namespace {

using core::CheckpointError;
using core::fail;
using nlohmann::json;

/// Tells this attempt's folder from every other's.
std::string attempt_id() {
  static std::atomic<unsigned> counter{0};
  const auto now = std::chrono::system_clock::now().time_since_epoch().count();
  return fmt::format("{:x}-{:x}-{}", static_cast<uint64_t>(now), ::getpid(), counter++);
}

/// Runs `body`, which fills in this rank's answer, and exchanges answers. A failure anywhere is
/// thrown everywhere, so that no rank goes on alone or waits for one that gave up.
template <class Body>
std::vector<json> vote(comm::Communicator& group, Body&& body) {
  json mine = json::object();
  try {
    body(mine);
  } catch (const std::exception& error) {
    mine = {{"error", error.what()}};
  }
  std::vector<json> answers;
  const auto texts =
      comm::gather_strings(group, mine.dump(-1, ' ', false, json::error_handler_t::replace));
  for (const std::string& text : texts) answers.push_back(json::parse(text));
  for (size_t rank = 0; rank < answers.size(); ++rank)
    if (answers[rank].contains("error"))
      fail<CheckpointError>("{}{}; earlier checkpoints are unchanged",
                            answers[rank]["error"].get<std::string>(),
                            group.size() > 1 ? fmt::format(" (rank {})", rank) : "");
  return answers;
}

/// A tensor's description, kept after the snapshot.
struct Described {
  std::string name;
  core::DType dtype;
  std::vector<int64_t> shape;
};

/// This rank's share of one save, in host memory.
struct Job {
  CheckpointInfo info;
  std::vector<Described> tensors;
  std::vector<Piece> pieces;         // in the order of `staging`
  std::string error;                 // why the snapshot failed; voted on like a failed write
  std::optional<c10::Event> copied;  // device copies under way
};

/// Checksum over names, dtypes and shapes: ranks that disagree about the state must not write one
/// checkpoint.
uint32_t digest(const std::vector<Described>& tensors) {
  uint32_t crc = 0;
  for (const Described& tensor : tensors) {
    const std::string line =
        fmt::format("{} {} {}\n", tensor.name, core::name(tensor.dtype), shape_text(tensor.shape));
    crc = core::crc32c(line.data(), line.size(), crc);
  }
  return crc;
}

/// The head of this rank's file: whole tensors under their own names, parts as "name[start:end]".
std::string file_header(const Job& job, const std::string& path) {
  std::vector<io::TensorToWrite> entries;
  for (const Piece& piece : job.pieces) {
    const Described& tensor = job.tensors[piece.tensor];
    int64_t count = 1;
    for (const int64_t extent : tensor.shape) count *= extent;
    if (piece.count == count)
      entries.push_back({tensor.name, tensor.dtype, tensor.shape});
    else
      entries.push_back(
          {fmt::format("{}[{}:{}]", tensor.name, piece.start, piece.start + piece.count),
           tensor.dtype,
           {piece.count}});
  }
  const io::SafetensorsMetadata metadata{{"vitrail_step", std::to_string(job.info.step)}};
  return io::SafetensorsLayout::plan(entries, metadata, path).header;
}

}  // namespace

class CheckpointWriter::Impl {
 public:
  Impl(comm::Communicator& group, CheckpointOptions options)
      : options_(std::move(options)),
        files_(options_.before_operation),
        group_(group.split(0, group.rank())) {
    vote(*group_, [&](json&) {
      if (group_->rank() == 0) prepare_folder();
    });
  }
  ~Impl() {
    if (thread_.joinable()) thread_.join();
  }

  void save(const std::vector<TensorState>& tensors, const CheckpointInfo& info) {
    finish();
    job_ = Job{.info = info};
    job_.info.created_utc = core::utc_now();
    try {
      snapshot(tensors);
    } catch (const std::exception& error) {
      job_.error = error.what();
    }
    busy_ = true;
    if (options_.async) {
      thread_ = std::thread([this] { run(); });
    } else {
      run();
      throw_error();
    }
  }

  void finish() {
    if (thread_.joinable()) thread_.join();
    throw_error();
  }

  Saved last() const {
    const std::scoped_lock lock(mutex_);
    return last_;
  }
  bool busy() const { return busy_; }

 private:
  void prepare_folder() {
    core::make_directories(options_.folder);
    lock_.emplace(options_.folder, options_.lock_seconds);
    remove_unfinished(options_.folder);
    if (options_.start_step >= 0) set_aside_newer(options_.folder, options_.start_step);
  }

  void snapshot(const std::vector<TensorState>& tensors);
  void run() noexcept;
  void write();
  void write_share(const std::string& folder, json& answer);
  void publish(const std::string& unfinished, const std::string& final_path,
               const std::vector<json>& answers);
  void throw_error() {
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }
  std::string_view staged(int64_t offset, int64_t bytes) const {
    return {static_cast<const char*>(staging_.const_data_ptr()) + offset,
            static_cast<size_t>(bytes)};
  }

  CheckpointOptions options_;
  FileOperations files_;
  std::unique_ptr<comm::Communicator> group_;
  std::optional<FolderLock> lock_;
  at::Tensor staging_;  // bytes; pinned when the state is on a GPU; kept between saves
  Job job_;
  std::thread thread_;
  std::exception_ptr error_;  // written by the thread, read after joining it
  std::atomic<bool> busy_{false};
  mutable std::mutex mutex_;
  Saved last_;
};

void CheckpointWriter::Impl::snapshot(const std::vector<TensorState>& tensors) {
  std::set<std::string_view> names;
  std::optional<at::Device> device;
  for (const auto& [name, tensor] : tensors) {
    VT_REQUIRE(CheckpointError, tensor.defined() && tensor.is_contiguous(),
               "[checkpoint] tensor {} must be contiguous in memory", name);
    VT_REQUIRE(CheckpointError, names.insert(name).second, "[checkpoint] tensor {} appears twice",
               name);
    job_.tensors.push_back({name, dtype_of(tensor, name), tensor.sizes().vec()});
    if (!tensor.device().is_cpu()) device = tensor.device();
  }
  job_.pieces = even_share(tensors, group_->rank(), group_->size());
  int64_t bytes = 0;
  for (const Piece& piece : job_.pieces) bytes += piece.bytes;
  if (!staging_.defined() || staging_.numel() < bytes)
    staging_ =
        at::empty({bytes}, at::TensorOptions().dtype(at::kByte).pinned_memory(device.has_value()));

  int64_t offset = 0;
  for (const Piece& piece : job_.pieces) {
    const at::Tensor source =
        tensors[piece.tensor].tensor.detach().view({-1}).narrow(0, piece.start, piece.count);
    if (source.device().is_cpu())
      std::memcpy(static_cast<char*>(staging_.mutable_data_ptr()) + offset, source.const_data_ptr(),
                  static_cast<size_t>(piece.bytes));
    else
      staging_.narrow(0, offset, piece.bytes)
          .view(source.scalar_type())
          .copy_(source, /*non_blocking=*/true);
    offset += piece.bytes;
  }
  if (!device) return;
  // Work queued later on this stream runs after the copies, so the caller need not wait for them.
  const c10::impl::VirtualGuardImpl guard(device->type());
  job_.copied.emplace(device->type());
  job_.copied->record(guard.getStream(*device));
}

void CheckpointWriter::Impl::run() noexcept {
  const core::Stopwatch watch;
  try {
    if (job_.copied) job_.copied->synchronize();
    write();
    const std::scoped_lock lock(mutex_);
    last_.seconds = watch.seconds();
  } catch (...) {
    error_ = std::current_exception();
  }
  busy_ = false;
}

void CheckpointWriter::Impl::write() {
  const std::string final_path = options_.folder + "/" + step_folder_name(job_.info.step);
  std::string unfinished;
  try {
    const auto named = vote(*group_, [&](json& answer) {
      VT_REQUIRE(CheckpointError, job_.error.empty(), "{}", job_.error);
      answer["digest"] = digest(job_.tensors);
      if (group_->rank() != 0) return;
      unfinished = final_path + std::string(kUnfinishedMark) + attempt_id();
      files_.make_folder(unfinished);
      answer["folder"] = unfinished;
    });
    unfinished = named[0]["folder"].get<std::string>();
    for (size_t rank = 1; rank < named.size(); ++rank)
      VT_REQUIRE(
          CheckpointError, named[rank]["digest"] == named[0]["digest"],
          "[checkpoint] every rank must hold the same tensors but rank {} differs from rank 0",
          rank);
    const auto written = vote(*group_, [&](json& answer) { write_share(unfinished, answer); });
    const auto published = vote(*group_, [&](json& answer) {
      if (group_->rank() != 0) return;
      publish(unfinished, final_path, written);
      int64_t bytes = 0;
      for (const json& share : written) bytes += share["bytes"].get<int64_t>();
      answer["bytes"] = bytes;
    });
    const std::scoped_lock lock(mutex_);
    last_ = {final_path, job_.info.step, published[0]["bytes"].get<int64_t>(), 0};
  } catch (const CheckpointError&) {
    // All ranks are past writing: they have voted. Space matters most when the disk is full.
    if (group_->rank() == 0 && !unfinished.empty()) remove_folder(unfinished);
    throw;
  }
  if (group_->rank() == 0) {
    remove_folder(unfinished);  // an older checkpoint of the same step, exchanged for the new one
    if (options_.keep > 0) prune_after_save(options_.folder, options_.keep, final_path);
  }
}

void CheckpointWriter::Impl::write_share(const std::string& folder, json& answer) {
  const std::string name = fmt::format("rank-{:05}.safetensors", group_->rank());
  const std::string path = folder + "/" + name;
  const std::string header = file_header(job_, path);
  json regions = json::array();
  int64_t offset = 0;
  for (const Piece& piece : job_.pieces) {
    const std::string_view bytes = staged(offset, piece.bytes);
    regions.push_back({piece.tensor, static_cast<int64_t>(header.size()) + offset, piece.bytes,
                       piece.start, piece.count, core::crc32c(bytes.data(), bytes.size())});
    offset += piece.bytes;
  }
  files_.write_file(path, {header, staged(0, offset)});
  answer = {{"file", name},
            {"bytes", static_cast<int64_t>(header.size()) + offset},
            {"header_bytes", header.size()},
            {"header_crc32c", core::crc32c(header.data(), header.size())},
            {"regions", std::move(regions)}};
}

void CheckpointWriter::Impl::publish(const std::string& unfinished, const std::string& final_path,
                                     const std::vector<json>& answers) {
  Manifest manifest{.info = job_.info};
  for (const Described& tensor : job_.tensors)
    manifest.tensors[tensor.name] = {tensor.dtype, tensor.shape, {}};
  for (const json& answer : answers) {  // in rank order, so regions come by rising start
    const auto file = answer["file"].get<std::string>();
    manifest.files[file] = {answer["bytes"], answer["header_bytes"], answer["header_crc32c"]};
    for (const json& region : answer["regions"])
      manifest.tensors[job_.tensors[region[0].get<size_t>()].name].regions.push_back(
          {file, region[1], region[2], region[3], region[4], region[5]});
  }
  const std::string path = unfinished + "/" + std::string(kManifestName);
  check_manifest(manifest, path);
  files_.write_file(path, {to_text(manifest)});
  files_.sync_folder(unfinished);
  files_.put_in_place(unfinished, final_path);
  files_.sync_folder(options_.folder);
}

CheckpointWriter::CheckpointWriter(comm::Communicator& group, CheckpointOptions options)
    : impl_(std::make_unique<Impl>(group, std::move(options))) {}
CheckpointWriter::~CheckpointWriter() = default;
void CheckpointWriter::save(const std::vector<TensorState>& tensors, const CheckpointInfo& info) {
  impl_->save(tensors, info);
}
void CheckpointWriter::finish() { impl_->finish(); }
CheckpointWriter::Saved CheckpointWriter::last() const { return impl_->last(); }
bool CheckpointWriter::busy() const { return impl_->busy(); }

}  // namespace vitrail::train

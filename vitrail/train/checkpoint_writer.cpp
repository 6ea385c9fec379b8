// Saving: snapshot on the caller's thread, then (on a thread of its own with `async`) write, vote,
// publish, prune.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <exception>
#include <map>
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

/// This rank's share of one save, in host memory.
struct Job {
  CheckpointInfo info;
  std::vector<StatePiece> pieces;    // without data
  std::vector<Share> shares;         // in the order of `staging`
  std::string error;                 // why the snapshot failed; voted on like a failed write
  std::optional<c10::Event> copied;  // device copies under way
};

/// For each number of copies, this rank's place among them and a checksum over what it holds: ranks that hold the same
/// must agree on what that is before they cut it.
json digests(const std::vector<StatePiece>& pieces) {
  std::map<int, std::pair<int, uint32_t>> found;
  for (const StatePiece& piece : pieces) {
    if (piece.copies.index < 0) continue;
    auto& [index, crc] = found.try_emplace(piece.copies.count, piece.copies.index, 0).first->second;
    const std::string line =
        fmt::format("{} {} {} {} {} {} {}\n", piece.name, core::name(piece.dtype),
                    shape_text(piece.whole_shape), shape_text(piece.range.box.start),
                    shape_text(piece.range.box.shape), piece.range.start, piece.range.count);
    crc = core::crc32c(line.data(), line.size(), crc);
  }
  json all = json::array();
  for (const auto& [count, mine] : found) all.push_back({count, mine.first, mine.second});
  return all;
}

/// Of n copies there must be n ranks, numbered 0 to n - 1, that hold the same.
void check_digests(const std::vector<json>& answers) {
  std::map<std::pair<int, uint32_t>, std::map<int, size_t>> holders;  // index -> rank
  std::map<std::pair<int, uint32_t>, size_t> first;
  for (size_t rank = 0; rank < answers.size(); ++rank)
    for (const json& one : answers[rank]["digests"]) {
      const std::pair<int, uint32_t> key{one[0].get<int>(), one[2].get<uint32_t>()};
      first.try_emplace(key, rank);
      holders[key].emplace(one[1].get<int>(), rank);
    }
  std::vector<size_t> odd;  // the first rank of every group that is not complete
  for (const auto& [key, ranks] : holders)
    if (static_cast<int>(ranks.size()) != key.first) odd.push_back(first.at(key));
  std::sort(odd.begin(), odd.end());
  VT_REQUIRE(CheckpointError, odd.empty(),
             "[checkpoint] ranks that hold the same part must hold the same tensors but rank {} "
             "differs from rank {}",
             odd.back(), odd.front());
}

/// Every rank's text, on rank 0 one after another in rank order, so that thousands need no more memory than one.
template <class Visit>
void for_each_text(comm::Communicator& group, std::string mine, Visit&& visit) {
  if (group.rank() == 0) visit(mine);
  int64_t bytes = static_cast<int64_t>(mine.size());
  if (group.rank() != 0) {
    group.send({&bytes, 1, core::DType::i64}, 0).wait();
    group.send({mine.data(), bytes, core::DType::u8}, 0).wait();
    return;
  }
  for (int rank = 1; rank < group.size(); ++rank) {
    group.receive({&bytes, 1, core::DType::i64}, rank).wait();
    mine.resize(static_cast<size_t>(bytes));
    group.receive({mine.data(), bytes, core::DType::u8}, rank).wait();
    visit(mine);
  }
}

/// Adds what one rank wrote to the manifest.
void add_answer(Manifest& manifest, const json& answer) {
  const auto file = answer["file"].get<std::string>();
  manifest.files[file] = {answer["bytes"], answer["header_bytes"], answer["header_crc32c"]};
  for (const json& empty : answer["empty"])
    manifest.tensors[empty[0].get<std::string>()] = {
        dtype_named(empty[1].get<std::string>(), file), empty[2], {}, {}};
  for (const json& one : answer["regions"]) {
    const parallel::Box box{one[3], one[4]};
    add_region(manifest, one[0].get<std::string>(), dtype_named(one[1].get<std::string>(), file),
               one[2], box,
               {.file = file,
                .offset = one[5],
                .bytes = one[6],
                .start = one[7],
                .count = one[8],
                .crc32c = one[9]});
  }
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

  const comm::Communicator& group() const { return *group_; }

  void save(const std::vector<StatePiece>& pieces, const CheckpointInfo& info) {
    finish();
    job_ = Job{.info = info};
    job_.info.created_utc = core::utc_now();
    try {
      snapshot(pieces);
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

  void snapshot(const std::vector<StatePiece>& pieces);
  void run() noexcept;
  void write();
  json write_share(const std::string& folder);
  void publish(Manifest& manifest, const std::string& unfinished, const std::string& final_path);
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

void CheckpointWriter::Impl::snapshot(const std::vector<StatePiece>& pieces) {
  std::set<std::string> known;
  std::optional<at::Device> device;
  for (const StatePiece& piece : pieces) {
    VT_REQUIRE(CheckpointError,
               piece.data.defined() && piece.data.is_contiguous() &&
                   piece.data.numel() == piece.range.count,
               "[checkpoint] tensor {} must be contiguous in memory and whole", piece.name);
    const std::string place =
        file_entry(piece.name, piece.dtype, piece.whole_shape, piece.range).name;
    VT_REQUIRE(CheckpointError, known.insert(place).second, "[checkpoint] tensor {} appears twice",
               place);
    if (!piece.data.device().is_cpu()) device = piece.data.device();
  }
  job_.pieces = pieces;
  for (StatePiece& piece : job_.pieces) piece.data = at::Tensor();
  job_.shares = even_share(pieces);
  int64_t bytes = 0;
  for (const Share& share : job_.shares) bytes += share.bytes;
  if (!staging_.defined() || staging_.numel() < bytes)
    staging_ =
        at::empty({bytes}, at::TensorOptions().dtype(at::kByte).pinned_memory(device.has_value()));

  int64_t offset = 0;
  for (const Share& share : job_.shares) {
    const at::Tensor source =
        pieces[share.piece].data.detach().view({-1}).narrow(0, share.start, share.count);
    if (source.device().is_cpu())
      std::memcpy(static_cast<char*>(staging_.mutable_data_ptr()) + offset, source.const_data_ptr(),
                  static_cast<size_t>(share.bytes));
    else
      staging_.narrow(0, offset, share.bytes)
          .view(source.scalar_type())
          .copy_(source, /*non_blocking=*/true);
    offset += share.bytes;
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
      answer["digests"] = digests(job_.pieces);
      if (group_->rank() != 0) return;
      unfinished = final_path + std::string(kUnfinishedMark) + attempt_id();
      files_.make_folder(unfinished);
      answer["folder"] = unfinished;
    });
    unfinished = named[0]["folder"].get<std::string>();
    check_digests(named);
    json mine;
    vote(*group_, [&](json&) { mine = write_share(unfinished); });
    Manifest manifest{.info = job_.info};
    std::string problem;
    for_each_text(*group_, mine.dump(-1, ' ', false, json::error_handler_t::replace),
                  [&](const std::string& text) {
                    try {
                      if (problem.empty()) add_answer(manifest, json::parse(text));
                    } catch (const std::exception& error) {
                      problem = error.what();
                    }
                  });
    const auto published = vote(*group_, [&](json& answer) {
      if (group_->rank() != 0) return;
      VT_REQUIRE(CheckpointError, problem.empty(), "{}", problem);
      publish(manifest, unfinished, final_path);
      int64_t bytes = 0;
      for (const auto& [file, entry] : manifest.files) bytes += entry.bytes;
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

json CheckpointWriter::Impl::write_share(const std::string& folder) {
  const std::string name = rank_file_name(group_->rank());
  const std::string path = folder + "/" + name;
  const std::string header = file_layout(job_.pieces, job_.shares, job_.info.step, path).header;
  json regions = json::array(), empty = json::array();
  int64_t offset = 0;
  for (const Share& share : job_.shares) {
    const StatePiece& piece = job_.pieces[share.piece];
    regions.push_back({piece.name, core::name(piece.dtype), piece.whole_shape,
                       piece.range.box.start, piece.range.box.shape,
                       static_cast<int64_t>(header.size()) + offset, share.bytes,
                       piece.range.start + share.start, share.count,
                       block_checksums(staged(offset, share.bytes).data(), share.bytes)});
    offset += share.bytes;
  }
  // Nobody writes a byte of a tensor without elements, but it belongs to the state.
  for (const StatePiece& piece : job_.pieces)
    if (piece.range.count == 0 && piece.copies.index == 0)
      empty.push_back({piece.name, core::name(piece.dtype), piece.whole_shape});
  files_.write_file(path, {header, staged(0, offset)});
  return {{"file", name},
          {"bytes", static_cast<int64_t>(header.size()) + offset},
          {"header_bytes", header.size()},
          {"header_crc32c", core::crc32c(header.data(), header.size())},
          {"regions", std::move(regions)},
          {"empty", std::move(empty)}};
}

void CheckpointWriter::Impl::publish(Manifest& manifest, const std::string& unfinished,
                                     const std::string& final_path) {
  sort_regions(manifest);
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
void CheckpointWriter::save(const std::vector<StatePiece>& pieces, const CheckpointInfo& info) {
  impl_->save(pieces, info);
}
void CheckpointWriter::save(const std::vector<TensorState>& tensors, const CheckpointInfo& info) {
  const comm::Communicator& group = impl_->group();
  impl_->save(whole_pieces(tensors, {group.size(), group.rank()}), info);
}
void CheckpointWriter::finish() { impl_->finish(); }
CheckpointWriter::Saved CheckpointWriter::last() const { return impl_->last(); }
bool CheckpointWriter::busy() const { return impl_->busy(); }

}  // namespace vitrail::train

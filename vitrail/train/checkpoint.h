#pragma once
/// Checkpoints: the whole state of a run in a folder that is either complete or not there.
///
/// Layout     <folder>/step-00001000/{manifest.json, rank-00000.safetensors, ...}; the page is
///            docs/formats/checkpoint.md.
/// Guarantee  a kill at any instant leaves the previous checkpoint valid: files are written beside
///            it, flushed, voted on by all ranks and renamed into place in one move.
/// Layouts    a rank saves what it keeps, as boxes of whole tensors; ranks that keep the same share the writing. Any
///            mesh and strategy loads what any other saved: a rank reads only what it keeps, in checked blocks.
/// Names      parameters as they are ("blocks.0.attn.qkv.weight"); optimizer state with its kind in
///            front ("exp_avg/blocks.0.attn.qkv.weight", "ema/...").
/// Checked    every byte that is read is compared with a checksum before load() returns.
/// Errors     CheckpointError naming file and tensor, the same on every rank.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/comm/communicator.h"
#include "vitrail/core/dtype.h"
#include "vitrail/data/loader.h"
#include "vitrail/kernels/loss_scale.h"
#include "vitrail/nn/module.h"
#include "vitrail/parallel/collect.h"
#include "vitrail/parallel/unit.h"
#include "vitrail/train/optimizer.h"

namespace vitrail::train {

/// A tensor of the state as this process holds it: contiguous, on any device, the same on every
/// rank.
struct TensorState {
  std::string name;
  at::Tensor tensor;
};

/// A run of elements of the state that this process holds, placed in the whole tensor.
struct StatePiece {
  std::string name;
  std::vector<int64_t> whole_shape;
  core::DType dtype = core::DType::f32;
  parallel::BoxRange range;
  at::Tensor data;  // range.count elements on any device; undefined in plans
  parallel::Copies copies;
};

/// Weights (fp32 master) and optimizer state that this rank keeps, as views of the kept arenas, so that loading fills
/// them in place; then Optimizer::restored().
std::vector<StatePiece> state_pieces(parallel::UnitSet& units, Optimizer& optimizer,
                                     const parallel::MeshPlace& place);
/// Whole tensors that are the same on every rank of a group.
std::vector<StatePiece> whole_pieces(const std::vector<TensorState>& tensors,
                                     parallel::Copies copies = {});

/// What a checkpoint says besides tensors.
struct CheckpointInfo {
  int64_t step = 0;          // optimizer steps done, skipped updates included
  int64_t update_count = 0;  // updates applied: Adam's bias correction
  int64_t skipped_updates = 0;
  std::optional<kernels::LossScaleState> loss_scale;  // fp16
  data::LoaderState loader;  // the next batch
  uint64_t seed = 0;
  double wall_seconds = 0;  // training time so far, over all restarts
  std::string mesh;         // Mesh::describe()
  std::string recipe;       // resolved, YAML
  std::string program;      // version
  std::string created_utc;  // "2026-11-21T08:40:12Z"; filled in by save()
};

struct CheckpointOptions {
  std::string folder;  // <run>/checkpoints
  int64_t keep = 3;    // newest valid ones kept; 0 = all
  bool async = true;   // write in the background
  /// Where the run begins. Valid checkpoints past it belong to a course that is given up; they are
  /// moved into superseded-N/, so that they are not taken for the newest. -1 leaves them.
  int64_t start_step = -1;
  double lock_seconds = 10;  // how long to wait for another process that writes to the same folder
  /// Called before every file operation of a save ("mkdir", "open", "write", "fsync", "rename",
  /// ...). Tests throw or kill the process here.
  std::function<void(std::string_view operation, const std::string& path)> before_operation;
};

/// Saves checkpoints of one run. With `async`, save() returns once the state is copied to host
/// memory (on a GPU: once the copy is queued on the current stream) and a thread writes it; at most
/// one save is under way.
class CheckpointWriter {
 public:
  /// Every rank of `group` calls it: the background thread gets a group of its own. Rank 0 creates
  /// the folder, takes its lock and removes what dead runs left unfinished.
  CheckpointWriter(comm::Communicator& group, CheckpointOptions options);
  /// Waits for the save under way; its error, if any, is lost: call finish() first.
  ~CheckpointWriter();

  /// Every rank calls it with what it keeps; together that is every element of every tensor, and ranks that keep the
  /// same have the same list of it. Those write equal shares of the bytes.
  /// Errors   a failure of any rank (also of the previous asynchronous save) is thrown on every
  ///          rank; the unfinished folder is removed, older checkpoints are as they were.
  void save(const std::vector<StatePiece>& pieces, const CheckpointInfo& info);
  /// The same tensors on every rank.
  void save(const std::vector<TensorState>& tensors, const CheckpointInfo& info);
  /// Waits for the save under way and throws its error.
  void finish();

  struct Saved {
    std::string path;  // empty: none yet
    int64_t step = -1;
    int64_t bytes = 0;   // over all ranks
    double seconds = 0;  // of writing
  };
  /// The last save that is complete.
  Saved last() const;
  bool busy() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

struct Manifest;  // checkpoint_manifest.h

/// An opened checkpoint. Opening reads and checks the manifest and the sizes of the files. For one thread.
class CheckpointReader {
 public:
  explicit CheckpointReader(const std::string& path);
  ~CheckpointReader();
  CheckpointReader(CheckpointReader&&) noexcept;

  const std::string& path() const { return path_; }
  const CheckpointInfo& info() const;
  const Manifest& manifest() const { return *manifest_; }
  std::vector<std::string> names() const;  // sorted

  /// The whole tensor on the CPU.
  at::Tensor read(const std::string& name) const;
  /// Fills every tensor (on any device). Names and shapes must be those of the checkpoint, none
  /// missing and none left over; the error names the first differences and what usually causes
  /// them.
  void load(const std::vector<TensorState>& tensors) const;
  /// Fills every piece, reading only what lies in it. Every rank of `group` calls it with what it keeps; names and shapes
  /// that any rank has must be those of the checkpoint, and none may be left over.
  void load(const std::vector<StatePiece>& pieces, comm::Communicator& group) const;
  /// A run of a tensor's elements, to host memory.
  void read(const std::string& name, const parallel::BoxRange& range, void* out) const;
  /// Reads the `part`-th of `parts` equal shares of the checkpoint's bytes and compares checksums.
  void verify(int part = 0, int parts = 1) const;
  /// Bytes of tensors read so far.
  int64_t bytes_read() const;

 private:
  std::string path_;
  mutable int64_t bytes_read_ = 0;
  std::unique_ptr<Manifest> manifest_;
};

/// A checkpoint that was passed over, and why.
struct Skipped {
  std::string path;
  std::string reason;
};

struct Newest {
  std::string path;              // empty: none
  std::vector<Skipped> skipped;  // newer ones that are not valid, newest first
};

/// Folders step-* below `folder` (a run folder or its checkpoints folder), newest first, valid or
/// not.
std::vector<std::string> list_checkpoints(const std::string& folder);
/// Why a checkpoint is not valid; empty when it is. `full` reads every byte.
std::string why_invalid(const std::string& path, bool full);
/// The newest checkpoint whose every byte is right.
Newest find_newest_valid(const std::string& folder);
/// The same by all ranks together, each reading its share; every rank gets the same answer, decided
/// on rank 0's list.
Newest find_newest_valid(const std::string& folder, comm::Communicator& group);

/// What `--resume auto|never|PATH` means: an empty path starts anew. PATH is a checkpoint, a
/// checkpoints folder or a run folder. Every rank calls it.
/// throws   CheckpointError when PATH holds no valid checkpoint, or when `auto` finds checkpoints
///          of which none is valid.
Newest resolve_resume(const std::string& resume, const std::string& folder,
                      comm::Communicator& group);
/// A checkpoint as it is, or the newest valid one of a run or checkpoints folder; for one process.
std::string resolve_checkpoint(const std::string& path);

/// Removes all but the `keep` newest valid checkpoints (and the invalid ones older than those).
/// Returns what was removed. keep >= 1, so that the newest valid one always stays.
std::vector<std::string> prune_checkpoints(const std::string& folder, int64_t keep, bool full);

/// The model's parameters, or their moving average, fp32 on the CPU, with the model's own names.
/// `path` as for resolve_checkpoint.
/// throws   CheckpointError when `ema` is asked for and the checkpoint has none.
std::vector<nn::NamedTensor> read_parameters(const std::string& path, bool ema);

/// One tensor in two checkpoints.
struct TensorDifference {
  std::string name;
  std::string note;           // "only in A", "shape [2] and [3]"; empty: compared
  double max_difference = 0;  // largest |a - b|; NaN against a number counts as infinite
};
/// Every tensor of either checkpoint, sorted by name.
std::vector<TensorDifference> compare_checkpoints(const CheckpointReader& a,
                                                  const CheckpointReader& b);

}  // namespace vitrail::train

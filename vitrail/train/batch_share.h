#pragma once
/// Batches of ranks that need the same samples: those of one data rank, along pipeline, sequence and tensor.
///
/// every_rank  each reads and decodes for itself; nothing is sent.
/// load_once   the first of them reads, the others get its batch as it left the loader, before augmentation: a message
///             of a few hundred bytes through host memory, then the tensors' bytes, on GPUs between the devices.
/// Errors      whatever the reading rank's loader throws is thrown on every rank of its group, with its text and exit
///             code.

#include "vitrail/comm/mesh.h"
#include "vitrail/data/batch.h"
#include "vitrail/data/loader.h"
#include "vitrail/parallel/groups.h"

namespace vitrail::train {

class BatchShare {
 public:
  /// Every rank of the mesh calls it; `mesh` outlives the share. `load_once` false, or one rank a group: every rank reads.
  BatchShare(comm::Mesh& mesh, at::Device device, bool load_once);

  /// What data::LoaderOptions::reads of this rank's loaders must be.
  bool reads() const { return !is_sent_ || is_first_; }
  /// The next batch of `loader`, which goes on by one: on the host where each rank reads for itself, else on `device`.
  /// Every rank of a group calls it with a loader of the same list and place.
  data::Batch next(data::Loader& loader);
  /// Time the last next() waited for data, of the loader or the reading rank.
  double waited_ms() const { return waited_ms_; }

 private:
  data::Batch send(data::Loader& loader);
  data::Batch receive(data::Loader& loader);
  /// The first rank's text on all ranks of the group.
  void broadcast(std::string& text);
  /// Its tensors; they are there, with the right sides, on every rank.
  void broadcast(data::Batch& batch);

  parallel::Groups groups_;
  bool is_sent_, is_first_ = true;
  comm::Communicator* host_ = nullptr;    // of this group, null unless batches are sent
  comm::Communicator* device_ = nullptr;  // for memory of the device
  double waited_ms_ = 0;
};

}  // namespace vitrail::train

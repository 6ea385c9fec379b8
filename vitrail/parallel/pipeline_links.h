#pragma once
/// The queues between a rank of a pipeline and its two neighbours.
///
/// Links     r -> r + 1 for what flows, back for gradients; with several parts a rank also from the last rank to rank 0. Each
///           has a communicator of its own per rank and direction: a rank that waits in one holds up no other.
/// Order     messages of a link come in the order of the schedule, which is the same on both sides.

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "vitrail/parallel/groups.h"
#include "vitrail/parallel/pipeline_transfer.h"

namespace vitrail::parallel {

class PipelineLinks {
 public:
  /// Every rank calls it. `ring`: the last rank sends to rank 0.
  PipelineLinks(Groups& groups, bool ring);

  /// What flows on. Shapes are told once for each `key`, which both sides know: equal keys have equal shapes.
  Transfer send_on(const std::vector<at::Tensor>& tensors, const std::string& key);
  bool knows(const std::string& key) const { return arriving_.contains(key); }
  Transfer receive(const std::string& key);
  /// Gradients; their shapes are those of what was sent on.
  void send_back(const std::vector<at::Tensor>& gradients);
  Transfer receive_back(const Shapes& shapes);
  /// Before memory of a step is used again.
  void finish();
  /// The tensors of rank `root` to all; `key` as above.
  void broadcast(std::vector<at::Tensor>& tensors, const std::string& key, int root);

 private:
  comm::Communicator& host_beside(TransferQueue& queue);
  void make_queues(bool ring);

  Groups& groups_;
  int ranks_, rank_;
  std::optional<TransferQueue> on_, from_before_, back_, from_behind_;
  std::map<std::string, Shapes> arriving_, shared_;
  std::set<std::string> told_;
  std::deque<Transfer> telling_, sent_back_;
};

}  // namespace vitrail::parallel

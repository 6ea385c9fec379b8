#pragma once
/// Collectives of the tensor ranks on tensors, on the compute stream or beside it.
///
/// Streams   `here`: on the compute stream. `beside`: a collective starts when the compute stream has done what it was
///           given before, and await() makes the compute stream wait for it; the host waits for neither. On the CPU
///           every collective runs beside the caller, and await() waits.
/// Order     every tensor rank starts the same collectives in the same order.

#include <optional>

#include <ATen/core/Tensor.h>

#include "vitrail/comm/communicator.h"
#include "vitrail/parallel/device.h"
#include "vitrail/parallel/groups.h"

namespace vitrail::parallel {

enum class Where { here, beside };

/// A collective under way. The result may be used after TensorGroup::await().
struct Pending {
  at::Tensor result;
  at::Tensor input;  // lives as long as the collective
  comm::Work work;
  std::optional<Event> done;  // none: the compute stream itself carried it
};

class TensorGroup {
 public:
  explicit TensorGroup(Groups& groups);

  int size() const { return group_.size(); }
  int rank() const { return group_.rank(); }

  /// Sum over the ranks, in place; contiguous.
  Pending all_reduce(const at::Tensor& x, Where where) const;
  /// x [...] of every rank -> [ranks, ...]
  Pending all_gather(const at::Tensor& x, Where where) const;
  /// x [ranks, ...] -> this rank's [...] of the sum over the ranks
  Pending reduce_scatter(const at::Tensor& x, Where where) const;
  /// Lets the compute stream go on with the result.
  at::Tensor await(Pending& pending) const;

 private:
  template <class Call>
  Pending start(Where where, at::Tensor input, at::Tensor result, Call&& call) const;

  at::Device device_;
  comm::Communicator& group_;
  void* side_;
};

}  // namespace vitrail::parallel

#pragma once
/// Weights that the model computes with, in pinned host memory between uses: this rank's slice of every unit.
///
/// Use       a gather first fetches the slice into its place on the device, in the order of its own stream; the optimizer
///           on the host (host_optimizer.h) writes new ones, after wait().
/// Memory    host: the slices in the compute type; device: none of it.
/// Paper     Rajbhandari et al. 2021, arXiv:2104.07857.

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/parallel/device.h"
#include "vitrail/parallel/nvme_state.h"

namespace vitrail::parallel {

class HostWeights {
 public:
  /// `units`: runs of an arena of `count` elements, all zero at first.
  HostWeights(int64_t count, std::vector<HostRange> units, at::ScalarType type, at::Device device);

  /// The arena [count], on the host.
  const at::Tensor& published() const { return published_; }
  /// Copies a unit's slice to `destination` on the device, in the order of `stream`; the host does not wait.
  void fetch(int unit, void* destination, void* stream);
  /// The host waits until what was fetched of a unit so far has been read.
  void wait(int unit);

 private:
  at::Device device_;
  std::vector<HostRange> units_;
  at::Tensor published_;
  std::vector<Event> read_;
};

}  // namespace vitrail::parallel

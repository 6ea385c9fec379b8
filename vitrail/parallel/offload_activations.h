#pragma once
/// What recomputed blocks keep, in pinned host memory between forward and backward.
///
/// Way out   a copy on a side stream that begins when the tensors are made and runs beside the block's own work; device
///           memory is let go two keeps later, behind the copy's event.
/// Way back  asked for two restores ahead, in the reverse order of keeping, on a second side stream; the compute stream
///           waits for its event. What has not been let go yet does not travel.
/// Memory    device: 5 kept tensors at most besides the block at work (2 on their way out or back, 2 ahead, 1 in use);
///           host: everything kept, in buffers that the next step uses again.
/// Threads   one at a time (forward and backward of one rank).
/// Needs     passes are not recorded as CUDA graphs: events of earlier steps order the use of buffers.
/// Paper     Rajbhandari et al. 2021, arXiv:2104.07857, section 5.1.2.

#include <cstdint>
#include <memory>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/models/model.h"
#include "vitrail/nn/engine.h"

namespace vitrail::parallel {

/// The store itself. On the CPU it copies at once.
class HostActivations : public nn::ActivationStore {
 public:
  explicit HostActivations(at::Device device);
  ~HostActivations() override;
  std::unique_ptr<nn::StoredTensors> keep(std::vector<at::Tensor> tensors) override;

  /// Bytes of host buffers.
  int64_t host_bytes() const;
  /// Since the start: what was kept, of it what came back from the host, of these what had been asked for ahead.
  struct Counts {
    int64_t kept = 0, travelled = 0, ahead = 0;
  };
  Counts counts() const;

  struct State;

 private:
  std::shared_ptr<State> state_;
};

/// Attaches a store to the engines of all trunks of a model when the recipe asks for it and the device is not the host
/// itself; takes it back when it goes. Outlived by the model.
class ActivationOffload {
 public:
  ActivationOffload(models::Model& model, const config::Train& train, at::Device device);
  ~ActivationOffload();
  ActivationOffload(const ActivationOffload&) = delete;
  ActivationOffload& operator=(const ActivationOffload&) = delete;
  /// Null: nothing is offloaded.
  const HostActivations* store() const { return store_.get(); }

 private:
  std::vector<nn::Stack*> stacks_;
  config::Train train_;
  std::unique_ptr<HostActivations> store_;
};

}  // namespace vitrail::parallel

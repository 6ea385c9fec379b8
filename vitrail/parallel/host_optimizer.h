#pragma once
/// Optimizer state and its update in host memory.
///
/// A step    unit by unit: while the CPU updates one, the gradient of the next arrives and the weights of the one before
///           leave. Gradients start on their way when their unit is complete (gradient_ready); the update itself starts
///           after the clipping factor, which needs all of them, has arrived: step() waits for it, and returns when the
///           last unit is updated. What the compute stream is given next waits for the last weights.
/// Memory    host, an element: master 4 bytes, moments 8 (SGD 4), average 4 when there is one, gradient 4; three units of
///           published weights. Device: nothing of it but the gradient and the published weights themselves.
/// Equal     bit for bit to the update on a device-less run, within 1 ulp to that on a GPU.
/// Threads   one caller; the update itself runs on at::get_num_threads() threads.
/// Paper     Ren et al. 2021, arXiv:2101.06840 (ZeRO-Offload).

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"
#include "vitrail/parallel/nvme_state.h"

namespace vitrail::parallel {

/// Elements that are updated with one learning rate; it and the units' ranges begin at multiples of kernels::kFlagGroup.
struct HostSegment {
  int64_t offset = 0, count = 0;
  double learning_rate = 0.0;
};

/// Kept arenas: `master` and `decay_mask` (a byte for each kernels::kFlagGroup) in host memory, `gradient` fp32 on the
/// device. `published`, fp32, bf16 or fp16, of each unit: where the model's weights are made from, on the device, or in host
/// memory (HostWeights), or the unit's part of `master` itself.
struct HostArenas {
  at::Tensor master, decay_mask, gradient;
  std::vector<at::Tensor> published;
};

struct HostOptimizerOptions {
  config::Optimizer update;
  std::optional<double> ema_decay;
  std::string folder;  // of the file that holds the moments; empty = host memory
  int rank = 0;        // tells files of one folder apart
  bool published_on_host = false;
  /// Called before a unit's published weights on the host are overwritten; empty = nobody reads them meanwhile.
  std::function<void(int unit)> before_publish;
  /// False, on the CPU: gradients and published weights are used where they lie, without the ways there and back.
  bool copies = true;
};

class HostOptimizer {
 public:
  /// `units`: runs of the arenas, in the order in which their gradients become complete; the rest is never updated.
  /// The first average is the master as it is now. `device`: of the gradient's stream.
  /// throws Error when the files' folder cannot be used (nvme_state.h), OutOfMemoryError.
  HostOptimizer(HostArenas arenas, std::vector<HostRange> units, HostOptimizerOptions options,
                at::Device device);
  ~HostOptimizer();

  /// The gradient of a unit is complete in the order of `stream`: its way to the host begins. Units that were not
  /// announced leave when step() begins.
  void gradient_ready(int unit, void* stream);
  /// One update, behind everything the compute stream has been given. `scale`: fp32 scalar on the device or the host; 0
  /// leaves everything as it is. `update_count`: 1-based, for Adam's bias correction.
  void step(std::span<const HostSegment> segments, int64_t update_count, const at::Tensor& scale);

  /// A named arena: "exp_avg", "exp_avg_sq" (adamw), "momentum" (sgd), "ema". From files: a copy, which write_state puts
  /// back; in memory: the arena itself.
  struct State {
    std::string name;
    at::Tensor arena;
  };
  std::vector<State> states();
  void write_state(const State& state);
  /// The average; undefined when there is none.
  at::Tensor ema() const;
  /// Master weights were changed from outside: publishes them all. Average as it is.
  void publish();

  /// Host bytes of one rank with these options, published weights on the device and units of at most `largest` elements.
  static int64_t host_bytes(int64_t kept, int64_t largest, bool adamw, bool averages, bool bf16,
                            bool in_files);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vitrail::parallel

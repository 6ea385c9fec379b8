#pragma once
/// AdamW and SGD over what this rank keeps of the flat arenas, with gradient clipping by the norm over all ranks, all
/// on the device.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"
#include "vitrail/kernels/optimizer.h"
#include "vitrail/parallel/engine.h"
#include "vitrail/parallel/host_optimizer.h"
#include "vitrail/parallel/unit.h"
#include "vitrail/train/compact_moments.h"

namespace vitrail::train {

/// Device scalars of one step, overwritten by the next gradient_norm(); nothing here waits for the
/// device.
struct GradientNorm {
  at::Tensor norm;  // fp32 scalar: global L2 norm before clipping (of the averaged gradient)
  at::Tensor
      scale;  // fp32 scalar: factor the update applies to the gradient, min(1, max_norm / (norm +
              // 1e-6)) as torch.nn.utils.clip_grad_norm_; 0 when the norm is not finite
};

/// Share of the learning rate of a unit: decay^(depth + 1) for the embedding, decay^(depth - i) for
/// block i of the encoder, 1 for everything after it.
/// Paper    Clark et al. 2020, arXiv:2003.10555; as in facebookresearch/mae, util/lr_decay.py.
double layer_share(const parallel::Unit& unit, int64_t depth, double decay);

/// Where a step stands: what changes from one to the next while its work stays the same.
struct StepPlace {
  double learning_rate = 0;
  uint32_t step = 0;  // of random draws
  int64_t updates =
      0;  // applied before, as far as the host knows; only state in host memory goes by it
};

class Optimizer {
 public:
  /// Updates what the ranks of the engine keep, where parallel.offload says; the engine outlives the optimizer.
  /// throws ConfigError for moments of fewer bytes (state) with sgd or in host memory.
  Optimizer(parallel::Engine& engine, const config::Optimizer& options,
            std::optional<double> ema_decay);
  /// A rank that holds everything.
  Optimizer(parallel::UnitSet& units, const config::Optimizer& options,
            std::optional<double> ema_decay);
  ~Optimizer();

  /// Writes norm and scale of a GradientNorm from the sum of squares over all ranks (fp64 scalar), in the place of
  /// kernels::clip_scale; it only queues work on the device. For gradients of a loss that was scaled.
  using Clip = std::function<void(const at::Tensor& sum, double max_norm, const at::Tensor& norm,
                                  const at::Tensor& scale)>;
  void set_clip(Clip clip) { clip_ = std::move(clip); }
  /// max_norm <= 0: no clipping. Deterministic: same bits on every rank and every run.
  GradientNorm gradient_norm(double max_norm);

  /// Before the work of a step: writes rate and step where the device reads them.
  void begin_step(const StepPlace& place);
  /// One update of master weights, moments, EMA, and undivided compute weights. A non-finite norm leaves
  /// all of them as they are and is not counted (decided on the device). Rate and count for Adam's bias correction come out
  /// of the device's memory, so that the same launches can be repeated (not where state lies in host memory).
  void update(const GradientNorm& norm);
  /// Updates applied so far; for resuming.
  void set_update_count(int64_t updates);
  /// The same in one call; `update_count` is that of this update, from 1.
  void step(double learning_rate, int64_t update_count, const GradientNorm& norm);
  /// For nn::Draws::step_place: the step that begin_step() named.
  at::Tensor step_place() const;
  /// update() only queues work on the device, the same every time.
  bool repeats() const { return !host_; }

  /// A named arena of optimizer state: "exp_avg", "exp_avg_sq" (adamw), "momentum" (sgd), "ema".
  struct State {
    std::string name;
    at::Tensor arena;
  };
  /// State in files and compact moments come as copies in fp32.
  std::vector<State> states();
  /// What states() gave last has been overwritten; before the next update. Only copies need to know.
  void restored();
  /// Bytes of the moments on the device.
  int64_t moment_bytes() const;
  /// EMA arena, undefined when there is none; of state in files a copy.
  at::Tensor ema();

 private:
  /// Neighbouring units with the same share of the learning rate; a range of the kept arenas.
  struct Segment {
    int64_t offset, count;
    double share;
  };
  Optimizer(parallel::Engine* engine, parallel::UnitSet& units, const config::Optimizer& options,
            std::optional<double> ema_decay);
  void allocate_state();
  void make_host_optimizer();
  std::vector<Segment> segments() const;
  void allocate_pace();
  kernels::Arena arena(const Segment& segment) const;
  kernels::Pace* pace() const;
  template <class Rule, class Factors>
  void begin_update(const Rule& rule, Factors* factors, const float* scale);
  void update_segment(size_t index, const float* scale);
  void update_compact(size_t index, const float* scale);
  kernels::AdamwStep adamw_rule() const;
  kernels::SgdStep sgd_rule() const;
  bool is_adamw() const { return options_.kind == "adamw"; }

  parallel::Engine* engine_ = nullptr;  // null: nothing is divided
  parallel::UnitSet& units_;
  config::Optimizer options_;
  std::optional<double> ema_decay_;
  std::vector<Segment> segments_;
  at::Tensor first_, second_, ema_;
  std::unique_ptr<CompactMoments> compact_;        // in the place of first_ and second_
  std::unique_ptr<parallel::HostOptimizer> host_;  // null: state lies beside the gradient
  std::vector<State> given_;                       // by states(), as copies
  at::Tensor partials_, sum_, norm_, scale_;       // workspace of the norm
  at::Tensor pace_, shares_, factors_;             // of the device: kernels::Pace; of each segment
  StepPlace place_;
  Clip clip_;
};

}  // namespace vitrail::train

#pragma once
/// AdamW and SGD over what this rank keeps of the flat arenas, with gradient clipping by the norm over all ranks, all
/// on the device.

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

class Optimizer {
 public:
  /// Updates what the ranks of the engine keep, where parallel.offload says; the engine outlives the optimizer.
  Optimizer(parallel::Engine& engine, const config::Optimizer& options,
            std::optional<double> ema_decay);
  /// A rank that holds everything.
  Optimizer(parallel::UnitSet& units, const config::Optimizer& options,
            std::optional<double> ema_decay);
  ~Optimizer();

  /// max_norm <= 0: no clipping. Deterministic: same bits on every rank and every run.
  GradientNorm gradient_norm(double max_norm);
  /// One update of master weights, moments, EMA, and undivided compute weights. A non-finite norm leaves
  /// all of them as they are (decided on the device). `update_count` is the 1-based count for
  /// Adam's bias correction.
  void step(double learning_rate, int64_t update_count, const GradientNorm& norm);

  /// A named arena of optimizer state: "exp_avg", "exp_avg_sq" (adamw), "momentum" (sgd), "ema".
  struct State {
    std::string name;
    at::Tensor arena;
  };
  std::vector<State> states();
  /// What states() gave has been overwritten. Only state in files needs to know.
  void restored();
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
  kernels::Arena arena(const Segment& segment) const;
  void update(const Segment& segment, double learning_rate, int64_t update_count,
              const float* scale);

  parallel::Engine* engine_ = nullptr;  // null: nothing is divided
  parallel::UnitSet& units_;
  config::Optimizer options_;
  std::optional<double> ema_decay_;
  std::vector<Segment> segments_;
  at::Tensor first_, second_, ema_;
  std::unique_ptr<parallel::HostOptimizer> host_;  // null: state lies beside the gradient
  std::vector<State> given_;                       // by states(), of state in files
  at::Tensor partials_, sum_, norm_, scale_;       // workspace of the norm
};

}  // namespace vitrail::train

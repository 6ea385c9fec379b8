#pragma once
/// Images and volumes drawn from a diffusion model.
///
/// Sample i is a function of the weights, the seed, i and the options: its noise is Philox of (seed, i, level), so that it
/// does not depend on how many are drawn at once.
/// Guidance e = e_none + w (e_class - e_none): 1 follows the class as it was learned, 0 ignores it, more exaggerates it.
/// Paper    Ho & Salimans 2022, arXiv:2207.12598 (whose weight is w - 1); samplers: models/diffusion_sampler.h.
/// Shapes   N samples, C channels.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include <ATen/core/Tensor.h>

#include "vitrail/comm/communicator.h"
#include "vitrail/comm/launch.h"
#include "vitrail/config/recipe.h"
#include "vitrail/models/diffusion_sampler.h"
#include "vitrail/models/model.h"
#include "vitrail/parallel/engine.h"
#include "vitrail/train/report_html.h"

namespace vitrail::train {

struct DrawOptions {
  int64_t count = 16;
  models::SamplingMethod method = models::SamplingMethod::ddim;
  models::SamplingVariance variance = models::SamplingVariance::posterior;
  int64_t steps = 0;  // 0 = all T levels (ddpm), at most 50 of them (ddim)
  double guidance = 1.0;
  std::optional<int64_t> label;  // class of all samples; unset = sample i has class i mod classes
  uint64_t seed = 0;
  /// Keep the predicted image inside the range of the data: [0, 1] before mean and std. Has no effect for a source that is
  /// not brought to [0, 1] (normalize: none).
  bool clip = true;
  int64_t batch = 64;  // samples drawn at once
};

struct Samples {
  at::Tensor
      images;  // fp32 [N, C, ...] on the CPU, mean and std of the first source undone: [0, 1]
  at::Tensor labels;  // int64 [N]; -1 = no class
};

/// throws ConfigError when the model is of another kind or the options do not fit it: steps, class, guidance.
void check_draw(const config::Model& model, const DrawOptions& options);
/// Predicted noise of a noisy batch at its timestep and label.
using NoisePass = std::function<at::Tensor(const data::Batch& noisy)>;
/// By way of the engine of a model whose weights or tokens are divided; every rank calls it alike.
NoisePass noise_pass(const models::Model& model, parallel::Engine& engine);

/// Draws with `model` as it is, in evaluation mode and without gradients; `pass` empty: the model's own. Variables are
/// those of the first source.
Samples draw_samples(models::Model& model, const config::Recipe& recipe, at::Device device,
                     const DrawOptions& options, const NoisePass& pass = {});

/// The same with batches drawn by the ranks of `world` in turn; the samples are on rank 0, nothing on the others. Every
/// rank calls it.
Samples draw_together(models::Model& model, const config::Recipe& recipe, at::Device device,
                      const DrawOptions& options, comm::Communicator& world);

/// One picture [C, H, W] in [0, 1] of all samples in rows, a few slices of each volume side by side; small images are
/// enlarged. With classes a row holds one of each (up to ten), else the picture is about square.
at::Tensor sheet(const Samples& samples, const config::Model& model);

/// Samples for the report: `count` drawn by 50 steps of DDIM from the run's seed, a column a class. With classes the
/// guidance is kSheetGuidance.
PictureTable sample_sheet(models::Model& model, const config::Recipe& recipe, at::Device device,
                          int64_t count, const NoisePass& pass = {});
inline constexpr double kSheetGuidance = 2.0;

struct SampleOptions {
  std::string weights;  // as EvaluateOptions::weights
  std::string output;   // NAME.png, NAME.safetensors or a folder
  DrawOptions draw;
  comm::Launch launch;
  std::string version;  // of the program, compared between ranks
};

/// What `vitrail sample` does. Weights of a checkpoint are the moving average when it holds one.
/// Output   .png: the sheet; .safetensors: image [N, C, ...] and label [N]; else a folder: sheet.png and NNNNN.png (or
///          NNNNN-class-K.png), for volumes NNNNN.npy [C, D, H, W].
/// Ranks    each holds the whole model, whatever the recipe's layout, and draws every R-th batch; rank 0 writes. The files
///          are those of one rank, byte for byte where all have equally many threads. Every rank calls it.
/// Errors   ConfigError as check_draw; CheckpointError for the weights.
void sample_recipe(const config::ResolvedRecipe& resolved, comm::Communicator& world,
                   const SampleOptions& options);

}  // namespace vitrail::train

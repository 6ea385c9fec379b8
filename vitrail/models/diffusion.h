#pragma once
/// Denoising diffusion on a vision transformer: the model is shown an image mixed with noise and predicts the noise.
///
/// The time t (and the class) becomes one vector per sample: row t of a fixed table, a two-layer perceptron, plus a learned
/// row per class. It is added once to every token (time_conditioning: input) or given to every block of the encoder, which
/// adds its own projection of it (block). A decoder as in an MAE, never conditioned, turns tokens into pixels.
/// Paper    Ho et al. 2020, arXiv:2006.11239; classes hidden at random for guidance: Ho & Salimans 2022,
///          arXiv:2207.12598; loss is the unweighted mean of (predicted - true noise)^2.
/// Differs  from UCF-VIT: classes, conditioning of blocks by one shared embedding, dropout in the time embedding off by
///          default (there always 0.5), batches with some of the variables (only their noise is predicted).
/// Names    time_embed.fc1, time_embed.fc2, class_embed [classes + 1, D] (last row = no class), decoder_embed,
///          decoder_pos_embed, decoder_blocks.i, decoder_norm, decoder_pred (rows in the order p, q[, r], channel).
/// Shapes   B batch, L patches, T tokens, D width, D' decoder width.
/// Taps     noise like the image (the true one), time_embed [B, D] (class included), embed [B, T, D], blocks.i, norm, and with a transformer decoder
///          decoder_embed [B, T, D'], decoder_blocks.i, decoder_norm.

#include <memory>
#include <string>
#include <vector>

#include "vitrail/models/encoder.h"
#include "vitrail/models/init.h"
#include "vitrail/models/noise_schedule.h"
#include "vitrail/nn/linear.h"

namespace vitrail::models {

/// Linear - ReLU - dropout - Linear over the rows of a fixed table of sines and cosines:
/// table[t][2j] = sin(t 10000^(-2j / D)), table[t][2j + 1] = cos(the same).
class TimeEmbed : public nn::Module {
 public:
  TimeEmbed(int64_t num_timesteps, int64_t width, double drop_rate);
  /// timestep int64 [B] -> [B, D] in the parameters' type.
  at::Tensor forward(const at::Tensor& timestep_B, const nn::Draws& draws);
  const at::Tensor table() const { return table_.values(); }

 private:
  FixedTable table_;  // [T, D]; a function of the sizes, so not saved with the weights
  double drop_rate_;
  std::shared_ptr<nn::Linear> fc1_, fc2_;
};

/// output: the predicted noise like the image; loss always. Level and noise come from batch.timestep and batch.noise, or
/// are drawn by sample id: in training from the step, else from step 0, so that every evaluation draws the same.
/// The class is batch.label; -1, or no labels, is no class.
class Diffusion : public EncoderModel {
 public:
  /// throws ConfigError when the options contradict each other.
  explicit Diffusion(const config::Model& options);

  Task task() const override { return Task::denoising; }
  /// Predicted noise, fp32 like the image, of a batch whose image is noisy already, at its timestep and label.
  at::Tensor predict_noise(const data::Batch& noisy);

  const NoiseSchedule& schedule() const { return schedule_; }
  const config::Model& options() const { return options_; }
  std::vector<UnitSpec> units() override;
  double train_flops_per_sample() const override;
  std::vector<nn::NamedTensor> fixed_tensors() const override;
  void set_fixed_tensor(const std::string& name, const at::Tensor& values) override;

 private:
  Known know(const data::Batch& batch, const nn::Draws& draws, Asks who) const override;
  void begin(Flow& flow, const Known& known, Taps& tap) override;
  void between(Flow& flow, const Known& known, Taps& tap) override;
  void conclude(Flow& flow, const Known& known, Taps& tap, Output& out) override;
  nn::Context trunk_context(int t, const Flow& flow, const Known& known) override;
  std::vector<std::string> end_taps() const override;
  bool conditions_blocks() const { return options_.time_conditioning == "block"; }
  void add_decoder();
  at::Tensor condition(const data::Batch& batch, const nn::Draws& draws);
  at::Tensor class_rows(const data::Batch& batch, const nn::Draws& draws) const;
  at::Tensor add_decoder_positions(const at::Tensor& x_BTD, const data::Batch& batch) const;

  NoiseSchedule schedule_;
  std::shared_ptr<TimeEmbed> time_embed_;
  at::Tensor class_embed_;  // [classes + 1, D]; undefined without classes
  std::shared_ptr<nn::Linear> decoder_embed_;
  std::unique_ptr<Positions> decoder_positions_;  // null without a transformer decoder
  RotaryTable decoder_rotary_;
  std::shared_ptr<nn::Stack> decoder_blocks_;
  std::shared_ptr<nn::Norm> decoder_norm_;
  std::shared_ptr<PatchHead> decoder_pred_;
};

/// mae_initial, but the last layer and the blocks' conditioning start at zero (the first prediction is 0, its loss 1), and
/// class rows are normal(0.02).
/// Paper    Peebles & Xie 2022, arXiv:2212.09748.
InitialRule diffusion_initial(const config::Model& options);

}  // namespace vitrail::models

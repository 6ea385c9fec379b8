#pragma once
/// What every model offers to training, evaluation and parallelism. A model knows nothing of ranks.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"
#include "vitrail/data/batch.h"
#include "vitrail/nn/draws.h"
#include "vitrail/nn/module.h"
#include "vitrail/nn/stack.h"

namespace vitrail::models {

/// What a model is trained for; decides loss, metrics and pictures.
/// regression: real values of a sample (vit) or of every pixel (unetr, sap), with model.loss mse.
enum class Task { classification, reconstruction, segmentation, denoising, regression, detection };

struct Output {
  at::Tensor
      output;  // vit: logits (values) [B, classes]; mae: prediction [B, L, S]; unetr, sap: logits
               // [B, classes, sides...]; diffusion: predicted noise like the image; fp32
  at::Tensor
      loss;  // scalar fp32, mean over the batch; undefined when the batch lacks what it needs
  at::Tensor mask;  // mae: [B, L], 1 = hidden
  at::Tensor
      boxes;  // detection: [B, Q, 4] centre x, centre y, width, height as shares of the image; output holds the
      // logits [B, Q, classes + 1] (focal: [B, Q, classes])
  std::map<std::string, at::Tensor> taps;
};

/// Parameters that are gathered, reduced and updated together: one block, or one end.
struct UnitSpec {
  std::string name;                         // "blocks.3", "embed", "head", "decoder_blocks.0"
  std::vector<nn::NamedTensor> parameters;  // full names
  nn::Stack* stack = nullptr;  // the stack whose backward(i) completes the unit; null for ends
  int block = -1;
};

class Chain;  // models/chain.h

class Model : public nn::Module {
 public:
  virtual Task task() const = 0;
  /// The batch with what forward would otherwise make or draw by numbers of the host: leaves, mask noise. forward gives
  /// the same with and without it.
  virtual data::Batch prepared(data::Batch batch, const nn::Draws& draws) const;
  /// One pass. `taps` names intermediate results to return (docs/models.md lists them per model).
  virtual Output forward(const data::Batch& batch, const nn::Draws& draws,
                         const std::vector<std::string>& taps = {}) = 0;
  /// What a probe reads of a sample, [B, D] (vit: the head's input; others: the mean of all final patch
  /// tokens, none hidden). throws ConfigError for a model without an encoder.
  virtual at::Tensor features(const data::Batch& batch, const nn::Draws& draws);
  /// Every parameter in exactly one unit, in the order in which forward uses them.
  virtual std::vector<UnitSpec> units() = 0;
  virtual std::vector<nn::Stack*> stacks() = 0;
  /// The model as ends and trunks in turn, for pipelines; null when it cannot be cut.
  virtual Chain* chain() { return nullptr; }
  /// Multiply-adds count two; forward and backward of one sample, recompute not counted: 6 N T + 12 T^2 d L over the
  /// trunks (N trunk parameters, T tokens, d width, L layers).
  virtual double train_flops_per_sample() const = 0;
  /// Tokens of one sample that pass through the (first) trunk.
  virtual int64_t tokens_per_sample() const = 0;
  /// Training passes over prepared batches of the same shapes launch the same kernels with the same arguments: nothing is drawn
  /// or chosen by numbers of the host, so that a pass can be recorded (parallel/graph.h).
  virtual bool repeats() const { return false; }
  /// Tensors that belong to the weights but are not trained (sin-cos tables), with their full names.
  virtual std::vector<nn::NamedTensor> fixed_tensors() const { return {}; }
  /// Replaces one of them; values of the same shape.
  virtual void set_fixed_tensor(const std::string& name, const at::Tensor& values);
};

/// Builds and initialises the model of a recipe on the CPU in fp32; initial values are a function of (seed, parameter
/// name, element).
std::shared_ptr<Model> make_model(const config::Model& options, uint64_t seed);

/// The same model without memory for its parameters (tensors on the meta device): names, shapes, units and counts.
std::shared_ptr<Model> make_model_shapes(const config::Model& options);

/// Applies what the training section says about how blocks run: engine, recompute, attention core.
void configure(Model& model, const config::Train& train);

/// Moves every parameter to `device` in `dtype`; the handles stay the parameters. For programs without parallel::UnitSet.
void move_parameters(Model& model, at::Device device, at::ScalarType dtype);

/// True for weights that decay: matrices of linear and patch layers; false for biases, norms, LayerScale, class,
/// mask and register tokens and position tables.
bool decays(const std::string& name, const at::Tensor& parameter);

}  // namespace vitrail::models

#include "vitrail/models/parts.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/patch.h"
#include "vitrail/ops/position.h"
#include "vitrail/ops/random.h"

namespace vitrail::models {

at::Tensor FixedTable::like(const at::Tensor& other) {
  if (!converted_.defined() || converted_.device() != other.device() ||
      converted_.scalar_type() != other.scalar_type())
    converted_ = values_.to(other.options());
  return converted_;
}

void FixedTable::set(const at::Tensor& values) {
  values_ = values.to(at::kCPU, at::kFloat);
  converted_ = at::Tensor();
}

at::Tensor position_table(const config::Model& options, int64_t prefix, int64_t width) {
  const std::vector<int64_t> grid = ops::patch_grid(options.image_size, options.patch_size);
  const at::Tensor table = ops::sincos_table(grid, width);
  return at::cat({at::zeros({prefix, width}, table.options()), table}).unsqueeze(0);
}

void start_at(at::Tensor parameter, const at::Tensor& values) {
  if (parameter.is_meta()) return;
  const at::NoGradGuard no_grad;
  parameter.copy_(values);
}

RotaryTable::RotaryTable(const config::Model& options, int64_t prefix, int64_t head_width,
                         double theta)
    : kind_(options.rope.value), prefix_(prefix), head_width_(head_width), theta_(theta) {
  if (kind_ == "none") return;
  VT_REQUIRE(ConfigError, options.num_leaves() == 0,
             "[config] model.rope={} needs a grid of patches, which model.adaptive has not; set "
             "model.rope=none",
             kind_);
  const int64_t pairs = kind_ == "axial" ? static_cast<int64_t>(options.image_size.size()) : 1;
  VT_REQUIRE(ConfigError, head_width % (2 * pairs) == 0,
             "[config] the head width must be a multiple of {} for model.rope={} in {}-D but is "
             "{}; change embed_dim or num_heads (of the decoder: decoder_embed_dim, "
             "decoder_num_heads)",
             2 * pairs, kind_, options.image_size.size(), head_width);
  grid_ = ops::patch_grid(options.image_size, options.patch_size);
}

ops::Rotary RotaryTable::on(at::Device device, const at::Tensor& keep_BK) {
  if (kind_ == "none") return {};
  if (!values_.defined())
    values_ = (kind_ == "axial" ? ops::axial_rotary : ops::raster_rotary)(grid_, prefix_,
                                                                          head_width_, theta_);
  if (values_.cos.device() != device) values_ = {values_.cos.to(device), values_.sin.to(device)};
  return keep_BK.defined() ? ops::gather(values_, keep_BK, prefix_) : values_;
}

at::Tensor IndexTensors::on(at::Device device, const std::vector<int64_t>& values) const {
  at::Tensor& known = known_[fmt::format("{} {}", device.str(), fmt::join(values, " "))];
  if (!known.defined()) known = at::tensor(values, at::kLong).to(device);
  return known;
}

int64_t known_channels(const config::Model& options) {
  return options.variables.empty() ? options.in_channels
                                   : static_cast<int64_t>(options.variables.size());
}

int64_t patch_pixels(const config::Model& options) {
  int64_t pixels = 1;
  for (size_t axis = 0; axis < options.image_size.size(); ++axis) pixels *= options.patch_size;
  return pixels;
}

PatchHead::PatchHead(const config::Model& options, int64_t width, bool bias)
    : pixels_(patch_pixels(options)), channels_(known_channels(options)) {
  all_ = register_module("", std::make_shared<nn::Linear>(width, pixels_ * channels_, bias));
}

at::Tensor PatchHead::rows(const at::Tensor& parameter, const at::Tensor& channels) const {
  if (!parameter.defined()) return {};
  return parameter.view({pixels_, channels_, -1}).index_select(1, channels).flatten(0, 1);
}

at::Tensor PatchHead::forward(const at::Tensor& x, const std::vector<int64_t>& channels) const {
  bool every = static_cast<int64_t>(channels.size()) == channels_;
  for (size_t c = 0; c < channels.size(); ++c) every &= channels[c] == static_cast<int64_t>(c);
  if (every) return all_->forward(x);
  const at::Tensor chosen = indices_.on(x.device(), channels);
  const at::Tensor bias = rows(all_->bias(), chosen);
  return at::linear(x, rows(all_->weight(), chosen), bias.defined() ? bias.flatten() : bias);
}

at::Tensor PatchHead::forward_apart(const at::Tensor& x,
                                    const std::vector<int64_t>& channels) const {
  const at::Tensor chosen = indices_.on(x.device(), channels);
  const auto count = static_cast<int64_t>(channels.size());
  const at::Tensor weight_CDP =
      all_->weight().view({pixels_, channels_, -1}).index_select(1, chosen).permute({1, 2, 0});
  at::Tensor y_BCLP = at::matmul(x.unflatten(1, {count, -1}), weight_CDP);
  if (all_->bias().defined()) {
    const at::Tensor bias_CP =
        all_->bias().view({pixels_, channels_}).index_select(1, chosen).transpose(0, 1);
    y_BCLP = y_BCLP + bias_CP.unsqueeze(1);
  }
  return y_BCLP.flatten(1, 2);
}

nn::NormOptions norm_options(const config::Model& options) {
  return {options.norm == "rmsnorm" ? nn::NormKind::rmsnorm : nn::NormKind::layernorm,
          options.norm_eps};
}

TrunkSizes trunk_sizes(const config::Model& options) {
  const int64_t hidden = options.mlp_hidden_dim.value_or(
      static_cast<int64_t>(static_cast<double>(options.embed_dim) * options.mlp_ratio));
  return {options.embed_dim, options.depth, options.num_heads, hidden, 0};
}

std::shared_ptr<nn::Stack> make_trunk(const config::Model& options, const TrunkSizes& sizes) {
  nn::BlockOptions block;
  block.width = sizes.width;
  block.num_heads = sizes.num_heads;
  block.mlp_hidden = sizes.mlp_hidden;
  block.num_kv_heads = options.num_kv_heads.value_or(0);
  block.qkv_bias = options.qkv_bias;
  block.proj_bias = options.proj_bias;
  block.conditioned = options.kind == "diffusion" && options.time_conditioning == "block";
  block.qk_norm = options.qk_norm;
  block.layer_scale = options.layer_scale.has_value();
  block.norm = norm_options(options);
  block.mlp = options.mlp == "swiglu"      ? nn::MlpKind::swiglu
              : options.mlp == "gelu_tanh" ? nn::MlpKind::gelu_tanh
                                           : nn::MlpKind::gelu;
  block.attn_drop = options.attn_drop_rate;
  block.proj_drop = options.proj_drop_rate;
  std::vector<std::shared_ptr<nn::Block>> blocks;
  for (int i = 0; i < static_cast<int>(sizes.depth); ++i) {
    block.index = sizes.first_index + i;
    block.drop_path = nn::drop_path_rate(options.drop_path_rate, i, static_cast<int>(sizes.depth));
    blocks.push_back(std::make_shared<nn::Block>(block));
  }
  return std::make_shared<nn::Stack>(std::move(blocks));
}

at::Tensor end_dropout(const at::Tensor& x, double rate, const nn::Draws& draws, EndDraw place) {
  if (!draws.training) return x;
  return ops::dropout(x, rate, draws.key(core::Stream::dropout, static_cast<uint16_t>(place)),
                      draws.sample_ids);
}

double trunk_flops(const nn::Stack& trunk, int64_t tokens, int64_t width) {
  const auto T = static_cast<double>(tokens);
  return 6.0 * static_cast<double>(trunk.parameter_count()) * T +
         12.0 * T * T * static_cast<double>(width) * static_cast<double>(trunk.depth());
}

std::vector<nn::NamedTensor> select(const std::vector<nn::NamedTensor>& all,
                                    const std::vector<std::string>& prefixes) {
  std::vector<nn::NamedTensor> chosen;
  for (const nn::NamedTensor& parameter : all)
    if (std::ranges::any_of(prefixes, [&](const std::string& prefix) {
          return parameter.name.starts_with(prefix);
        }))
      chosen.push_back(parameter);
  return chosen;
}

std::vector<nn::NamedTensor> remaining(const std::vector<nn::NamedTensor>& all,
                                       const std::vector<UnitSpec>& units) {
  std::set<std::string> taken;
  for (const UnitSpec& unit : units)
    for (const nn::NamedTensor& parameter : unit.parameters) taken.insert(parameter.name);
  std::vector<nn::NamedTensor> rest;
  for (const nn::NamedTensor& parameter : all)
    if (!taken.contains(parameter.name)) rest.push_back(parameter);
  return rest;
}

void add_trunk_units(std::vector<UnitSpec>& units, const std::vector<nn::NamedTensor>& all,
                     const std::string& name, nn::Stack* trunk) {
  for (int i = 0; i < trunk->depth(); ++i) {
    const std::string block = fmt::format("{}.{}", name, i);
    units.push_back({block, select(all, {block + "."}), trunk, i});
  }
}

Taps::Taps(const std::vector<std::string>& wanted, const std::vector<std::string>& ends,
           const std::vector<std::pair<std::string, int>>& trunks,
           std::map<std::string, at::Tensor>& found)
    : wanted_(wanted), found_(found) {
  std::vector<std::string> known = ends, shown = ends;
  for (const auto& [name, depth] : trunks) {
    for (int i = 0; i < depth; ++i) known.push_back(fmt::format("{}.{}", name, i));
    if (depth > 0) shown.push_back(fmt::format("{}.0 ... {}.{}", name, name, depth - 1));
  }
  for (const std::string& name : wanted)
    VT_REQUIRE(ConfigError, std::ranges::find(known, name) != known.end(),
               "[taps] '{}' is not a tap of this model; it has {}", name, fmt::join(shown, ", "));
}

bool Taps::wants(const std::string& name) const {
  return std::ranges::find(wanted_, name) != wanted_.end();
}

void Taps::offer(const std::string& name, const at::Tensor& value) {
  if (wants(name)) found_[name] = value;
}

at::Tensor Taps::run(const std::string& name, nn::Stack& trunk, const at::Tensor& x_BLD,
                     const nn::Context& context, const std::vector<nn::Tap>& also,
                     std::vector<at::Tensor>* also_outputs) {
  std::vector<nn::Tap> blocks;
  for (int i = 0; i < trunk.depth(); ++i)
    if (std::ranges::find(wanted_, fmt::format("{}.{}", name, i)) != wanted_.end())
      blocks.push_back(i);
  const size_t wanted = blocks.size();
  blocks.insert(blocks.end(), also.begin(), also.end());
  std::vector<at::Tensor> outputs;
  const at::Tensor y_BLD = trunk.forward(x_BLD, context, blocks, &outputs);
  for (size_t t = 0; t < wanted; ++t) found_[fmt::format("{}.{}", name, blocks[t].block)] = outputs[t];
  if (also_outputs)
    also_outputs->assign(outputs.begin() + static_cast<std::ptrdiff_t>(wanted), outputs.end());
  return y_BLD;
}

}  // namespace vitrail::models

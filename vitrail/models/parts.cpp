#include "vitrail/models/parts.h"

#include <algorithm>
#include <cmath>

#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/patch.h"
#include "vitrail/ops/position.h"
#include "vitrail/ops/random.h"

namespace vitrail::models {

Projection::Projection(const config::Model& options) {
  std::vector<int64_t> shape{options.embed_dim, options.in_channels};
  shape.insert(shape.end(), options.image_size.size(), options.patch_size);
  weight_ = register_parameter("weight", shape);
  if (options.patch_bias) bias_ = register_parameter("bias", {options.embed_dim});
}

at::Tensor Projection::forward(const at::Tensor& patches_BLS) const {
  return at::linear(patches_BLS, weight_.flatten(1), bias_);
}

PatchEmbed::PatchEmbed(const config::Model& options)
    : image_shape_{options.in_channels}, patch_size_(options.patch_size) {
  VT_REQUIRE(ConfigError, options.image_size.size() == 2 || options.image_size.size() == 3,
             "[config] model.image_size must have 2 or 3 sides but got {}",
             options.image_size.size());
  image_shape_.insert(image_shape_.end(), options.image_size.begin(), options.image_size.end());
  proj_ = register_module("proj", std::make_shared<Projection>(options));
}

at::Tensor PatchEmbed::patches(const at::Tensor& image) const {
  VT_CHECK(image.defined() && image.dim() >= 1 &&
               image.sizes().slice(1) == at::IntArrayRef(image_shape_),
           "[model] images must be [B, {}] (model.in_channels, model.image_size) but got [{}]",
           fmt::join(image_shape_, ", "),
           image.defined() ? fmt::format("{}", fmt::join(image.sizes(), ", ")) : "");
  return ops::patchify(image.to(proj_->dtype()), patch_size_, ops::PatchOrder::channel_first);
}

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
  block.qkv_bias = options.qkv_bias;
  block.qk_norm = options.qk_norm;
  block.layer_scale = options.layer_scale.has_value();
  block.norm = norm_options(options);
  block.mlp = options.mlp == "swiglu" ? nn::MlpKind::swiglu : nn::MlpKind::gelu;
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

void Taps::offer(const std::string& name, const at::Tensor& value) {
  if (std::ranges::find(wanted_, name) != wanted_.end()) found_[name] = value;
}

at::Tensor Taps::run(const std::string& name, nn::Stack& trunk, const at::Tensor& x_BLD,
                     const nn::Draws& draws) {
  std::vector<int> blocks;
  for (int i = 0; i < trunk.depth(); ++i)
    if (std::ranges::find(wanted_, fmt::format("{}.{}", name, i)) != wanted_.end())
      blocks.push_back(i);
  std::vector<at::Tensor> outputs;
  const at::Tensor y_BLD = trunk.forward(x_BLD, draws, blocks, &outputs);
  for (size_t t = 0; t < blocks.size(); ++t)
    found_[fmt::format("{}.{}", name, blocks[t])] = outputs[t];
  return y_BLD;
}

}  // namespace vitrail::models

#include "vitrail/models/rat_blocks.h"

#include <cmath>

#include <fmt/ranges.h>

#include "vitrail/config/rules.h"
#include "vitrail/core/error.h"
#include "vitrail/models/detection_head.h"
#include "vitrail/models/init.h"
#include "vitrail/models/parts.h"
#include "vitrail/models/rat.h"

namespace vitrail::models {
namespace {

nn::FrequencyLaw law_of(const config::Rat& rat) {
  if (rat.frequency_scaling == "none") return nn::FrequencyLaw::none;
  if (rat.frequency_scaling == "linear") return nn::FrequencyLaw::linear;
  if (rat.frequency_scaling == "sqrt") return nn::FrequencyLaw::sqrt;
  return nn::FrequencyLaw::adaptive;
}

nn::SpacingScaling scaling_of(const config::Rat& rat) {
  if (rat.spacing_scaling == "identity") return nn::SpacingScaling::identity;
  if (rat.spacing_scaling == "log") return nn::SpacingScaling::log;
  if (rat.spacing_scaling == "rope") return nn::SpacingScaling::rope;
  return nn::SpacingScaling::none;
}

nn::RoseOptions rose_of(const config::Model& options) {
  const config::Rat& rat = options.rat;
  nn::RoseOptions rose;
  rose.axes = static_cast<int64_t>(options.image_size.size());
  rose.width = options.embed_dim;
  rose.num_heads = options.num_heads;
  rose.ratio = rat.position == "rose" || rat.position == "rope" ? rat.rotary_ratio : 0.0;
  rose.theta = options.rope_theta;
  rose.law = law_of(rat);
  rose.equal_axes = rat.axis_frequencies == "equal";
  rose.learnable = rat.learnable_rose && rat.position == "rose";
  rose.scaling = rat.position == "rose" ? scaling_of(rat) : nn::SpacingScaling::none;
  return rose;
}

nn::BlockOptions block_of(const config::Model& options) {
  nn::BlockOptions block;
  block.width = options.embed_dim;
  block.num_heads = options.num_heads;
  block.mlp_hidden = trunk_sizes(options).mlp_hidden;
  block.qkv_bias = options.qkv_bias;
  block.proj_bias = options.proj_bias;
  block.qk_norm = options.qk_norm;
  block.layer_scale = options.layer_scale.has_value();
  block.norm = norm_options(options);
  block.mlp = options.mlp == "swiglu"      ? nn::MlpKind::swiglu
              : options.mlp == "gelu_tanh" ? nn::MlpKind::gelu_tanh
                                           : nn::MlpKind::gelu;
  block.attn_drop = options.attn_drop_rate;
  block.proj_drop = options.proj_drop_rate;
  return block;
}

nn::GroupingOptions grouping_of(const config::Model& options, int64_t i,
                                const nn::BlockOptions& block) {
  const config::Rat& rat = options.rat;
  nn::GroupingOptions grouping;
  grouping.axes = static_cast<int64_t>(options.image_size.size());
  grouping.width = options.embed_dim;
  grouping.num_heads = options.num_heads;
  grouping.kernel = rat.kernel;
  grouping.stride = config::rat_stride(rat, i);
  grouping.iterations = rat.iterations;
  grouping.sparse = config::rat_is_sparse(rat, i);
  grouping.neighbourhood = rat.neighbourhood;
  grouping.mixes_heads = rat.heads == "viewed";
  grouping.stores_maps = rat.maps == "stored";
  grouping.workspace_bytes = rat.workspace_mib << 20;
  grouping.mlp.kind = block.mlp;
  grouping.mlp.width = options.embed_dim;
  grouping.mlp.hidden = block.mlp_hidden;
  grouping.rose = rose_of(options);
  return grouping;
}

bool is_convolution(const std::string& name) {
  return name.starts_with("proj.") || name.find(".grouping.conv.") != std::string::npos;
}

}  // namespace

const config::Model& checked_rat(const config::Model& options) {
  config::RuleBook rules;
  config::check_rat(options, rules);
  const std::vector<config::Violation> broken = rules.take();
  VT_REQUIRE(ConfigError, broken.empty(), "[config] {}", broken.empty() ? "" : broken[0].text);
  return options;
}

std::vector<std::shared_ptr<nn::Block>> rat_blocks(const config::Model& options,
                                                   const std::vector<nn::CellGrid>& grids) {
  std::vector<std::shared_ptr<nn::Block>> blocks;
  std::vector<nn::GroupingOptions> before;
  nn::BlockOptions block = block_of(options);
  const auto depth = static_cast<int>(options.depth);
  for (int i = 0; i < depth; ++i) {
    block.index = i;
    block.drop_path = nn::drop_path_rate(options.drop_path_rate, i, depth);
    const nn::GroupingOptions grouping = grouping_of(options, i, block);
    blocks.push_back(std::make_shared<nn::GroupingBlock>(block, grouping, grids, before));
    before.push_back(grouping);
  }
  return blocks;
}

InitialRule rat_initial(const config::Model& options) {
  const auto axes = static_cast<double>(options.image_size.size());
  const config::Rat& rat = options.rat;
  const double pixels = std::pow(static_cast<double>(rat.proj_kernel), axes) *
                        static_cast<double>(options.in_channels);
  const double cells =
      std::pow(static_cast<double>(rat.kernel), axes) * static_cast<double>(options.embed_dim);
  const auto per_head = static_cast<double>(options.embed_dim / options.num_heads);
  const double temperature =
      1.0 /
      std::sqrt(rat.temperature == "head" ? per_head : static_cast<double>(options.embed_dim));
  const double gamma = options.layer_scale.value_or(0.0), jitter = rat.jitter;
  const InitialRule own = [=](const std::string& name, const at::Tensor& parameter) -> Initial {
    if (is_convolution(name))
      return {Fill::uniform, 1.0 / std::sqrt(name.starts_with("proj.") ? pixels : cells)};
    if (name.ends_with(".temperature")) return {Fill::constant, temperature};
    if (name.ends_with(".log_offset")) return {Fill::normal, jitter};
    if (name.ends_with(".rose.scaling")) return {Fill::keep};
    if (name.ends_with(".mask_embedding")) return {Fill::truncated_normal, 0.02};
    if (name.ends_with(".gamma")) return {Fill::constant, gamma};
    if (name.ends_with(".bias")) return {Fill::zeros};
    if (parameter.dim() == 1) return {Fill::ones};
    return {Fill::truncated_normal, 0.02};
  };
  return options.rat.head == "detection" ? with_detection_head(own, "head.", options) : own;
}

}  // namespace vitrail::models

// Named sizes.
// vit_tiny ... vit_large: Touvron et al. 2021 (arXiv:2012.12877), Dosovitskiy et al. 2021
// (arXiv:2010.11929). vit_huge ... vit_15b: Tsaris et al. 2024, arXiv:2404.11706, table of models.
// Its 5B row (MLP 15360) gives 3.8 billion parameters, not the 5.3 printed beside it; vit_5b_actual
// is the shape that fits its memory and speed.
// mae3d_2b, mae3d_8b: the 3-D masked autoencoders of torchtitan-mae at the commit whose rotary
// positions are those of the visible patches (decoder of 16 heads, theta 1e7 and 1000). Hidden
// widths: 2/3 * 4 * embed_dim * 1.3, rounded up to a multiple of 1024; decoder_mlp_ratio 3 is its
// 1536.

#include <algorithm>

#include <fmt/format.h>

#include "vitrail/config/defaults.h"
#include "vitrail/config/recipe.h"
#include "vitrail/config/yaml.h"
#include "vitrail/core/did_you_mean.h"

namespace vitrail::config {

namespace {

/// The sizes of a ViT; mlp_hidden_dim 0 leaves it to mlp_ratio.
Preset vit(std::string name, int embed_dim, int depth, int num_heads, int patch_size,
           int mlp_hidden_dim = 0) {
  Preset preset{std::move(name),
                {{"embed_dim", std::to_string(embed_dim)},
                 {"depth", std::to_string(depth)},
                 {"num_heads", std::to_string(num_heads)},
                 {"patch_size", std::to_string(patch_size)}}};
  if (mlp_hidden_dim > 0)
    preset.values.emplace_back("mlp_hidden_dim", std::to_string(mlp_hidden_dim));
  return preset;
}

Preset mae3d(std::string name, int embed_dim, int depth, int mlp_hidden_dim) {
  return {std::move(name),
          {{"kind", "mae"},
           {"image_size", "[512, 512, 512]"},
           {"patch_size", "8"},
           {"in_channels", "1"},
           {"embed_dim", std::to_string(embed_dim)},
           {"depth", std::to_string(depth)},
           {"num_heads", "32"},
           {"num_kv_heads", "8"},
           {"mlp", "swiglu"},
           {"mlp_hidden_dim", std::to_string(mlp_hidden_dim)},
           {"norm", "rmsnorm"},
           {"norm_eps", "1e-6"},
           {"qkv_bias", "false"},
           {"proj_bias", "false"},
           {"patch_bias", "false"},
           {"class_token", "false"},
           {"final_norm", "true"},
           {"pos_embed", "none"},
           {"rope", "raster"},
           {"rope_theta", "1e7"},
           {"mask_ratio", "0.95"},
           {"decoder_embed_dim", "512"},
           {"decoder_depth", "4"},
           {"decoder_num_heads", "16"},
           {"decoder_mlp_ratio", "3"},
           {"decoder_rope_theta", "1000"}}};
}

}  // namespace

const std::vector<Preset>& presets() {
  static const std::vector<Preset> table{
      vit("vit_tiny", 192, 12, 3, 16),        vit("vit_small", 384, 12, 6, 16),
      vit("vit_base", 768, 12, 12, 16),       vit("vit_large", 1024, 24, 16, 16),
      vit("vit_huge", 1280, 32, 16, 14),      vit("vit_1b", 1536, 32, 16, 14),
      vit("vit_3b", 2816, 32, 32, 14),        vit("vit_5b_printed", 1792, 56, 16, 14, 15360),
      vit("vit_5b_actual", 2816, 56, 32, 14), vit("vit_15b", 5040, 48, 48, 14),
      mae3d("mae3d_2b", 3072, 16, 11264),     mae3d("mae3d_8b", 4096, 32, 14336),
  };
  return table;
}

namespace {

void report_unknown(const Node& name, Problems& problems) {
  std::vector<std::string> names;
  for (const Preset& preset : presets()) names.push_back(preset.name);
  std::string near = core::nearest_word(name.text, names);
  if (near.empty()) near = core::nearest_word("vit_" + name.text, names);
  problems.add_about("model.preset", name.place,
                     fmt::format("must be the name of a preset but got {}{}", describe(name),
                                 near.empty() ? "; vitrail check --reference lists them"
                                              : fmt::format("; did you mean '{}'?", near)));
}

/// False, and reported, when the recipe asks for another kind of model. An unreadable kind is
/// reported by the reader.
bool fits_kind(const Node& model, const Preset& preset, const std::string& kind,
               Problems& problems) {
  const Node* given = model.find("kind");
  const std::vector<std::string> kinds = Model{}.kind.allowed;
  if (!given || given->text == kind ||
      std::find(kinds.begin(), kinds.end(), given->text) == kinds.end())
    return true;
  problems.add_about("model.preset", model.find("preset")->place,
                     fmt::format("{} is for model.kind {} but that is {}; leave model.kind out or "
                                 "take another preset",
                                 preset.name, kind, given->text));
  return false;
}

void fill(Node& model, const Preset& preset, Problems& problems) {
  const Place place{"preset " + preset.name, 0, 0, false};
  for (const auto& [key, value] : preset.values)
    if (key == "kind" && !fits_kind(model, preset, value, problems)) return;
  // A ratio that the recipe gives is meant to win over the preset's width.
  const bool has_ratio = model.find("mlp_ratio") != nullptr;
  for (const auto& [key, value] : preset.values)
    if (!model.find(key) && !(key == "mlp_hidden_dim" && has_ratio))
      model.set(key, parse_yaml_value(value, key, place, problems));
}

}  // namespace

void apply_preset(Node& root, Problems& problems) {
  Node* model = root.find("model");
  const Node* name = model ? model->find("preset") : nullptr;
  if (!name || !name->is_scalar() || name->text.empty()) return;
  for (const Preset& preset : presets())
    if (preset.name == name->text) return fill(*model, preset, problems);
  report_unknown(*name, problems);
}

}  // namespace vitrail::config

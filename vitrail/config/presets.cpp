// Named sizes.
// vit_tiny ... vit_large: Touvron et al. 2021 (arXiv:2012.12877), Dosovitskiy et al. 2021
// (arXiv:2010.11929). vit_huge ... vit_15b: Tsaris et al. 2024, arXiv:2404.11706, table of models.
// Its 5B row (MLP 15360) gives 3.8 billion parameters, not the 5.3 printed beside it; vit_5b_actual
// is the shape that fits its memory and speed.

#include <fmt/format.h>

#include "vitrail/config/defaults.h"
#include "vitrail/config/not_yet.h"
#include "vitrail/core/did_you_mean.h"

namespace vitrail::config {

const std::vector<Preset>& presets() {
  static const std::vector<Preset> table{
      {"vit_tiny", 192, 12, 3, 16, 0},        {"vit_small", 384, 12, 6, 16, 0},
      {"vit_base", 768, 12, 12, 16, 0},       {"vit_large", 1024, 24, 16, 16, 0},
      {"vit_huge", 1280, 32, 16, 14, 0},      {"vit_1b", 1536, 32, 16, 14, 0},
      {"vit_3b", 2816, 32, 32, 14, 0},        {"vit_5b_printed", 1792, 56, 16, 14, 15360},
      {"vit_5b_actual", 2816, 56, 32, 14, 0}, {"vit_15b", 5040, 48, 48, 14, 0},
  };
  return table;
}

namespace {

void report_unknown(const Node& name, Problems& problems) {
  if (const std::string later = word_not_yet("model.preset", name); !later.empty()) {
    problems.add_about("model.preset", name.place, later);
    return;
  }
  std::vector<std::string> names;
  for (const Preset& preset : presets()) names.push_back(preset.name);
  std::string near = core::nearest_word(name.text, names);
  if (near.empty()) near = core::nearest_word("vit_" + name.text, names);
  problems.add_about("model.preset", name.place,
                     fmt::format("must be the name of a preset but got {}{}", describe(name),
                                 near.empty() ? "; vitrail check --reference lists them"
                                              : fmt::format("; did you mean '{}'?", near)));
}

}  // namespace

void apply_preset(Node& root, Problems& problems) {
  Node* model = root.find("model");
  const Node* name = model ? model->find("preset") : nullptr;
  if (!name || !name->is_scalar() || name->text.empty()) return;
  for (const Preset& preset : presets()) {
    if (preset.name != name->text) continue;
    const Place place{"preset " + preset.name, 0, 0, false};
    const auto fill = [&](const char* key, int64_t value) {
      if (!model->find(key)) model->set(key, make_scalar(std::to_string(value), place));
    };
    fill("embed_dim", preset.embed_dim);
    fill("depth", preset.depth);
    fill("num_heads", preset.num_heads);
    fill("patch_size", preset.patch_size);
    // A ratio that the recipe gives is meant to win over the preset's width.
    if (preset.mlp_hidden_dim > 0 && !model->find("mlp_ratio"))
      fill("mlp_hidden_dim", preset.mlp_hidden_dim);
    return;
  }
  report_unknown(*name, problems);
}

}  // namespace vitrail::config

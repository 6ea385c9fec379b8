#include "vitrail/models/key_map.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include <ATen/ops/cat.h>

#include "vitrail/core/error.h"

namespace vitrail::models {
namespace {

using Tensors = std::vector<nn::NamedTensor>;

/// `ours` is made of `theirs`, joined along the first axis. A '#' stands for a block number; both sides are prefixes, what
/// follows (weight, bias) stays.
struct Rule {
  std::string ours;
  std::vector<std::string> theirs;
};

/// The blocks of one trunk under transformers' hub names.
void add_hub_blocks(std::vector<Rule>& rules, const std::string& ours, const std::string& theirs) {
  const std::string attention = theirs + "attention.attention.";
  rules.insert(rules.end(), {{ours + "norm1.", {theirs + "layernorm_before."}},
                             {ours + "norm2.", {theirs + "layernorm_after."}},
                             {ours + "attn.qkv.",
                              {attention + "query.", attention + "key.", attention + "value."}},
                             {ours + "attn.proj.", {theirs + "attention.output.dense."}},
                             {ours + "mlp.fc1.", {theirs + "intermediate.dense."}},
                             {ours + "mlp.fc2.", {theirs + "output.dense."}}});
}

/// The same under the names of release 5 in memory.
void add_release5_blocks(std::vector<Rule>& rules, const std::string& ours,
                         const std::string& theirs) {
  const std::string attention = theirs + "attention.";
  rules.insert(
      rules.end(),
      {{ours + "norm1.", {theirs + "layernorm_before."}},
       {ours + "norm2.", {theirs + "layernorm_after."}},
       {ours + "attn.qkv.", {attention + "q_proj.", attention + "k_proj.", attention + "v_proj."}},
       {ours + "attn.proj.", {attention + "o_proj."}},
       {ours + "mlp.fc1.", {theirs + "mlp.fc1."}},
       {ours + "mlp.fc2.", {theirs + "mlp.fc2."}}});
}

/// Names outside blocks, without the "vit." that models with a head put before the encoder's.
std::vector<Rule> hub_rules() {
  std::vector<Rule> rules{{"cls_token", {"embeddings.cls_token"}},
                          {"pos_embed", {"embeddings.position_embeddings"}},
                          {"patch_embed.proj.", {"embeddings.patch_embeddings.projection."}},
                          {"norm.", {"layernorm."}},
                          {"head.", {"classifier."}},
                          {"mask_token", {"decoder.mask_token"}},
                          {"decoder_pos_embed", {"decoder.decoder_pos_embed"}},
                          {"decoder_embed.", {"decoder.decoder_embed."}},
                          {"decoder_norm.", {"decoder.decoder_norm."}},
                          {"decoder_pred.", {"decoder.decoder_pred."}}};
  add_hub_blocks(rules, "blocks.#.", "encoder.layer.#.");
  add_hub_blocks(rules, "decoder_blocks.#.", "decoder.decoder_layers.#.");
  return rules;
}

std::vector<Rule> all_hf_rules() {
  std::vector<Rule> rules = hub_rules();
  add_hub_blocks(rules, "decoder_blocks.#.",
                 "decoder.decoder_encoder.layer.#.");  // what release 5 saves
  add_release5_blocks(rules, "blocks.#.", "layers.#.");
  add_release5_blocks(rules, "decoder_blocks.#.", "decoder.decoder_layers.#.");
  return rules;
}

struct Match {
  std::string number, rest;
};

/// Whether `text` begins with `pattern` ('#' = digits).
std::optional<Match> match(const std::string& pattern, const std::string& text) {
  Match found;
  size_t at = 0;
  for (const char letter : pattern) {
    if (letter != '#') {
      if (at >= text.size() || text[at] != letter) return std::nullopt;
      ++at;
      continue;
    }
    const size_t first = at;
    while (at < text.size() && text[at] >= '0' && text[at] <= '9') ++at;
    if (at == first) return std::nullopt;
    found.number = text.substr(first, at - first);
  }
  found.rest = text.substr(at);
  // A pattern that is a whole name ("cls_token") must not match a longer one.
  if (!pattern.ends_with('.') && !found.rest.empty()) return std::nullopt;
  return found;
}

std::string fill(const std::string& pattern, const Match& found) {
  std::string name = pattern;
  if (const size_t mark = name.find('#'); mark != std::string::npos)
    name.replace(mark, 1, found.number);
  return name + found.rest;
}

/// Pieces of one of our tensors, by place.
using Pieces = std::array<at::Tensor, 3>;

Tensors import_hf(const Tensors& tensors) {
  const std::vector<Rule> rules = all_hf_rules();
  Tensors result;
  std::map<std::string, Pieces> merged;
  for (const nn::NamedTensor& entry : tensors) {
    const std::string theirs = entry.name.starts_with("vit.") ? entry.name.substr(4) : entry.name;
    if (theirs.starts_with("pooler.")) continue;
    bool known = false;
    for (size_t r = 0; r < rules.size() && !known; ++r)
      for (size_t piece = 0; piece < rules[r].theirs.size() && !known; ++piece)
        if (const auto found = match(rules[r].theirs[piece], theirs)) {
          known = true;
          const std::string ours = fill(rules[r].ours, *found);
          if (rules[r].theirs.size() == 1)
            result.push_back({ours, entry.tensor});
          else
            merged[ours][piece] = entry.tensor;
        }
    if (!known) result.push_back(entry);
  }
  for (const auto& [ours, pieces] : merged) {
    for (const at::Tensor& piece : pieces)
      VT_REQUIRE(CheckpointError, piece.defined(),
                 "[weights] '{}' needs query, key and value but one is missing", ours);
    result.push_back({ours, at::cat({pieces[0], pieces[1], pieces[2]})});
  }
  return result;
}

Tensors export_hf(const Tensors& tensors) {
  const std::vector<Rule> rules = hub_rules();
  const bool has_head = std::ranges::any_of(tensors, [](const nn::NamedTensor& entry) {
    return entry.name.starts_with("head.") || entry.name.starts_with("decoder_");
  });
  Tensors result;
  for (const nn::NamedTensor& entry : tensors) {
    bool known = false;
    for (const Rule& rule : rules) {
      const auto found = match(rule.ours, entry.name);
      if (!found) continue;
      known = true;
      const std::vector<at::Tensor> pieces =
          entry.tensor.chunk(static_cast<int64_t>(rule.theirs.size()), 0);
      for (size_t piece = 0; piece < pieces.size(); ++piece) {
        const std::string theirs = fill(rule.theirs[piece], *found);
        const bool encoder = !theirs.starts_with("decoder.") && !theirs.starts_with("classifier.");
        result.push_back({(has_head && encoder ? "vit." : "") + theirs,
                          pieces.size() == 1 ? entry.tensor : pieces[piece].contiguous()});
      }
      break;
    }
    VT_REQUIRE(CheckpointError, known, "[weights] '{}' has no name in the scheme hf", entry.name);
  }
  return result;
}

/// timm has no decoder: an MAE leaves as its encoder.
Tensors export_timm(const Tensors& tensors) {
  Tensors result;
  for (const nn::NamedTensor& entry : tensors)
    if (!entry.name.starts_with("decoder_") && entry.name != "mask_token") result.push_back(entry);
  return result;
}

}  // namespace

Naming parse_naming(const std::string& word) {
  for (const Naming naming : {Naming::vitrail, Naming::timm, Naming::mae, Naming::hf})
    if (word == name(naming)) return naming;
  core::fail<core::ConfigError>(
      "[weights] '{}' is not a naming scheme; use vitrail, timm, mae or hf", word);
}

const char* name(Naming naming) {
  constexpr const char* names[] = {"vitrail", "timm", "mae", "hf"};
  return names[static_cast<int>(naming)];
}

Naming detect_naming(const Tensors& tensors) {
  const auto any = [&](auto&& test) { return std::ranges::any_of(tensors, test); };
  if (any([](const nn::NamedTensor& entry) {
        return entry.name.find("embeddings.patch_embeddings.") != std::string::npos;
      }))
    return Naming::hf;
  if (any([](const nn::NamedTensor& entry) { return entry.name == "mask_token"; }))
    return Naming::mae;
  return Naming::timm;
}

Tensors import_names(const Tensors& tensors, Naming from) {
  return from == Naming::hf ? import_hf(tensors) : tensors;
}

Tensors export_names(const Tensors& tensors, Naming to) {
  if (to == Naming::hf) return export_hf(tensors);
  if (to == Naming::timm) return export_timm(tensors);
  return tensors;
}

}  // namespace vitrail::models

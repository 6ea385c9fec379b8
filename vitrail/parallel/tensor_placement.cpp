// The one table of what tensor ranks divide. Names are nn parts', not models', so it serves every model.

#include <string_view>

#include "vitrail/core/error.h"
#include "vitrail/parallel/channels.h"
#include "vitrail/parallel/tensor.h"

namespace vitrail::parallel {
namespace {

enum class Kind {
  rows,         // outputs of a layer
  rows_qkv,     // the same, q, k and v each for itself
  rows_kv,      // the same, k and v
  columns,      // inputs of a layer
  partial,      // held by all, gradients of the own heads, tokens or variables only
  of_variable,  // the rank that has the variable
  of_group,     // the rank that has the group
};

enum class When { always, split_norms, split_channels };

struct Rule {
  std::string_view pattern;  // * stands for anything
  Kind kind;
  When when = When::always;
};

/// Decoders' blocks go by the same names. The first that matches counts; what none matches is held by all, with the same gradient on each.
constexpr Rule kRules[] = {
    {"blocks.*.attn.qkv.*", Kind::rows_qkv},
    {"blocks.*.attn.q_norm.*", Kind::partial},
    {"blocks.*.attn.k_norm.*", Kind::partial},
    {"blocks.*.attn.proj.weight", Kind::columns},
    {"blocks.*.mlp.fc1*", Kind::rows},
    {"blocks.*.mlp.fc2.weight", Kind::columns},
    {"blocks.*", Kind::partial, When::split_norms},  // norms, scales, biases of proj and fc2, cond

    {"var_embed", Kind::partial, When::split_channels},
    {"token_embeds.*", Kind::of_variable, When::split_channels},
    {"var_groups.*", Kind::of_group, When::split_channels},
    {"var_groups.*.q.weight", Kind::rows},
    {"var_groups.*.kv.weight", Kind::rows_kv},
    {"var_groups.*.q_norm.*", Kind::partial},
    {"var_groups.*.k_norm.*", Kind::partial},
    {"var_groups.*.proj.weight", Kind::columns},
    {"var_agg.q.weight", Kind::rows},
    {"var_agg.kv.weight", Kind::rows_kv},
    {"var_agg.q_norm.*", Kind::partial},
    {"var_agg.k_norm.*", Kind::partial},
    {"var_agg.proj.weight", Kind::columns},
};

bool matches(std::string_view pattern, std::string_view name) {
  if (pattern.empty()) return name.empty();
  if (pattern[0] != '*')
    return !name.empty() && name[0] == pattern[0] && matches(pattern.substr(1), name.substr(1));
  for (size_t skipped = 0; skipped <= name.size(); ++skipped)
    if (matches(pattern.substr(1), name.substr(skipped))) return true;
  return false;
}

/// The number between the first two dots.
int64_t index_in(const std::string& name) { return std::stoll(name.substr(name.find('.') + 1)); }

class Table {
 public:
  Table(const config::Recipe& recipe, int parts, int part)
      : model_(recipe.model), parallel_(recipe.parallel), parts_(parts), part_(part) {}

  Placement operator()(const std::string& name, const std::vector<int64_t>& shape) const {
    std::string_view plain = name;
    if (plain.starts_with("decoder_blocks."))
      plain.remove_prefix(std::string_view("decoder_").size());
    for (const Rule& rule : kRules)
      if (applies(rule.when) && matches(rule.pattern, plain)) return place(rule.kind, name, shape);
    return whole();
  }

 private:
  bool applies(When when) const {
    switch (when) {
      case When::split_norms:
        return parallel_.split_norms;
      case When::split_channels:
        return parallel_.split_channels;
      default:
        return true;
    }
  }

  Placement whole() const {
    Placement placement;
    placement.parts = parts_, placement.part = part_;
    return placement;
  }

  Placement place(Kind kind, const std::string& name, const std::vector<int64_t>& shape) const {
    Placement placement = whole();
    const bool owned = (kind == Kind::of_variable && !model_.shared_tokenizer) ||
                       (kind == Kind::of_group && !model_.aggregation.shared_groups);
    if (owned) {
      placement.split = Split::owner;
      placement.owner = owner(kind, name);
    } else if (kind == Kind::columns) {
      placement.split = Split::columns;
    } else if (kind == Kind::rows || kind == Kind::rows_qkv || kind == Kind::rows_kv) {
      placement.split = Split::rows;
      if (kind != Kind::rows) placement.sections = sections(kind, name, shape);
    } else {
      placement.partial = true;
    }
    return placement;
  }

  int owner(Kind kind, const std::string& name) const {
    const int64_t groups = model_.aggregation.groups, index = index_in(name);
    const auto variables = static_cast<int64_t>(model_.variables.size());
    return owner_of_group(kind == Kind::of_group ? index : index / (variables / groups), groups,
                          parts_);
  }

  std::vector<int64_t> sections(Kind kind, const std::string& name,
                                const std::vector<int64_t>& shape) const {
    const int64_t width =
        name.starts_with("decoder_") ? model_.decoder_embed_dim : model_.embed_dim;
    if (kind == Kind::rows_kv) return {width, width};
    const int64_t of_kv = (shape[0] - width) / 2;
    return {width, of_kv, of_kv};
  }

  config::Model model_;
  config::Parallel parallel_;
  int parts_, part_;
};

}  // namespace

PlacementTable tensor_placement(const config::Recipe& recipe, int parts, int part) {
  if (parts == 1) return {};
  return Table(recipe, parts, part);
}

}  // namespace vitrail::parallel

#include "vitrail/models/adapt.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>

#include "vitrail/models/key_map_rules.h"

namespace vitrail::models {
namespace {

using Grid = std::vector<int64_t>;

int64_t product(const Grid& grid) {
  int64_t all = 1;
  for (const int64_t side : grid) all *= side;
  return all;
}

std::string shape_of(const at::Tensor& tensor) {
  return fmt::format("[{}]", fmt::join(tensor.sizes(), ", "));
}

/// The grid of `patches` patches: all sides equal, else the wanted grid's proportions.
std::optional<Grid> guess_grid(int64_t patches, size_t axes, const Grid& wanted) {
  const Grid like(wanted.end() - static_cast<std::ptrdiff_t>(axes), wanted.end());
  const double power = 1.0 / static_cast<double>(axes);
  const Grid equal(axes, std::llround(std::pow(static_cast<double>(patches), power)));
  if (patches > 0 && product(equal) == patches) return equal;
  Grid scaled;
  const double factor =
      std::pow(static_cast<double>(patches) / static_cast<double>(product(like)), power);
  for (const int64_t side : like)
    scaled.push_back(std::llround(static_cast<double>(side) * factor));
  if (patches > 0 && product(scaled) == patches) return scaled;
  return std::nullopt;
}

class Adapter {
 public:
  Adapter(std::vector<nn::NamedTensor> tensors, const Wanted& wanted)
      : wanted_(wanted), result_{std::move(tensors), {}, {}} {}

  Adapted fit() {
    each([&](nn::NamedTensor& entry) { return keep_linear_patch(entry); });
    each([&](nn::NamedTensor& entry) { return keep_with_prefix_rows(entry); });
    return std::move(result_);
  }

  Adapted adapt() {
    source_axes_ = axes_of_source();
    spread_over_variables();
    each([&](nn::NamedTensor& entry) { return keep_positions(entry); });
    each([&](nn::NamedTensor& entry) { return keep_patch(entry); });
    each([&](nn::NamedTensor& entry) { return keep_head(entry); });
    // Last: the prefix of a position table is counted by the tokens of the source.
    each([&](nn::NamedTensor& entry) { return keep_token(entry); });
    for (const char* token : {"cls_token", "reg_token"})
      if (wanted_.parameters.contains(token) && !has(token)) start_fresh(token, "not in the file");
    return std::move(result_);
  }

 private:
  /// Each step may change an entry; false leaves it out.
  template <class Step>
  void each(Step step) {
    std::vector<nn::NamedTensor> kept;
    const std::vector<nn::NamedTensor> entries = result_.tensors;
    for (nn::NamedTensor entry : entries)
      if (step(entry)) kept.push_back(entry);
    result_.tensors = std::move(kept);
  }

  const at::Tensor* found(const std::string& name) const {
    const auto at = std::ranges::find(result_.tensors, name, &nn::NamedTensor::name);
    return at == result_.tensors.end() ? nullptr : &at->tensor;
  }
  bool has(const std::string& name) const { return found(name) != nullptr; }

  const at::Tensor* target(const std::string& name) const {
    const auto at = wanted_.parameters.find(name);
    return at == wanted_.parameters.end() ? nullptr : &at->second;
  }

  void note(const std::string& name, std::string what) {
    result_.notes.emplace_back(name, std::move(what));
  }

  void start_fresh(const std::string& name, const std::string& why) {
    result_.fresh.insert(name);
    note(name, why + ", keeps its initial value");
  }

  static bool is_positions(const std::string& name) {
    return name == "pos_embed" || name == "decoder_pos_embed";
  }

  /// Class and register tokens of the model.
  int64_t wanted_prefix() const {
    return (target("cls_token") ? 1 : 0) + (target("reg_token") ? target("reg_token")->size(1) : 0);
  }

  bool keep_linear_patch(nn::NamedTensor& entry) {
    const std::string prefix = kLinearPatch;
    if (!entry.name.starts_with(prefix)) return true;
    const std::string name = "patch_embed.proj." + entry.name.substr(prefix.size());
    const at::Tensor* weight = target(name);
    if (!weight) return true;
    if (entry.tensor.dim() == 2 && weight->dim() > 2 && entry.tensor.numel() == weight->numel()) {
      // [D, (P, ..., C)] -> [D, C, P, ...]
      std::vector<int64_t> shape{weight->size(0)};
      for (int64_t axis = 2; axis < weight->dim(); ++axis) shape.push_back(weight->size(axis));
      shape.push_back(weight->size(1));
      entry.tensor = entry.tensor.reshape(shape).movedim(-1, 1).contiguous();
      note(name, "linear patch embedding read as a convolution");
    }
    entry.name = name;
    return true;
  }

  bool keep_with_prefix_rows(nn::NamedTensor& entry) {
    const at::Tensor* table = is_positions(entry.name) ? target(entry.name) : nullptr;
    const int64_t prefix = wanted_prefix();
    if (!table || prefix == 0 || entry.tensor.dim() != 3 ||
        entry.tensor.size(1) + prefix != table->size(1) || entry.tensor.size(2) != table->size(2))
      return true;
    entry.tensor =
        at::cat({at::zeros({1, prefix, table->size(2)}, entry.tensor.options()), entry.tensor}, 1);
    note(entry.name, fmt::format("{} zero rows added for tokens without position", prefix));
    return true;
  }

  /// 2 or 3: of the file's patches.
  size_t axes_of_source() const {
    for (const char* name : {"patch_embed.proj.weight", "token_embeds.0.proj.weight"})
      if (const at::Tensor* weight = found(name); weight && weight->dim() >= 4)
        return static_cast<size_t>(weight->dim() - 2);
    return wanted_.grid.size();
  }

  /// One embedding of mixed channels for a model that has one a variable.
  void spread_over_variables() {
    for (const char* end : {"weight", "bias"}) {
      const std::string mixed = std::string("patch_embed.proj.") + end;
      if (!has(mixed) || target(mixed)) continue;
      const at::Tensor source = *found(mixed);
      bool used = false;
      for (const auto& [name, parameter] : wanted_.parameters) {
        if (!name.starts_with("token_embeds.") || !name.ends_with(std::string(".proj.") + end) ||
            has(name))
          continue;
        result_.tensors.push_back({name, source});
        note(name, "taken from " + mixed);
        used = true;
      }
      if (used)
        std::erase_if(result_.tensors,
                      [&](const nn::NamedTensor& entry) { return entry.name == mixed; });
    }
  }

  bool keep_positions(nn::NamedTensor& entry) {
    if (!is_positions(entry.name) || entry.tensor.dim() != 3) return true;
    const auto fixed = wanted_.fixed.find(entry.name);
    if (fixed != wanted_.fixed.end() && fixed->second.sizes() != entry.tensor.sizes()) {
      note(entry.name, "left out: this model computes its table for its own grid");
      return false;
    }
    const at::Tensor* table = target(entry.name);
    if (table && !wanted_.grid.empty() && table->sizes() != entry.tensor.sizes() &&
        table->size(2) == entry.tensor.size(2))
      resample(entry);
    return true;
  }

  void resample(nn::NamedTensor& entry) {
    const int64_t cls = has("cls_token") ? 1 : 0, rows = entry.tensor.size(1);
    const int64_t registers = has("reg_token") ? found("reg_token")->size(1) : 0;
    for (const int64_t prefix : {cls + registers, cls, int64_t{0}}) {
      const std::optional<Grid> from = guess_grid(rows - prefix, source_axes_, wanted_.grid);
      if (!from) continue;
      const at::Tensor patches =
          resample_positions(entry.tensor[0].slice(0, prefix), *from, wanted_.grid).to(at::kFloat);
      entry.tensor = at::cat({prefix_rows(entry.tensor, prefix, cls), patches}).unsqueeze(0);
      note(entry.name, fmt::format("resampled from {} to {}", fmt::join(*from, "x"),
                                   fmt::join(wanted_.grid, "x")));
      return;
    }
  }

  /// Rows of the model's class and register tokens: the file's where it has them, else zero.
  at::Tensor prefix_rows(const at::Tensor& table, int64_t prefix, int64_t cls) const {
    const int64_t wanted_cls = target("cls_token") ? 1 : 0, wanted = wanted_prefix();
    const at::Tensor rows = table[0].slice(0, 0, prefix).to(at::kFloat);
    at::Tensor result = at::zeros({wanted, table.size(2)}, rows.options());
    if (wanted_cls == 1 && cls == 1 && prefix > 0) result[0].copy_(rows[0]);
    if (wanted - wanted_cls > 0 && wanted - wanted_cls == prefix - cls)
      result.slice(0, wanted_cls).copy_(rows.slice(0, cls));
    return result;
  }

  bool keep_patch(nn::NamedTensor& entry) {
    if (!entry.name.ends_with(".proj.weight")) return true;
    if (!entry.name.starts_with("patch_embed.") && !entry.name.starts_with("token_embeds."))
      return true;
    const at::Tensor* weight = target(entry.name);
    if (!weight || entry.tensor.dim() < 4 || weight->dim() < entry.tensor.dim() ||
        weight->size(0) != entry.tensor.size(0) || weight->sizes() == entry.tensor.sizes())
      return true;
    std::vector<std::string> done;
    at::Tensor changed = entry.tensor;
    if (const int64_t from = changed.size(1), to = weight->size(1); from != to) {
      changed = change_channels(changed, to);
      done.push_back(to == 1 ? fmt::format("{} channels summed", from)
                             : fmt::format("{} channels repeated to {}", from, to));
    }
    if (const int64_t from = changed.size(-1), to = weight->size(-1); from != to) {
      changed = resize_patch(changed, to);
      done.push_back(fmt::format("patch resized from {} to {}", from, to));
    }
    if (changed.dim() < weight->dim()) {
      changed = inflate_patch(changed, weight->size(2));
      done.push_back(
          fmt::format("2-D patch repeated along depth and divided by {}", weight->size(2)));
    }
    entry.tensor = changed;
    note(entry.name, fmt::format("{}", fmt::join(done, ", ")));
    return true;
  }

  bool keep_head(const nn::NamedTensor& entry) {
    if (!entry.name.starts_with("head.") && !entry.name.starts_with("out.")) return true;
    const at::Tensor* parameter = target(entry.name);
    if (parameter && parameter->sizes() == entry.tensor.sizes()) return true;
    if (!parameter)
      note(entry.name, "left out: this model has no such head");
    else
      start_fresh(entry.name, fmt::format("{} in the file, {} here", shape_of(entry.tensor),
                                          shape_of(*parameter)));
    return false;
  }

  bool keep_token(const nn::NamedTensor& entry) {
    if (entry.name != "cls_token" && entry.name != "reg_token") return true;
    const at::Tensor* parameter = target(entry.name);
    if (parameter && parameter->sizes() == entry.tensor.sizes()) return true;
    if (parameter && parameter->size(2) != entry.tensor.size(2)) return true;  // another width
    if (!parameter) note(entry.name, "left out: this model has no such token");
    return false;
  }

  const Wanted& wanted_;
  Adapted result_;
  size_t source_axes_ = 2;
};

}  // namespace

Wanted wanted_of(Model& model, const std::vector<int64_t>& grid) {
  Wanted wanted;
  wanted.grid = grid;
  for (const nn::NamedTensor& parameter : model.named_parameters())
    wanted.parameters[parameter.name] = parameter.tensor;
  for (const nn::NamedTensor& entry : model.fixed_tensors())
    wanted.fixed[entry.name] = entry.tensor;
  return wanted;
}

Adapted fit(std::vector<nn::NamedTensor> tensors, const Wanted& wanted) {
  return Adapter(std::move(tensors), wanted).fit();
}

Adapted adapt(std::vector<nn::NamedTensor> tensors, const Wanted& wanted) {
  Adapted first = fit(std::move(tensors), wanted);
  Adapted second = Adapter(std::move(first.tensors), wanted).adapt();
  second.notes.insert(second.notes.begin(), first.notes.begin(), first.notes.end());
  return second;
}

}  // namespace vitrail::models

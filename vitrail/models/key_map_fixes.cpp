#include "vitrail/models/key_map_fixes.h"

#include <algorithm>
#include <set>

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include "vitrail/core/error.h"

namespace vitrail::models {
namespace {

using Tensors = std::vector<nn::NamedTensor>;

nn::NamedTensor* find(Tensors& tensors, const std::string& name) {
  const auto found = std::ranges::find(tensors, name, &nn::NamedTensor::name);
  return found == tensors.end() ? nullptr : &*found;
}

/// Class and register tokens of a model, and which of their rows the other program's table holds.
struct Rows {
  nn::NamedTensor *table, *cls, *reg;
  int64_t class_rows, register_rows, kept;
};

Rows rows_of(Renamed& ours, PositionRows theirs) {
  Rows rows{find(ours.tensors, "pos_embed"),
            find(ours.tensors, "cls_token"),
            find(ours.tensors, "reg_token"),
            0,
            0,
            0};
  rows.class_rows = rows.cls ? 1 : 0;
  rows.register_rows = rows.reg ? rows.reg->tensor.size(1) : 0;
  if (theirs == PositionRows::all) rows.kept = rows.class_rows + rows.register_rows;
  if (theirs == PositionRows::class_token) rows.kept = rows.class_rows;
  return rows;
}

/// token + rows, the same tensor when all rows are zero (-0 stays -0).
at::Tensor plus(const at::Tensor& token, const at::Tensor& rows) {
  return rows.ne(0).any().item<bool>() ? token + rows : token;
}

bool is_leaf_position(const std::string& name) {
  return name == "leaf_position.proj.weight" || name == "decoder_leaf_position.proj.weight";
}

/// [D, 1 + k] between the two ways to write a place; to_parts: pixels, last axis first -> parts, axes in order.
at::Tensor convert(const at::Tensor& weight, const std::vector<int64_t>& sides, bool to_parts) {
  const auto factor = [&](size_t axis) {
    const auto side = static_cast<double>(sides[axis]);
    return to_parts ? side : 1.0 / side;
  };
  std::vector<at::Tensor> columns{weight.select(1, 0) * factor(0)};
  for (size_t a = 0; a < sides.size(); ++a) {
    const size_t axis = to_parts ? a : sides.size() - 1 - a;
    columns.push_back(weight.select(1, static_cast<int64_t>(sides.size() - a)) * factor(axis));
  }
  return at::stack(columns, 1);
}

void convert_positions(Renamed& ours, const std::vector<int64_t>& sides, bool to_parts) {
  for (nn::NamedTensor& entry : ours.tensors) {
    if (!is_leaf_position(entry.name)) continue;
    VT_REQUIRE(
        CheckpointError, static_cast<int64_t>(sides.size()) + 1 == entry.tensor.size(1),
        "[weights] '{}' counts in pixels in UCF-VIT, so the {} sides of the image are needed; "
        "give --image-size",
        entry.name, entry.tensor.size(1) - 1);
    VT_REQUIRE(
        CheckpointError, std::ranges::all_of(sides, [&](int64_t s) { return s == sides[0]; }),
        "[weights] '{}': UCF-VIT's leaves have one size for all axes, so the image must be square",
        entry.name);
    entry.tensor = convert(entry.tensor, sides, to_parts);
    ours.notes.emplace_back(entry.name, to_parts
                                            ? "coordinates turned from pixels to parts of a side"
                                            : "coordinates turned from parts of a side to pixels");
  }
}

}  // namespace

void refuse_what_cannot_be_read(const Tensors& theirs, Naming from) {
  if (from != Naming::hf) return;
  for (const nn::NamedTensor& entry : theirs)
    VT_REQUIRE(
        CheckpointError, !entry.name.ends_with("embeddings.patch_embeddings.weight"),
        "[weights] '{}' is DINOv3's: its rotary angles are of coordinates scaled to [-1, 1], which "
        "model.rope (angles of grid indices) cannot express; use DINOv2",
        entry.name);
}

void insert_position_rows(Renamed& ours, PositionRows theirs) {
  const Rows rows = rows_of(ours, theirs);
  const int64_t added = rows.class_rows + rows.register_rows - rows.kept;
  if (!rows.table || added == 0 || rows.table->tensor.dim() != 3) return;
  const at::Tensor table = rows.table->tensor;
  const at::Tensor zeros = at::zeros({1, added, table.size(2)}, table.options());
  rows.table->tensor = at::cat({table.slice(1, 0, rows.kept), zeros, table.slice(1, rows.kept)}, 1);
  ours.notes.emplace_back("pos_embed",
                          fmt::format("{} zero rows added for tokens without position", added));
}

void remove_position_rows(Renamed& ours, PositionRows theirs) {
  const Rows rows = rows_of(ours, theirs);
  const int64_t prefix = rows.class_rows + rows.register_rows;
  if (!rows.table || prefix == rows.kept || rows.table->tensor.dim() != 3) return;
  const at::Tensor table = rows.table->tensor;
  if (rows.cls && rows.kept == 0) rows.cls->tensor = plus(rows.cls->tensor, table.slice(1, 0, 1));
  if (rows.reg) rows.reg->tensor = plus(rows.reg->tensor, table.slice(1, rows.class_rows, prefix));
  rows.table->tensor = at::cat({table.slice(1, 0, rows.kept), table.slice(1, prefix)}, 1);
  ours.notes.emplace_back("pos_embed",
                          fmt::format("{} rows added to their tokens instead", prefix - rows.kept));
}

void unpack_gates(Tensors& ours) {
  Tensors result;
  for (const nn::NamedTensor& entry : ours) {
    const size_t at = entry.name.find("mlp.fc1.");
    const nn::NamedTensor* fc2 =
        at == std::string::npos ? nullptr : find(ours, entry.name.substr(0, at) + "mlp.fc2.weight");
    if (!fc2 || entry.tensor.size(0) != 2 * fc2->tensor.size(1)) {
      result.push_back(entry);
      continue;
    }
    const std::vector<at::Tensor> halves = entry.tensor.chunk(2, 0);
    for (int half = 0; half < 2; ++half) {
      std::string name = entry.name;
      name.replace(at, 8, half == 0 ? "mlp.fc1_g." : "mlp.fc1_x.");
      result.push_back({name, halves[half].contiguous()});
    }
  }
  ours = std::move(result);
}

void remove_copies(Tensors& theirs) {
  const bool variables = std::ranges::any_of(theirs, [](const nn::NamedTensor& entry) {
    return entry.name == "token_embeds.0.proj.weight";
  });
  // Of a mixing model the copy goes; of a model of variables the original, whose copies have our names.
  const std::string kept = variables ? "token_embeds.0.proj." : "patch_embed.proj.",
                    removed = variables ? "patch_embed.proj." : "token_embeds.proj.";
  Tensors result;
  for (const nn::NamedTensor& entry : theirs) {
    if (!entry.name.starts_with(removed)) {
      result.push_back(entry);
      continue;
    }
    const std::string end = entry.name.substr(removed.size());
    const nn::NamedTensor* other = find(theirs, kept + end);
    VT_REQUIRE(CheckpointError, !other || at::equal(other->tensor, entry.tensor),
               "[weights] '{}' and '{}' are one tensor in UCF-VIT but differ here", entry.name,
               kept + end);
    if (!other) result.push_back({kept + end, entry.tensor});
  }
  theirs = std::move(result);
}

void add_copies(Tensors& theirs) {
  for (const char* end : {"weight", "bias"}) {
    const nn::NamedTensor* mixing = find(theirs, fmt::format("patch_embed.proj.{}", end));
    if (mixing && mixing->tensor.dim() != 2)
      theirs.push_back({fmt::format("token_embeds.proj.{}", end), mixing->tensor.clone()});
    const nn::NamedTensor* first = find(theirs, fmt::format("token_embeds.0.proj.{}", end));
    if (!first) continue;
    const at::Tensor shared = first->tensor;
    const nn::NamedTensor* var_embed = find(theirs, "var_embed");
    const int64_t variables = var_embed ? var_embed->tensor.size(1) : 1;
    for (int64_t v = 1; v < variables; ++v) {
      const std::string name = fmt::format("token_embeds.{}.proj.{}", v, end);
      const nn::NamedTensor* own = find(theirs, name);
      VT_REQUIRE(
          CheckpointError, !own || at::equal(own->tensor, shared),
          "[weights] '{}' differs from that of variable 0, but UCF-VIT has one patch embedding "
          "for all variables (model.shared_tokenizer)",
          name);
      if (!own) theirs.push_back({name, shared.clone()});
    }
    theirs.push_back({fmt::format("patch_embed.proj.{}", end), shared.clone()});
  }
}

void from_pixel_positions(Renamed& ours, const std::vector<int64_t>& image_size) {
  convert_positions(ours, image_size, /*to_parts=*/true);
  // The table by place in the list stays a parameter there, but nothing reads it.
  if (find(ours.tensors, "leaf_position.proj.weight"))
    for (const std::string name : {"pos_embed", "decoder_pos_embed"})
      if (nn::NamedTensor* table = find(ours.tensors, name)) table->name = kUnused + name;
}

void to_pixel_positions(Renamed& ours, const std::vector<int64_t>& image_size) {
  convert_positions(ours, image_size, /*to_parts=*/false);
  for (const std::string name : {"pos_embed", "decoder_pos_embed"})
    if (nn::NamedTensor* table = find(ours.tensors, kUnused + name)) table->name = name;
}

void add_cross_norms(Tensors& theirs) {
  std::set<std::string> names;
  for (const nn::NamedTensor& entry : theirs) names.insert(entry.name);
  Tensors added;
  for (const nn::NamedTensor& entry : theirs) {
    const size_t at = entry.name.find(".norm1.");
    if (!entry.name.starts_with("blocks.") || at == std::string::npos) continue;
    const bool weight = entry.name.ends_with("weight");
    const std::string name =
        entry.name.substr(0, at) + ".norm_cross_attn." + (weight ? "weight" : "bias");
    if (names.contains(name)) continue;
    const auto& options = entry.tensor.options();
    added.push_back({name, weight ? at::ones(entry.tensor.sizes(), options)
                                  : at::zeros(entry.tensor.sizes(), options)});
  }
  theirs.insert(theirs.end(), added.begin(), added.end());
}

}  // namespace vitrail::models

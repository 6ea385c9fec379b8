// Rules of the resolution-aware transformer: scales, grouping, positions, and what its trunk does not have.

#include <algorithm>
#include <cmath>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/config/limits.h"
#include "vitrail/config/rules.h"

namespace vitrail::config {

namespace {

constexpr int64_t kMaxKernel = 31;
constexpr int64_t kMaxIterations = 100;
constexpr int64_t kMaxWorkspaceMib = int64_t{1} << 20;
constexpr int64_t kMaxNeighbourhood = 63;

bool check_scales(const Model& model, RuleBook& rules) {
  const std::vector<double>& scales = model.rat.scales;
  if (scales.empty()) {
    rules.add({"model.rat.scales"}, "model.rat.scales must hold at least one number but is empty");
    return false;
  }
  for (size_t s = 0; s < scales.size(); ++s) {
    const std::string key = fmt::format("model.rat.scales[{}]", s);
    if (!rules.above(key, scales[s], 0)) return false;
    if (scales[s] > 8) {
      rules.add({key}, fmt::format("{} must be at most 8 but got {}", key, scales[s]));
      return false;
    }
    if (s > 0 && scales[s] >= scales[s - 1]) {
      rules.add({key}, fmt::format("model.rat.scales must go from fine to coarse but {} follows {}",
                                   scales[s], scales[s - 1]));
      return false;
    }
  }
  return true;
}

/// A list with one entry for all blocks or one for each.
bool fits_depth(const std::string& key, size_t entries, int64_t depth, RuleBook& rules) {
  if (entries == 1 || static_cast<int64_t>(entries) == depth) return true;
  rules.add(
      {key, "model.depth"},
      fmt::format("{} must hold 1 entry or model.depth = {} but holds {}", key, depth, entries));
  return false;
}

bool check_grouping(const Model& model, RuleBook& rules) {
  const Rat& rat = model.rat;
  bool good = rules.within("model.rat.kernel", rat.kernel, 1, kMaxKernel);
  if (!rat.stride.empty())
    good = fits_depth("model.rat.stride", rat.stride.size(), model.depth, rules) && good;
  for (size_t i = 0; i < rat.stride.size(); ++i)
    good =
        rules.within(fmt::format("model.rat.stride[{}]", i), rat.stride[i], 1, kMaxKernel) && good;
  fits_depth("model.rat.attention", rat.attention.size(), model.depth, rules);
  for (size_t i = 0; i < rat.attention.size(); ++i)
    if (rat.attention[i] != "dense" && rat.attention[i] != "sparse")
      rules.add({fmt::format("model.rat.attention[{}]", i)},
                fmt::format("model.rat.attention[{}] must be dense or sparse but got {}{}", i,
                            rat.attention[i],
                            rat.attention[i] == "deformable"
                                ? ", which the first program names without having it"
                                : ""));
  rules.within("model.rat.neighbourhood", rat.neighbourhood, 1, kMaxNeighbourhood);
  rules.within("model.rat.iterations", rat.iterations, 1, kMaxIterations);
  rules.within("model.rat.workspace_mib", rat.workspace_mib, 1, kMaxWorkspaceMib);
  if (rules.within("model.rat.proj_kernel", rat.proj_kernel, 1, kMaxKernel) &&
      rat.proj_kernel % 2 == 0)
    rules.add({"model.rat.proj_kernel"},
              fmt::format("model.rat.proj_kernel must be odd but got {}", rat.proj_kernel));
  return good;
}

/// Groups along one axis of n cells; 0 when there is no room for one.
int64_t groups_of(int64_t n, int64_t kernel, int64_t stride) {
  const int64_t room = n + 2 * ((kernel - 1) / 2) - kernel;
  return room < 0 ? 0 : room / stride + 1;
}

/// Queries out of the tokens cannot be more than those.
void check_grid_queries(const Model& model, const std::vector<int64_t>& grid, RuleBook& rules) {
  if (!(model.rat.head == "detection") || !(model.detection.queries == "grid") ||
      model.detection.decoder_depth == 0)
    return;
  int64_t tokens = 1;
  for (const int64_t side : grid) tokens *= side;
  if (model.detection.num_queries > tokens)
    rules.add(
        {"model.detection.num_queries", "model.rat.stride"},
        fmt::format("model.detection.num_queries must be at most the {} tokens that the blocks "
                    "leave of the finest scale, a grid of {}, but got {}",
                    tokens, fmt::join(grid, "x"), model.detection.num_queries),
        {"model.image_size", "model.rat.kernel", "model.depth"});
}

/// Every block must leave a group of every scale.
void check_grids(const Model& model, RuleBook& rules) {
  const Rat& rat = model.rat;
  // The coarsest first: it is the first to run out of cells.
  for (auto at = rat.scales.rbegin(); at != rat.scales.rend(); ++at) {
    const double scale = *at;
    std::vector<int64_t> grid;
    for (const int64_t side : model.image_size)
      grid.push_back(std::llround(static_cast<double>(side) * scale));
    for (int64_t block = -1; block < model.depth; ++block) {
      const std::vector<int64_t> before = grid;
      if (block >= 0)
        for (int64_t& side : grid) side = groups_of(side, rat.kernel, rat_stride(rat, block));
      if (*std::min_element(grid.begin(), grid.end()) >= 1) continue;
      if (block < 0)
        rules.add({"model.rat.scales", "model.image_size"},
                  fmt::format("model.rat.scales {} leaves nothing of model.image_size [{}]", scale,
                              fmt::join(model.image_size, ", ")));
      else
        rules.add({"model.rat.kernel", "model.depth"},
                  fmt::format("model.rat.kernel {} leaves block {} without a group: scale {} comes "
                              "to it as a grid of {}; set an odd kernel, a smaller one, or "
                              "model.depth {}",
                              rat.kernel, block, scale, fmt::join(before, "x"),
                              std::max<int64_t>(1, block)),
                  {"model.image_size", "model.rat.stride", "model.rat.scales"});
      return;
    }
    if (scale == rat.scales.front()) check_grid_queries(model, grid, rules);
  }
}

void check_rotation(const Model& model, RuleBook& rules) {
  const Rat& rat = model.rat;
  const bool turns = rat.position == "rose" || rat.position == "rope";
  if (!(rat.rotary_ratio >= 0 && rat.rotary_ratio <= 1))
    rules.add(
        {"model.rat.rotary_ratio"},
        fmt::format("model.rat.rotary_ratio must lie in [0, 1] but got {}", rat.rotary_ratio));
  rules.at_least("model.rat.jitter", rat.jitter, 0);
  if (model.num_heads < 1 || model.embed_dim % model.num_heads != 0) return;
  if (turns && model.embed_dim / model.num_heads % 2 != 0)
    rules.add(
        {"model.embed_dim", "model.num_heads"},
        fmt::format("model.embed_dim / model.num_heads must be even for model.rat.position {} "
                    "but got {} / {}",
                    rat.position.value, model.embed_dim, model.num_heads));
  const auto axes = static_cast<int64_t>(model.image_size.size());
  if (rat.position == "absolute" && axes >= 2 && model.embed_dim % (2 * axes) != 0)
    rules.add(
        {"model.embed_dim", "model.rat.position"},
        fmt::format("model.embed_dim must be a multiple of {} for model.rat.position absolute "
                    "in {}-D but got {}",
                    2 * axes, axes, model.embed_dim));
}

/// Keys of other models that would change nothing here.
void check_foreign(const Model& model, RuleBook& rules) {
  const auto refuse = [&](bool wrong, const char* key, const std::string& text) {
    if (wrong) rules.add({key, "model.kind"}, fmt::format("{} {}", key, text));
  };
  refuse(model.patch_size != 1, "model.patch_size",
         fmt::format("must be 1 for rat, which has a token for every pixel, but got {}",
                     model.patch_size));
  refuse(!(model.rope == "none"), "model.rope",
         "must be none for rat; model.rat.position says where tokens lie");
  refuse(!(model.pos_embed == "none"), "model.pos_embed",
         fmt::format("must be none for rat but got {}; model.rat.position says where tokens lie",
                     model.pos_embed.value));
  refuse(model.pos_drop_rate > 0, "model.pos_drop_rate", "must be 0 for rat");
  refuse(model.num_kv_heads && *model.num_kv_heads != model.num_heads, "model.num_kv_heads",
         "must be null for rat, whose positions belong to heads");
  refuse(!model.variables.empty(), "model.variables", "must be empty for rat");
  refuse(model.num_leaves() > 0, "model.adaptive",
         "must be left out for rat, whose tokens lie on grids");
  refuse(!(model.loss == "boxes") && model.rat.head == "detection", "model.loss",
         fmt::format("must be boxes for rat with head detection but got {}", model.loss.value));
}

void check_head(const Model& model, RuleBook& rules) {
  const Rat& rat = model.rat;
  const std::string& loss = model.loss.value;
  const auto allow = [&](const std::vector<std::string>& allowed) {
    if (std::find(allowed.begin(), allowed.end(), loss) == allowed.end())
      rules.add({"model.loss", "model.rat.head"},
                fmt::format("model.loss must be one of {} for rat with head {} but got {}",
                            fmt::join(allowed, ", "), rat.head.value, loss));
  };
  if (rat.head == "segmentation") {
    allow({"bce_dice", "bce", "dice_ce", "dice", "generalized_dice", "cross_entropy", "focal",
           "dice_focal"});
    const bool binary = loss == "bce" || loss == "bce_dice";
    if (binary ? model.num_classes != 2 : model.num_classes < 2)
      rules.add({"model.num_classes", "model.loss"},
                fmt::format("model.num_classes must be {} for rat with the loss {}, background "
                            "included, but got {}",
                            binary ? "2" : "at least 2", loss, model.num_classes));
    if (binary && !model.class_weights.empty())
      rules.add({"model.class_weights", "model.loss"},
                fmt::format("model.class_weights must be empty with the loss {}; cross_entropy and "
                            "dice_ce read them",
                            loss));
    if (model.drop_rate > 0)
      rules.add({"model.drop_rate", "model.rat.head"},
                "model.drop_rate must be 0 for rat with head segmentation");
  }
  if (rat.head == "classification") allow({"cross_entropy", "focal"});
  if (rat.head == "detection" && model.image_size.size() != 2)
    rules.add({"model.image_size", "model.rat.head"},
              fmt::format("model.image_size must be [H, W] for rat with head detection but has {} "
                          "sides",
                          model.image_size.size()));
  if (rat.head == "detection" && model.drop_rate > 0)
    rules.add({"model.drop_rate", "model.rat.head"},
              "model.drop_rate must be 0 for rat with head detection");
}

}  // namespace

int64_t rat_stride(const Rat& rat, int64_t block) {
  if (rat.stride.empty()) return std::max<int64_t>(1, rat.kernel / 2);
  return rat.stride.size() == 1 ? rat.stride[0] : rat.stride[static_cast<size_t>(block)];
}

bool rat_is_sparse(const Rat& rat, int64_t block) {
  if (rat.attention.empty()) return false;
  const size_t place = rat.attention.size() == 1 ? 0 : static_cast<size_t>(block);
  return rat.attention[place] == "sparse";
}

void check_rat(const Model& model, RuleBook& rules) {
  const bool scales = check_scales(model, rules), grouping = check_grouping(model, rules);
  const size_t axes = model.image_size.size();
  const bool image = (axes == 2 || axes == 3) &&
                     std::all_of(model.image_size.begin(), model.image_size.end(),
                                 [](int64_t side) { return side >= 1 && side <= kMaxSide; });
  if (scales && grouping && image && model.depth >= 1 && model.depth <= kMaxBlocks)
    check_grids(model, rules);
  check_rotation(model, rules);
  check_foreign(model, rules);
  check_head(model, rules);
}

void check_rat_run(const Recipe& recipe, RuleBook& rules) {
  if (!(recipe.model.kind == "rat")) return;
  if (recipe.train.engine == "fused")
    rules.add(
        {"train.engine", "model.kind"},
        "train.engine must be auto or autograd for rat, whose blocks the fused engine does not "
        "know, but is fused");
  for (const auto& [key, ranks] :
       {std::pair<const char*, int64_t>{"parallel.tensor", recipe.parallel.tensor},
        {"parallel.sequence", recipe.parallel.sequence},
        {"parallel.pipeline", recipe.parallel.pipeline}})
    if (ranks > 1)
      rules.add({key, "model.kind"},
                fmt::format("{} must be 1 for rat but got {}; its blocks are divided by "
                            "parallel.strategy zero1 to zero3",
                            key, ranks));
}

}  // namespace vitrail::config

#include "vitrail/patching/options.h"

namespace vitrail::patching {
namespace {

Importance importance_of(const config::Choice& name) {
  if (name == "gradient") return Importance::gradient;
  if (name == "variance") return Importance::variance;
  if (name == "given" || name == "feature_based") return Importance::given;
  return Importance::edges;
}

Resample resample_of(const config::Choice& name) {
  if (name == "cubic") return Resample::cubic;
  if (name == "linear") return Resample::linear;
  return Resample::area;
}

}  // namespace

LeafOptions leaf_options(const config::Model& model) {
  const config::Adaptive& adaptive = model.adaptive;
  LeafOptions options;
  options.fixed_length = adaptive.fixed_length;
  options.patch_size = model.patch_size;
  options.min_leaf = adaptive.min_leaf == 0 ? model.patch_size : adaptive.min_leaf;
  options.value_floor = adaptive.value_floor;
  options.order = adaptive.order == "raster" ? Order::raster : Order::morton;
  options.importance = importance_of(adaptive.importance);
  options.importance_channel = adaptive.importance_channel;
  options.resample = resample_of(adaptive.resample);
  options.labels = adaptive.labels == "nearest" ? LabelRule::nearest : LabelRule::majority;
  options.per_channel = adaptive.trees == "per_channel";
  options.compat = adaptive.compat == "ucf-vit";
  return options;
}

}  // namespace vitrail::patching

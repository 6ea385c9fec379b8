#include "vitrail/train/pictures.h"

#include <iterator>

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include "vitrail/core/error.h"
#include "vitrail/data/statistics.h"
#include "vitrail/io/image.h"
#include "vitrail/models/leaf_pictures.h"
#include "vitrail/ops/patch.h"

namespace vitrail::train {

namespace {

/// One number a channel as [C, 1, ...].
at::Tensor per_channel(const std::vector<double>& values, const at::Tensor& image) {
  std::vector<int64_t> shape(image.dim(), 1);
  shape[0] = image.size(0);
  at::Tensor out = at::empty(shape, image.options());
  for (int64_t c = 0; c < image.size(0); ++c) out[c].fill_(values[static_cast<size_t>(c)]);
  return out;
}

/// [C, ...] -> [C, H, W]: of a volume the middle slice.
at::Tensor flat_picture(const at::Tensor& image) {
  return image.dim() == 4 ? image.select(1, image.size(1) / 2) : image;
}

// Okabe and Ito's palette, told apart by colour-blind readers too.
constexpr ClassColor kColors[] = {
    {"orange", {0.90, 0.62, 0.00}}, {"light blue", {0.34, 0.71, 0.91}},
    {"green", {0.00, 0.62, 0.45}},  {"yellow", {0.94, 0.89, 0.26}},
    {"purple", {0.80, 0.47, 0.65}}, {"vermilion", {0.84, 0.37, 0.00}},
    {"blue", {0.00, 0.45, 0.70}}};
constexpr double kError[3] = {0.85, 0.10, 0.10};
constexpr double kOpacity = 0.55;
constexpr double kBorder[3] = {0.34, 0.71, 0.91};
constexpr double kBorderGrey = 0.25;

/// The corners of a leaf along each axis; a leaf without extent is padding.
struct Corners {
  std::vector<int64_t> low, high;
  bool is_real() const {
    bool is_real = true;
    for (size_t axis = 0; axis < low.size(); ++axis) is_real = is_real && high[axis] > low[axis];
    return is_real;
  }
};

Corners corners_of(const at::Tensor& boxes_L2k, int64_t leaf) {
  const at::Tensor boxes = boxes_L2k.contiguous();
  const int64_t axes = boxes.size(1) / 2;
  const float* row = boxes.const_data_ptr<float>() + leaf * 2 * axes;
  return {{row, row + axes}, {row + axes, row + 2 * axes}};
}

/// bool [sides...]: the first rows and columns of leaves, of a volume in each of its slices.
at::Tensor leaf_borders(const at::Tensor& boxes, at::IntArrayRef sides) {
  at::Tensor borders = at::zeros(sides, at::kBool);
  for (int64_t leaf = 0; leaf < boxes.size(0); ++leaf) {
    const Corners at = corners_of(boxes, leaf);
    if (!at.is_real()) continue;
    at::Tensor inside = borders;
    for (int64_t axis = 0; axis < borders.dim(); ++axis)
      inside = inside.slice(axis, at.low[axis], at.high[axis]);
    for (const int64_t axis : {borders.dim() - 2, borders.dim() - 1})
      if (at.low[axis] > 0) inside.select(axis, 0).fill_(true);
  }
  return borders;
}

/// Blends a colour over the pixels where `where` is true.
void paint(at::Tensor& rgb, const at::Tensor& where, const double color[3]) {
  for (int64_t c = 0; c < 3; ++c)
    rgb[c].copy_(at::where(where, rgb[c].mul(1 - kOpacity).add(kOpacity * color[c]), rgb[c]));
}

at::Tensor painted(const at::Tensor& rgb, const at::Tensor& classes) {
  at::Tensor out = rgb.clone();
  const int64_t last = classes.numel() > 0 ? classes.max().item<int64_t>() : 0;
  for (int64_t k = 1; k <= last; ++k) paint(out, classes.eq(k), class_color(k - 1).rgb);
  return out;
}

}  // namespace

const ClassColor& class_color(int64_t k) {
  return kColors[static_cast<size_t>(k) % std::size(kColors)];
}

at::Tensor as_rgb(const at::Tensor& image) {
  const at::Tensor one = image.size(0) == 3 ? image : image.narrow(0, 0, 1);
  std::vector<int64_t> shape = one.sizes().vec();
  shape[0] = 3;
  return one.expand(shape).contiguous();
}

MaskPictures mask_pictures(const at::Tensor& image, const at::Tensor& truth,
                           const at::Tensor& predicted, const config::Source& source,
                           const Leaves& leaves) {
  MaskPictures pictures;
  pictures.image = as_rgb(Display(image, source)(image).clamp(0, 1));
  pictures.truth = painted(pictures.image, truth);
  pictures.predicted = painted(pictures.image, predicted);
  pictures.errors = pictures.image.clone();
  paint(pictures.errors, truth.ne(predicted).logical_and(truth.ge(0)), kError);
  if (leaves.defined()) {
    pictures.image = pictures.image.clone();
    paint(pictures.image, leaf_borders(leaves.boxes, truth.sizes()), kBorder);
  }
  return pictures;
}

std::vector<at::Tensor> depth_slices(const at::Tensor& image, int64_t count) {
  if (image.dim() < 4) return {image};
  std::vector<at::Tensor> slices;
  const int64_t depth = image.size(1);
  for (int64_t i = 0; i < count; ++i)
    slices.push_back(image.select(1, depth * (2 * i + 1) / (2 * count)));
  return slices;
}

std::string png_bytes(const at::Tensor& image) {
  at::Tensor picture = flat_picture(image);
  VT_CHECK(picture.dim() == 3,
           "[picture] an image must be [C, H, W] or [C, D, H, W] but has {} axes", image.dim());
  if (picture.size(0) != 1 && picture.size(0) != 3) picture = picture.narrow(0, 0, 1);
  const at::Tensor bytes = picture.to(at::kCPU, at::kFloat)
                               .clamp(0, 1)
                               .mul(255)
                               .round()
                               .to(at::kByte)
                               .permute({1, 2, 0})
                               .contiguous();
  io::Image out;
  out.height = static_cast<int>(bytes.size(0));
  out.width = static_cast<int>(bytes.size(1));
  out.channels = static_cast<int>(bytes.size(2));
  out.pixels.assign(bytes.const_data_ptr<uint8_t>(),
                    bytes.const_data_ptr<uint8_t>() + bytes.numel());
  return io::encode_png(out);
}

at::Tensor denormalised(const at::Tensor& image, const config::Source& source) {
  const data::NormalizeValues values = data::normalize_values(source, image.size(0));
  return image.mul(per_channel(values.std, image)).add(per_channel(values.mean, image));
}

Display::Display(const at::Tensor& image, const config::Source& source) : source_(source) {
  if (!(source.normalize == "none") || image.numel() == 0) return;
  const at::Tensor values = denormalised(image, source);
  low_ = values.min();
  span_ = (values.max() - low_).clamp_min(1e-30);
}

at::Tensor Display::operator()(const at::Tensor& image) const {
  const at::Tensor values = denormalised(image, source_);
  return low_.defined() ? (values - low_) / span_ : values;
}

namespace {

/// What masked_pictures needs of a sample, in the values that the model sees; [C, ...] each.
struct Masked {
  at::Tensor predicted, hidden_pixels;  // bool
};

Masked masked_grid(const at::Tensor& image, const at::Tensor& prediction, const at::Tensor& mask,
                   const config::Model& model) {
  constexpr ops::PatchOrder kOrder = ops::PatchOrder::channel_last;
  const std::vector<int64_t> grid = ops::patch_grid(image.sizes().slice(1), model.patch_size);
  const at::Tensor target = ops::patchify(image.unsqueeze(0), model.patch_size, kOrder);
  at::Tensor predicted = prediction.unsqueeze(0);
  if (model.norm_pix_loss) {
    const at::Tensor mean = target.mean(-1, true);
    const at::Tensor variance = target.var(-1, /*unbiased=*/true, true);
    predicted = predicted.mul(variance.add(1e-6).sqrt()).add(mean);
  }
  const at::Tensor hidden = mask.reshape({1, -1, 1}).gt(0.5).expand_as(target);
  const auto whole = [&](const at::Tensor& patches) {
    return ops::unpatchify(patches, grid, model.patch_size, kOrder).squeeze(0);
  };
  return {whole(predicted), whole(hidden.to(image.scalar_type())).gt(0.5)};
}

Masked masked_leaves(const at::Tensor& image, const at::Tensor& prediction, const at::Tensor& mask,
                     const config::Model& model, const Leaves& leaves) {
  data::Batch batch;
  batch.image = image.unsqueeze(0);
  batch.leaf_tokens = leaves.tokens.unsqueeze(0);
  batch.leaf_boxes = leaves.boxes.unsqueeze(0);
  const models::LeafPictures found =
      models::paste_prediction(batch, prediction.unsqueeze(0), mask.unsqueeze(0), model);
  return {found.predicted.squeeze(0), found.hidden.squeeze(0)};
}

}  // namespace

MaskedPictures masked_pictures(const at::Tensor& image, const at::Tensor& prediction,
                               const at::Tensor& mask, const config::Model& model,
                               const config::Source& source, const Leaves& leaves) {
  const Masked masked = leaves.defined() ? masked_leaves(image, prediction, mask, model, leaves)
                                         : masked_grid(image, prediction, mask, model);
  const Display display(image, source);
  MaskedPictures pictures;
  pictures.original = display(image);
  pictures.reconstruction = display(masked.predicted);
  pictures.pasted = display(at::where(masked.hidden_pixels, masked.predicted, image));
  const at::Tensor grey = at::full(pictures.original.sizes(), 0.5, image.options());
  pictures.masked = at::where(masked.hidden_pixels, grey, pictures.original);
  if (leaves.defined())
    pictures.masked = at::where(leaf_borders(leaves.boxes, image.sizes().slice(1)).unsqueeze(0),
                                at::full_like(grey, kBorderGrey), pictures.masked);
  return pictures;
}

}  // namespace vitrail::train

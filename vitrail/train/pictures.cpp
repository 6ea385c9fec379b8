#include "vitrail/train/pictures.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/where.h>

#include "vitrail/core/error.h"
#include "vitrail/io/image.h"
#include "vitrail/ops/patch.h"

namespace vitrail::train {

namespace {

/// One or `channels` numbers as [C, 1, ...], 0.5 where the recipe says nothing.
at::Tensor per_channel(const std::vector<double>& values, const at::Tensor& image) {
  std::vector<int64_t> shape(image.dim(), 1);
  shape[0] = image.size(0);
  at::Tensor out = at::full(shape, 0.5, image.options());
  for (int64_t c = 0; c < image.size(0) && !values.empty(); ++c)
    out[c].fill_(values[values.size() == 1 ? 0 : c]);
  return out;
}

/// [C, ...] -> [C, H, W]: of a volume the middle slice.
at::Tensor flat_picture(const at::Tensor& image) {
  return image.dim() == 4 ? image.select(1, image.size(1) / 2) : image;
}

}  // namespace

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
  return image.mul(per_channel(source.std, image)).add(per_channel(source.mean, image));
}

MaskedPictures masked_pictures(const at::Tensor& image, const at::Tensor& prediction,
                               const at::Tensor& mask, const config::Model& model,
                               const config::Source& source) {
  constexpr ops::PatchOrder kOrder = ops::PatchOrder::channel_last;
  const at::Tensor batch = image.unsqueeze(0);
  const std::vector<int64_t> grid = ops::patch_grid(image.sizes().slice(1), model.patch_size);
  const at::Tensor target = ops::patchify(batch, model.patch_size, kOrder);
  at::Tensor predicted = prediction.unsqueeze(0);
  if (model.norm_pix_loss) {
    const at::Tensor mean = target.mean(-1, true),
                     variance = target.var(-1, /*unbiased=*/true, true);
    predicted = predicted.mul(variance.add(1e-6).sqrt()).add(mean);
  }
  const auto picture = [&](const at::Tensor& patches) {
    return denormalised(ops::unpatchify(patches, grid, model.patch_size, kOrder).squeeze(0),
                        source);
  };
  const at::Tensor hidden = mask.reshape({1, -1, 1}).gt(0.5).expand_as(target);
  MaskedPictures pictures;
  pictures.original = denormalised(image, source);
  pictures.reconstruction = picture(predicted);
  pictures.pasted = picture(at::where(hidden, predicted, target));
  const at::Tensor grey = at::full(pictures.original.sizes(), 0.5, image.options());
  const at::Tensor hidden_pixels =
      ops::unpatchify(hidden.to(image.scalar_type()), grid, model.patch_size, kOrder)
          .squeeze(0)
          .gt(0.5);
  pictures.masked = at::where(hidden_pixels, grey, pictures.original);
  return pictures;
}

}  // namespace vitrail::train

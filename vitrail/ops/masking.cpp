#include "vitrail/ops/masking.h"

#include <cmath>

#include <ATen/ops/argsort.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"

namespace vitrail::ops {

Masking random_masking(const at::Tensor& noise_BL, int64_t keep) {
  VT_CHECK(noise_BL.dim() == 2 && keep >= 1 && keep <= noise_BL.size(1),
           "[mask] noise must be [B, L] with at least {} tokens (and one kept) but got [{}]", keep,
           fmt::join(noise_BL.sizes(), ", "));
  const at::Tensor shuffle_BL =
      at::argsort(noise_BL, /*stable=*/true, /*dim=*/1, /*descending=*/false);
  const at::Tensor restore_BL = at::argsort(shuffle_BL, /*stable=*/true, 1, false);
  return {shuffle_BL.slice(1, 0, keep).contiguous(), restore_BL,
          restore_BL.ge(keep).to(at::kFloat)};
}

int64_t kept_tokens(int64_t tokens, double mask_ratio) {
  return static_cast<int64_t>(std::floor(static_cast<double>(tokens) * (1.0 - mask_ratio)));
}

at::Tensor gather_tokens(const at::Tensor& x_BLD, const at::Tensor& ids_BK) {
  return x_BLD.gather(1, ids_BK.unsqueeze(-1).expand({-1, -1, x_BLD.size(2)}));
}

}  // namespace vitrail::ops

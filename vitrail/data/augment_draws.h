#pragma once
/// The draws of one step for one sample, one after the other.

#include <cmath>
#include <cstdint>
#include <vector>

#include "vitrail/core/philox.h"
#include "vitrail/data/augment.h"

namespace vitrail::data {

/// Element 0, 1, 2, ... of the family (seed, stream, epoch, layer, sample).
class PlanDraws {
 public:
  PlanDraws(core::Stream stream, uint16_t layer, const AugmentPlace& place)
      : key_{place.seed, stream, static_cast<uint32_t>(place.epoch), layer},
        sample_(static_cast<uint64_t>(place.index)) {}

  /// Uniform integer in [0, n), n < 2^32, by multiplication: the bias is below n / 2^32.
  int64_t below(int64_t n) {
    return static_cast<int64_t>((static_cast<uint64_t>(bits()) * static_cast<uint64_t>(n)) >> 32);
  }
  /// In [0, 1).
  double uniform() { return static_cast<double>(core::to_uniform(bits())); }
  double uniform(double low, double high) { return low + (high - low) * uniform(); }

  /// Beta(alpha, alpha): one of two Gamma(alpha) among both, in logarithms, since a small alpha
  /// leaves the range of numbers.
  double beta(double alpha) {
    const double one = log_gamma_draw(alpha), other = log_gamma_draw(alpha);
    return 1.0 / (1.0 + std::exp(other - one));
  }

 private:
  uint32_t bits() { return core::draw(key_, sample_, element_++); }
  double above_zero() { return 1.0 - uniform(); }
  double normal() {
    const double radius = std::sqrt(-2.0 * std::log(above_zero()));
    return radius * std::cos(6.283185307179586 * uniform());
  }

  /// Logarithm of a Gamma(alpha, 1) draw. Paper: Marsaglia & Tsang 2000, "A simple method for
  /// generating gamma variables"; alpha < 1 by Gamma(alpha + 1) U^(1 / alpha).
  double log_gamma_draw(double alpha) {
    const double boost = alpha < 1 ? std::log(above_zero()) / alpha : 0.0;
    const double d = (alpha < 1 ? alpha + 1 : alpha) - 1.0 / 3.0, c = 1.0 / std::sqrt(9.0 * d);
    for (;;) {
      const double x = normal(), root = 1.0 + c * x;
      if (root <= 0) continue;
      const double v = root * root * root;
      if (std::log(above_zero()) < 0.5 * x * x + d - d * v + d * std::log(v))
        return std::log(d * v) + boost;
    }
  }

  core::DrawKey key_;
  uint64_t sample_;
  uint32_t element_ = 0;
};

/// The part that erasing hides: a share of 2 to 33 % of the image, ratio 0.3 to 3.3, ten tries; false
/// when none fitted. Paper: Zhong et al. 2017, arXiv:1708.04896; torchvision's RandomErasing.
bool draw_erased(PlanDraws& draws, const std::vector<int64_t>& sides, CropBox& box);

}  // namespace vitrail::data

#pragma GCC optimize("O3,no-math-errno,no-trapping-math,fp-contract=off,vect-cost-model=dynamic")
#include "vitrail/patching/edges_rows.h"

#include <algorithm>
#include <cstdlib>

#include "vitrail/kernels/vectorize.h"
#include "vitrail/patching/edges_math.h"

// Loops are plain functions of their pointers, written out for each type: GCC 12 clones no templates.
namespace vitrail::patching {
namespace {

VT_VECTORIZED void bytes3(const uint8_t* a, const uint8_t* b, const uint8_t* c,
                          uint16_t* __restrict out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<uint16_t>(a[i] + 2 * b[i] + c[i]);
}

VT_VECTORIZED void bytes5(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d,
                          const uint8_t* e, uint16_t* __restrict out, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    out[i] = static_cast<uint16_t>(a[i] + e[i] + 4 * (b[i] + d[i]) + 6 * c[i]);
}

VT_VECTORIZED void words3(const uint16_t* a, const uint16_t* b, const uint16_t* c,
                          uint16_t* __restrict out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<uint16_t>(a[i] + 2 * b[i] + c[i]);
}

VT_VECTORIZED void words5(const uint16_t* a, const uint16_t* b, const uint16_t* c,
                          const uint16_t* d, const uint16_t* e, uint16_t* __restrict out,
                          int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    out[i] = static_cast<uint16_t>(a[i] + e[i] + 4 * (b[i] + d[i]) + 6 * c[i]);
}

/// Sums below 2^16.
VT_VECTORIZED void along3(const uint16_t* row, int shift, uint8_t* __restrict out, int64_t n) {
  const auto half = static_cast<uint16_t>(1 << (shift - 1));
  for (int64_t i = 0; i < n; ++i) {
    const auto sum = static_cast<uint16_t>(row[i - 1] + 2 * row[i] + row[i + 1] + half);
    out[i] = static_cast<uint8_t>(sum >> shift);
  }
}

VT_VECTORIZED void along5(const uint16_t* row, int shift, uint8_t* __restrict out, int64_t n) {
  const auto half = static_cast<uint16_t>(1 << (shift - 1));
  for (int64_t i = 0; i < n; ++i) {
    const auto sum = static_cast<uint16_t>(row[i - 2] + row[i + 2] + 4 * (row[i - 1] + row[i + 1]) +
                                           6 * row[i] + half);
    out[i] = static_cast<uint8_t>(sum >> shift);
  }
}

/// Sums of a volume's 5^3 kernel, up to 255 * 2^12.
VT_VECTORIZED void along5_wide(const uint16_t* row, int shift, uint8_t* __restrict out, int64_t n) {
  const uint32_t half = 1u << (shift - 1);
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t ends = uint32_t{row[i - 2]} + row[i + 2];
    const uint32_t inner = uint32_t{row[i - 1]} + row[i + 1];
    out[i] = static_cast<uint8_t>((ends + 4 * inner + 6 * uint32_t{row[i]} + half) >> shift);
  }
}

}  // namespace

void smooth_across(const TapRows<uint8_t>& rows, int64_t radius, uint16_t* out, int64_t n) {
  if (radius == 1) return bytes3(rows[0], rows[1], rows[2], out, n);
  bytes5(rows[0], rows[1], rows[2], rows[3], rows[4], out, n);
}

void smooth_across(const TapRows<uint16_t>& rows, int64_t radius, uint16_t* out, int64_t n) {
  if (radius == 1) return words3(rows[0], rows[1], rows[2], out, n);
  words5(rows[0], rows[1], rows[2], rows[3], rows[4], out, n);
}

void smooth_along(const uint16_t* row, int64_t radius, int shift, uint8_t* out, int64_t n) {
  if (radius == 1) return along3(row, shift, out, n);
  if (shift <= 8) return along5(row, shift, out, n);
  along5_wide(row, shift, out, n);
}

VT_VECTORIZED void sobel_across(const uint8_t* a, const uint8_t* b, const uint8_t* c,
                                int16_t* __restrict smooth, int16_t* __restrict difference,
                                int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    smooth[i] = static_cast<int16_t>(a[i] + 2 * b[i] + c[i]);
    difference[i] = static_cast<int16_t>(c[i] - a[i]);
  }
}

VT_VECTORIZED void smooth_across(const int16_t* a, const int16_t* b, const int16_t* c,
                                 int16_t* __restrict out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<int16_t>(a[i] + 2 * b[i] + c[i]);
}

VT_VECTORIZED void differ_across(const int16_t* a, const int16_t* c, int16_t* __restrict out,
                                 int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<int16_t>(c[i] - a[i]);
}

void smooth_along(const int16_t* row, int16_t* out, int64_t n) {
  smooth_across(row - 1, row, row + 1, out, n);
}

void differ_along(const int16_t* row, int16_t* out, int64_t n) {
  differ_across(row - 1, row + 1, out, n);
}

VT_VECTORIZED void image_norms(const int16_t* gy, const int16_t* gx, int16_t* __restrict norm,
                               int16_t* __restrict direction, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    // image_direction() in 16 bits: tangent_of() as the upper half of a product.
    const auto x = static_cast<int16_t>(gx[i] < 0 ? -gx[i] : gx[i]);
    const auto y = static_cast<int16_t>(gy[i] < 0 ? -gy[i] : gy[i]);
    const auto twice = static_cast<int16_t>(x + x);
    const auto tangent = static_cast<int16_t>((int32_t{twice} * kTangent) >> 16);
    const auto steep = static_cast<int16_t>(tangent + twice);
    const int16_t diagonal = static_cast<int16_t>(gx[i] ^ gy[i]) < 0 ? 2 : 4;
    const int16_t upright = y > steep ? int16_t{3} : diagonal;
    direction[i] = y > tangent ? upright : int16_t{1};
    norm[i] = static_cast<int16_t>(x + y);
  }
}

VT_VECTORIZED void volume_norms(const int16_t* gz, const int16_t* gy, const int16_t* gx,
                                int32_t* __restrict norm, uint8_t* __restrict direction,
                                int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    norm[i] = int32_t{gz[i]} * gz[i] + int32_t{gy[i]} * gy[i] + int32_t{gx[i]} * gx[i];
  for (int64_t i = 0; i < n; ++i) {
    const auto z = static_cast<int16_t>(gz[i] < 0 ? -gz[i] : gz[i]);
    const auto y = static_cast<int16_t>(gy[i] < 0 ? -gy[i] : gy[i]);
    const auto x = static_cast<int16_t>(gx[i] < 0 ? -gx[i] : gx[i]);
    const int16_t larger = y > x ? y : x, largest = z > larger ? z : larger;
    const auto twice = static_cast<int16_t>(largest + largest);
    const auto tangent = static_cast<int16_t>((int32_t{twice} * kTangent) >> 16);
    const int16_t dz = z > tangent ? (gz[i] < 0 ? int16_t{-9} : int16_t{9}) : int16_t{0};
    const int16_t dy = y > tangent ? (gy[i] < 0 ? int16_t{-3} : int16_t{3}) : int16_t{0};
    const int16_t dx = x > tangent ? (gx[i] < 0 ? int16_t{-1} : int16_t{1}) : int16_t{0};
    const auto step = static_cast<int16_t>(dz + dy + dx);
    direction[i] = static_cast<uint8_t>(step < 0 ? -step : step);
  }
}

VT_VECTORIZED void take_stronger(const int16_t* other_norm, const int16_t* other_direction,
                                 int16_t* __restrict norm, int16_t* __restrict direction,
                                 int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const int16_t other = other_norm[i], own = norm[i];
    const int16_t there = other_direction[i], here = direction[i];
    direction[i] = other > own ? there : here;
    norm[i] = other > own ? other : own;
  }
}

VT_VECTORIZED void take_stronger(const int32_t* other_norm, const uint8_t* other_direction,
                                 int32_t* __restrict norm, uint8_t* __restrict direction,
                                 int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    direction[i] = other_norm[i] > norm[i] ? other_direction[i] : direction[i];
  for (int64_t i = 0; i < n; ++i) norm[i] = other_norm[i] > norm[i] ? other_norm[i] : norm[i];
}

VT_VECTORIZED void image_ridges(const int16_t* before, const int16_t* norm, const int16_t* after,
                                const int16_t* direction, int16_t low, int16_t high,
                                uint8_t* __restrict states, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const int16_t v = norm[i], d = direction[i];
    const int16_t left = norm[i - 1], right = norm[i + 1];
    const int16_t b1 = before[i - 1], b2 = before[i], b3 = before[i + 1];
    const int16_t a1 = after[i - 1], a2 = after[i], a3 = after[i + 1];
    const int16_t first = d == 1 ? left : d == 3 ? b2 : d == 4 ? b1 : b3;
    const int16_t second = d == 1 ? right : d == 3 ? a2 : d == 4 ? a3 : a1;
    const auto slack = static_cast<int16_t>(d & 1);  // is_ridge(): diagonals are strict
    const auto least = static_cast<int16_t>(second - slack);
    const int16_t floor = first > least ? (first > low ? first : low) : (least > low ? least : low);
    const int16_t state = v > high ? int16_t{edge} : int16_t{weak};
    states[i] = static_cast<uint8_t>(v > floor ? state : int16_t{nothing});
  }
}

namespace {

constexpr int64_t kBlock = 16;

VT_VECTORIZED int32_t largest_of(const int32_t* values) {
  int32_t largest = values[0];
  for (int64_t i = 0; i < kBlock; ++i) largest = values[i] > largest ? values[i] : largest;
  return largest;
}

}  // namespace

void volume_ridges(const int32_t* norm, const uint8_t* direction, const int64_t* before,
                   const int64_t* after, int32_t low, int32_t high, uint8_t* states, int64_t n) {
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, n);
    if (end - begin == kBlock && largest_of(norm + begin) <= low) continue;
    // Without branches: where something lies above the threshold, much of it comes and goes.
    for (int64_t i = begin; i < end; ++i) {
      const int32_t v = norm[i];
      const uint8_t d = direction[i];
      const bool ridge = (v > low) & (v > norm[i + before[d]]) & (v >= norm[i + after[d]]);
      states[i] = static_cast<uint8_t>(ridge ? (v > high ? edge : weak) : nothing);
    }
  }
}

VT_VECTORIZED void join_states(const uint8_t* a, const uint8_t* b, const uint8_t* c,
                               uint8_t* __restrict any, int64_t n) {
  for (int64_t i = 0; i < n; ++i) any[i] = static_cast<uint8_t>(any[i] | a[i] | b[i] | c[i]);
}

VT_VECTORIZED void touch_weak(const uint8_t* states, const uint8_t* any,
                              uint8_t* __restrict touched, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const auto near = static_cast<uint8_t>(any[i - 1] | any[i] | any[i + 1]);
    touched[i] = static_cast<uint8_t>(states[i] & (near >> 1));  // edge is 2, weak 1
  }
}

VT_VECTORIZED void mark_edges(const uint8_t* states, uint8_t* __restrict marks, int64_t n) {
  for (int64_t i = 0; i < n; ++i) marks[i] = states[i] >> 1;  // edge is 2, weak 1
}

namespace {

VT_VECTORIZED void image_maxima(const int16_t* gy, const int16_t* gx, uint8_t* __restrict out,
                                int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const int32_t squares = int32_t{gy[i]} * gy[i] + int32_t{gx[i]} * gx[i];
    const auto value = static_cast<uint8_t>(gradient_importance(squares, false));
    out[i] = value > out[i] ? value : out[i];
  }
}

VT_VECTORIZED void volume_maxima(const int16_t* gz, const int16_t* gy, const int16_t* gx,
                                 uint8_t* __restrict out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const int32_t squares =
        int32_t{gz[i]} * gz[i] + int32_t{gy[i]} * gy[i] + int32_t{gx[i]} * gx[i];
    const auto value = static_cast<uint8_t>(gradient_importance(squares, true));
    out[i] = value > out[i] ? value : out[i];
  }
}

VT_VECTORIZED void box_bytes(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d,
                             const uint8_t* e, uint16_t* __restrict out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<uint16_t>(a[i] + b[i] + c[i] + d[i] + e[i]);
}

VT_VECTORIZED void box_words(const uint16_t* a, const uint16_t* b, const uint16_t* c,
                             const uint16_t* d, const uint16_t* e, uint16_t* __restrict out,
                             int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<uint16_t>(a[i] + b[i] + c[i] + d[i] + e[i]);
}

VT_VECTORIZED void variances25(const uint8_t* values, const uint16_t* sums, uint8_t* __restrict out,
                               int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const int32_t sum = sums[i - 2] + sums[i - 1] + sums[i] + sums[i + 1] + sums[i + 2];
    const auto value = static_cast<uint8_t>(variance_importance<25>(values[i], sum));
    out[i] = value > out[i] ? value : out[i];
  }
}

VT_VECTORIZED void variances125(const uint8_t* values, const uint16_t* sums,
                                uint8_t* __restrict out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const int32_t sum = sums[i - 2] + sums[i - 1] + sums[i] + sums[i + 1] + sums[i + 2];
    const auto value = static_cast<uint8_t>(variance_importance<125>(values[i], sum));
    out[i] = value > out[i] ? value : out[i];
  }
}

}  // namespace

void gradient_maxima(const int16_t* gz, const int16_t* gy, const int16_t* gx, uint8_t* out,
                     int64_t n) {
  if (gz == nullptr) return image_maxima(gy, gx, out, n);
  volume_maxima(gz, gy, gx, out, n);
}

void box_across(const TapRows<uint8_t>& rows, uint16_t* out, int64_t n) {
  box_bytes(rows[0], rows[1], rows[2], rows[3], rows[4], out, n);
}

void box_across(const TapRows<uint16_t>& rows, uint16_t* out, int64_t n) {
  box_words(rows[0], rows[1], rows[2], rows[3], rows[4], out, n);
}

void variance_maxima(const uint8_t* values, const uint16_t* sums, bool is_volume, uint8_t* out,
                     int64_t n) {
  if (is_volume) return variances125(values, sums, out, n);
  variances25(values, sums, out, n);
}

}  // namespace vitrail::patching

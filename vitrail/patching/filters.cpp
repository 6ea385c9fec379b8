#pragma GCC optimize("O3,no-trapping-math,fp-contract=off,vect-cost-model=dynamic")
#include "vitrail/patching/filters.h"

#include <algorithm>
#include <array>

#include "vitrail/kernels/vectorize.h"

namespace vitrail::patching {
namespace {

constexpr int kMostTaps = 5;
using Rows = std::array<const int32_t*, kMostTaps>;

VT_VECTORIZED void difference(const int32_t* a, const int32_t* c, int32_t* __restrict out,
                              int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = c[i] - a[i];
}

VT_VECTORIZED void smooth3(const int32_t* a, const int32_t* b, const int32_t* c,
                           int32_t* __restrict out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = a[i] + 2 * b[i] + c[i];
}

VT_VECTORIZED void smooth5(const int32_t* a, const int32_t* b, const int32_t* c, const int32_t* d,
                           const int32_t* e, int32_t* __restrict out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = a[i] + e[i] + 4 * (b[i] + d[i]) + 6 * c[i];
}

int64_t radius_of(Filter filter) { return filter == Filter::smooth5 ? 2 : 1; }

void filter_rows(Filter filter, const Rows& rows, int32_t* out, int64_t n) {
  switch (filter) {
    case Filter::difference:
      return difference(rows[0], rows[2], out, n);
    case Filter::smooth3:
      return smooth3(rows[0], rows[1], rows[2], out, n);
    case Filter::smooth5:
      return smooth5(rows[0], rows[1], rows[2], rows[3], rows[4], out, n);
  }
}

/// Index i of an axis of n, which may lie outside.
int64_t inside(int64_t i, int64_t n, Border border) {
  if (border == Border::replicate || n == 1) return std::clamp<int64_t>(i, 0, n - 1);
  while (i < 0 || i >= n) i = i < 0 ? -i : 2 * (n - 1) - i;
  return i;
}

/// The last axis: the taps are the same row, shifted.
void filter_last(const int32_t* in, int64_t rows, int64_t n, Filter filter, Border border,
                 int32_t* out) {
  const int64_t radius = radius_of(filter);
  std::vector<int32_t> padded(static_cast<size_t>(n + 2 * radius));
  Rows taps{};
  for (int64_t t = 0; t <= 2 * radius; ++t) taps[static_cast<size_t>(t)] = padded.data() + t;
  for (int64_t row = 0; row < rows; ++row) {
    const int32_t* from = in + row * n;
    std::copy_n(from, n, padded.data() + radius);
    for (int64_t r = 1; r <= radius; ++r) {
      padded[static_cast<size_t>(radius - r)] = from[inside(-r, n, border)];
      padded[static_cast<size_t>(radius + n - 1 + r)] = from[inside(n - 1 + r, n, border)];
    }
    filter_rows(filter, taps, out + row * n, n);
  }
}

}  // namespace

int64_t pixels_of(std::span<const int64_t> sides) {
  int64_t product = 1;
  for (const int64_t side : sides) product *= side;
  return product;
}

void filter_axis(std::span<const int32_t> in, std::span<const int64_t> sides, size_t axis,
                 Filter filter, Border border, std::span<int32_t> out) {
  const int64_t n = sides[axis], outer = pixels_of(sides.first(axis));
  const int64_t inner = pixels_of(sides.subspan(axis + 1));
  if (axis + 1 == sides.size()) return filter_last(in.data(), outer, n, filter, border, out.data());
  const int64_t radius = radius_of(filter);
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t i = 0; i < n; ++i) {
      Rows taps{};
      for (int64_t t = 0; t <= 2 * radius; ++t)
        taps[static_cast<size_t>(t)] =
            in.data() + (o * n + inside(i + t - radius, n, border)) * inner;
      filter_rows(filter, taps, out.data() + (o * n + i) * inner, inner);
    }
}

void filter_axes(std::vector<int32_t>& values, std::span<const int64_t> sides,
                 std::span<const Filter> filters, Border border, std::vector<int32_t>& scratch) {
  for (size_t axis = 0; axis < sides.size(); ++axis) {
    filter_axis(values, sides, axis, filters[axis], border, scratch);
    values.swap(scratch);
  }
}

}  // namespace vitrail::patching

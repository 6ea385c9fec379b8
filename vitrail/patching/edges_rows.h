#pragma once
/// Loops over rows of pixels for edges and importance, turned into vector instructions.
///
/// Needs    n values behind every pointer; rows called padded have one more before and behind (blur:
///          `radius` more). Results lie apart from what is read.

#include <array>
#include <cstdint>

namespace vitrail::patching {

/// Rows r - radius ... r + radius, of which 2 * radius + 1 are set.
template <class T>
using TapRows = std::array<const T*, 5>;

/// The binomial kernel 1 2 1 (radius 1) or 1 4 6 4 1 across rows.
void smooth_across(const TapRows<uint8_t>& rows, int64_t radius, uint16_t* out, int64_t n);
void smooth_across(const TapRows<uint16_t>& rows, int64_t radius, uint16_t* out, int64_t n);
/// The same along a padded row, then rounded to bytes by (v + half) >> shift.
void smooth_along(const uint16_t* row, int64_t radius, int shift, uint8_t* out, int64_t n);

/// smooth = a + 2 b + c, difference = c - a.
void sobel_across(const uint8_t* a, const uint8_t* b, const uint8_t* c, int16_t* smooth,
                  int16_t* difference, int64_t n);
void smooth_across(const int16_t* a, const int16_t* b, const int16_t* c, int16_t* out, int64_t n);
void differ_across(const int16_t* a, const int16_t* c, int16_t* out, int64_t n);
/// The same along padded rows.
void smooth_along(const int16_t* row, int16_t* out, int64_t n);
void differ_along(const int16_t* row, int16_t* out, int64_t n);

/// Norm and direction (edges_math.h) of gradients.
void image_norms(const int16_t* gy, const int16_t* gx, int16_t* norm, int16_t* direction,
                 int64_t n);
void volume_norms(const int16_t* gz, const int16_t* gy, const int16_t* gx, int32_t* norm,
                  uint8_t* direction, int64_t n);
/// norm and direction become the other ones where those are stronger.
void take_stronger(const int16_t* other_norm, const int16_t* other_direction, int16_t* norm,
                   int16_t* direction, int64_t n);
void take_stronger(const int32_t* other_norm, const uint8_t* other_direction, int32_t* norm,
                   uint8_t* direction, int64_t n);

/// States of an image's row; norms padded.
void image_ridges(const int16_t* before, const int16_t* norm, const int16_t* after,
                  const int16_t* direction, int16_t low, int16_t high, uint8_t* states, int64_t n);
/// States of a volume's row where they are not nothing; against and along direction d lie the norms
/// before[d] and after[d] elements on.
void volume_ridges(const int32_t* norm, const uint8_t* direction, const int64_t* before,
                   const int64_t* after, int32_t low, int32_t high, uint8_t* states, int64_t n);

/// any |= states of three rows.
void join_states(const uint8_t* a, const uint8_t* b, const uint8_t* c, uint8_t* any, int64_t n);
/// touched = states == weak where the padded row `any`, or a neighbour in it, has an edge.
void touch_weak(const uint8_t* states, const uint8_t* any, uint8_t* touched, int64_t n);

/// marks = states == edge.
void mark_edges(const uint8_t* states, uint8_t* marks, int64_t n);

/// out = max(out, importance of the gradients); gz null: of an image.
void gradient_maxima(const int16_t* gz, const int16_t* gy, const int16_t* gx, uint8_t* out,
                     int64_t n);
/// out = sum of the five rows.
void box_across(const TapRows<uint8_t>& rows, uint16_t* out, int64_t n);
void box_across(const TapRows<uint16_t>& rows, uint16_t* out, int64_t n);
/// out = max(out, importance of values whose neighbourhoods sum up to five of `sums` side by side; that
/// row has two more before and behind).
void variance_maxima(const uint8_t* values, const uint16_t* sums, bool is_volume, uint8_t* out,
                     int64_t n);

}  // namespace vitrail::patching

#pragma once
/// Leaves to patches of one size, and back.
///
/// Rule     each axis by itself, from n pixels of the leaf to P of the patch (or P to n, back), as axis_weights.h says.
///          Nothing outside a leaf is looked at. Sums in double, rounded once: a constant leaf stays exactly
///          as it is.
/// Shapes   C channels, L leaves, k axes, P patch edge; image [C, sides...], boxes [L, 2k] low corner
///          then high corner in pixels, tokens [C, L, P^k], row-major inside a patch.
/// Leaves   do not overlap; of pixels in two leaves the last one counts.
/// Padding  a box without extent: its tokens are 0, its labels -1, and nothing is pasted.
/// Errors   Error for spans of another size, a patch edge above kLargestPatch, and boxes that reach out of the image
///          or do not begin and end between pixels.
/// Differs  UCF-VIT: channels stay apart, floats stay floats, images and volumes follow one rule.
/// Threads  pure functions.

#include <cstdint>
#include <span>
#include <vector>

#include "vitrail/patching/options.h"

namespace vitrail::patching {

constexpr int64_t kLargestPatch = 1024;

void serialise(std::span<const float> image, int64_t channels, std::span<const int64_t> sides,
               std::span<const float> boxes, int64_t patch_size, std::span<float> tokens,
               Resample method = Resample::area);
/// The gradient of the image from that of the tokens.
void serialise_adjoint(std::span<const float> tokens, int64_t channels,
                       std::span<const int64_t> sides, std::span<const float> boxes,
                       int64_t patch_size, std::span<float> image,
                       Resample method = Resample::area);

/// The image that the tokens stand for; pixels in no box become 0. After serialise the same image
/// comes back where leaves are of patch size or constant, an approximation elsewhere.
void paste(std::span<const float> tokens, int64_t channels, std::span<const int64_t> sides,
           std::span<const float> boxes, int64_t patch_size, std::span<float> image,
           Resample method = Resample::area);
/// The gradient of the tokens from that of the image.
void paste_adjoint(std::span<const float> image, int64_t channels, std::span<const int64_t> sides,
                   std::span<const float> boxes, int64_t patch_size, std::span<float> tokens,
                   Resample method = Resample::area);

/// Classes [sides...] -> [L, P^k]. majority: of the pixels with their centre in a patch's pixel the most frequent
/// class, of equals the least; where the leaf is smaller than a patch the nearest pixel. -1 (counts
/// nowhere) has no vote: a place without any other is -1. nearest: the pixel nearest to the place's centre.
void serialise_labels(std::span<const int64_t> labels, std::span<const int64_t> sides,
                      std::span<const float> boxes, int64_t patch_size,
                      std::span<int64_t> leaf_labels, LabelRule rule = LabelRule::majority);

/// The same as shares [classes, L, P^k]: each class's mask, 1 in it and 0 elsewhere, serialised by area. Shares of a
/// place sum to 1 less that of -1 (and of other numbers that are no class).
void serialise_shares(std::span<const int64_t> labels, int64_t classes,
                      std::span<const int64_t> sides, std::span<const float> boxes,
                      int64_t patch_size, std::span<float> shares);

/// The mosaic of a model whose output is one: s^k = L leaves in rows, leaf l in cell l, row-major.
/// [L, P^k] -> [s * P, ...].
/// throws   Error when L is no s^k.
template <class T>
void to_mosaic(std::span<const T> leaves, int64_t axes, int64_t patch_size, std::span<T> mosaic);
/// The inverse: [s * P, ...] -> [L, P^k].
template <class T>
void from_mosaic(std::span<const T> mosaic, int64_t axes, int64_t patch_size, std::span<T> leaves);

extern template void to_mosaic(std::span<const float>, int64_t, int64_t, std::span<float>);
extern template void to_mosaic(std::span<const int64_t>, int64_t, int64_t, std::span<int64_t>);
extern template void from_mosaic(std::span<const float>, int64_t, int64_t, std::span<float>);
extern template void from_mosaic(std::span<const int64_t>, int64_t, int64_t, std::span<int64_t>);

/// Sides of the mosaic of L leaves, k of them.
std::vector<int64_t> mosaic_sides(int64_t leaves, int64_t axes, int64_t patch_size);

}  // namespace vitrail::patching

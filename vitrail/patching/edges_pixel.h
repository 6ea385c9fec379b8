#pragma once
/// What a GPU's threads do for one pixel of a batch; the steps of edges.h one after another.
///
/// Hysteresis  connected components by union-find without locks: parents only ever lead to smaller
///             places, roots are hooked by compare-and-swap, so every order of the threads gives the same
///             components. Jaiganesh and Burtscher 2018, "A high-performance connected components
///             implementation for GPUs".

#include "vitrail/patching/device_edges.h"

namespace vitrail::patching {

VT_HOST_DEVICE inline int64_t pixels_of(const EdgeBatch& e) {
  return int64_t{e.sides[0]} * e.sides[1] * e.sides[2];
}

/// A place in the sample as coordinates.
VT_HOST_DEVICE inline Step place_of(const EdgeBatch& e, int32_t i) {
  const auto width = static_cast<uint32_t>(e.sides[2]), height = static_cast<uint32_t>(e.sides[1]);
  const uint32_t row = static_cast<uint32_t>(i) / width;
  return {static_cast<int32_t>(row / height), static_cast<int32_t>(row % height),
          static_cast<int32_t>(static_cast<uint32_t>(i) % width)};
}

/// Of the binomial kernel 1 2 1 or 1 4 6 4 1, or of a box.
template <int32_t kRadius, bool kIsBox>
VT_HOST_DEVICE constexpr int32_t tap_weight(int32_t offset) {
  const int32_t d = absolute(offset);
  if (kIsBox) return 1;
  if (kRadius == 1) return 2 - d;
  return d == 0 ? 6 : d == 1 ? 4 : 1;
}

/// sum over the (2 * kRadius + 1)^k pixels around, mirrored at the ends, of the axes' weights times the
/// value.
template <int32_t kRadius, bool kIsBox>
VT_HOST_DEVICE inline int32_t weighted_sum(const EdgeBatch& e, const uint8_t* channel, int32_t i) {
  const Step at = place_of(e, i);
  const int32_t deep = e.is_volume ? kRadius : 0;
  int32_t columns[2 * kRadius + 1], sum = 0;
  for (int32_t x = -kRadius; x <= kRadius; ++x)
    columns[x + kRadius] = reflected(at.x + x, e.sides[2]);
  for (int32_t z = -deep; z <= deep; ++z) {
    const int64_t plane = int64_t{reflected(at.z + z, e.sides[0])} * e.sides[1];
    const int32_t weight_z = e.is_volume ? tap_weight<kRadius, kIsBox>(z) : 1;
    for (int32_t y = -kRadius; y <= kRadius; ++y) {
      const uint8_t* row = channel + (plane + reflected(at.y + y, e.sides[1])) * e.sides[2];
      int32_t part = 0;
      for (int32_t x = -kRadius; x <= kRadius; ++x)
        part += tap_weight<kRadius, kIsBox>(x) * row[columns[x + kRadius]];
      sum += weight_z * tap_weight<kRadius, kIsBox>(y) * part;
    }
  }
  return sum;
}

/// A blurred byte.
VT_HOST_DEVICE inline void blur_pixel(const EdgeBatch& e, int64_t b, int64_t c, int32_t i) {
  const int64_t first = (b * e.channels + c) * pixels_of(e);
  const int32_t blur = e.options[3 * b], axes = e.is_volume ? 3 : 2;
  int32_t value = e.bytes[first + i];
  if (blur != 1) {
    const int32_t shift = axes * (blur == 3 ? 2 : 4);
    const int32_t sum = blur == 3 ? weighted_sum<1, false>(e, e.bytes + first, i)
                                  : weighted_sum<2, false>(e, e.bytes + first, i);
    value = (sum + (1 << (shift - 1))) >> shift;
  }
  e.blurred[first + i] = static_cast<uint8_t>(value);
}

/// The Sobel gradient of a channel's blurred bytes.
VT_HOST_DEVICE inline Step gradient_at(const EdgeBatch& e, const uint8_t* channel, Step at) {
  Step g{0, 0, 0};
  const int32_t deep = e.is_volume ? 1 : 0;
  const int32_t before = replicated(at.x - 1, e.sides[2]), after = replicated(at.x + 1, e.sides[2]);
  for (int32_t z = -deep; z <= deep; ++z)
    for (int32_t y = -1; y <= 1; ++y) {
      const uint8_t* row = channel + (int64_t{replicated(at.z + z, e.sides[0])} * e.sides[1] +
                                      replicated(at.y + y, e.sides[1])) *
                                         e.sides[2];
      const int32_t a = row[before], m = row[at.x], c = row[after];
      const int32_t smooth = a + 2 * m + c;
      const int32_t weight_z = !e.is_volume ? 1 : z == 0 ? 2 : 1, weight_y = y == 0 ? 2 : 1;
      g.x += weight_z * weight_y * (c - a);
      g.y += weight_z * y * smooth;
      g.z += z * weight_y * smooth;
    }
  return g;
}

VT_HOST_DEVICE inline int32_t squares_of(Step g) { return g.z * g.z + g.y * g.y + g.x * g.x; }

/// Norm and direction of the channel where the gradient is strongest, the first of equals.
VT_HOST_DEVICE inline void norm_pixel(const EdgeBatch& e, int64_t b, int32_t i) {
  const int64_t pixels = pixels_of(e);
  const Step at = place_of(e, i);
  int32_t norm = -1;
  Step strongest{0, 0, 0};
  for (int64_t c = 0; c < e.channels; ++c) {
    const Step g = gradient_at(e, e.blurred + (b * e.channels + c) * pixels, at);
    const int32_t other = e.is_volume ? squares_of(g) : absolute(g.x) + absolute(g.y);
    if (other > norm) norm = other, strongest = g;
  }
  e.norms[b * pixels + i] = norm;
  e.map[b * pixels + i] =
      static_cast<uint8_t>(e.is_volume ? volume_direction(strongest.z, strongest.y, strongest.x)
                                       : image_direction(strongest.y, strongest.x));
}

/// norm of a neighbour, 0 outside.
VT_HOST_DEVICE inline int32_t norm_at(const EdgeBatch& e, const int32_t* norms, int32_t z,
                                      int32_t y, int32_t x) {
  const bool inside =
      z >= 0 && y >= 0 && x >= 0 && z < e.sides[0] && y < e.sides[1] && x < e.sides[2];
  return inside ? norms[(int64_t{z} * e.sides[1] + y) * e.sides[2] + x] : 0;
}

VT_HOST_DEVICE inline void ridge_pixel(const EdgeBatch& e, int64_t b, int32_t i) {
  const int64_t first = b * pixels_of(e);
  const int32_t* norms = e.norms + first;
  const int32_t low = norm_threshold(e.options[3 * b + 1], e.is_volume);
  uint8_t state = nothing;
  if (norms[i] > low) {
    const int32_t direction = e.map[first + i];
    const Step at = place_of(e, i), step = step_of(direction);
    const int32_t before = norm_at(e, norms, at.z - step.z, at.y - step.y, at.x - step.x);
    const int32_t after = norm_at(e, norms, at.z + step.z, at.y + step.y, at.x + step.x);
    if (is_ridge(norms[i], before, after, !e.is_volume && direction % 2 == 0))
      state = norms[i] > norm_threshold(e.options[3 * b + 2], e.is_volume) ? edge : weak;
  }
  e.states[first + i] = state;
}

/// *place = wanted if it was `expected`; returns what it was.
#if defined(__CUDA_ARCH__)
__device__ inline int32_t swap_if(int32_t* place, int32_t expected, int32_t wanted) {
  return atomicCAS(place, expected, wanted);
}
#else
VT_HOST_DEVICE inline int32_t swap_if(int32_t* place, int32_t expected, int32_t wanted) {
  const int32_t was = *place;
  if (was == expected) *place = wanted;
  return was;
}
#endif

/// The root above i; shortens the way there. Stale values of other threads are older parents, which
/// lie above i as well.
VT_HOST_DEVICE inline int32_t root_of(volatile int32_t* parents, int32_t i) {
  int32_t place = i, parent = parents[i];
  while (parent != place) {
    const int32_t next = parents[parent];
    if (next != parent) parents[place] = next;  // place is no root any more: nobody hooks it
    place = parent;
    parent = next;
  }
  return place;
}

VT_HOST_DEVICE inline void join_places(int32_t* parents, int32_t a, int32_t b) {
  a = root_of(parents, a);
  b = root_of(parents, b);
  while (a != b) {
    const int32_t larger = a > b ? a : b, smaller = a > b ? b : a;
    const int32_t was = swap_if(parents + larger, larger, smaller);
    if (was == larger) return;
    a = root_of(parents, was);  // another thread hooked it first
    b = smaller;
  }
}

/// body(j) for each neighbour of i that is no `nothing` and comes before it.
template <class Body>
VT_HOST_DEVICE inline void for_earlier(const EdgeBatch& e, const uint8_t* states, int32_t i,
                                       Body&& body) {
  const Step at = place_of(e, i);
  for (int32_t d = e.is_volume ? 13 : 4; d >= 1; --d) {
    const Step step = step_of(d);
    const int32_t z = at.z - step.z, y = at.y - step.y, x = at.x - step.x;
    if (z < 0 || y < 0 || x < 0 || y >= e.sides[1] || x >= e.sides[2]) continue;
    const int32_t j = (z * e.sides[1] + y) * e.sides[2] + x;
    if (states[j] != nothing) body(j);
  }
}

/// Four steps of hysteresis. First: every weak pixel and edge below its earliest neighbour.
VT_HOST_DEVICE inline void plant_pixel(const EdgeBatch& e, int64_t b, int32_t i) {
  const int64_t first = b * pixels_of(e);
  if (e.states[first + i] == nothing) return;
  int32_t parent = i;
  for_earlier(e, e.states + first, i, [&](int32_t j) { parent = j < parent ? j : parent; });
  e.norms[first + i] = parent;
}
/// Second: joined with all neighbours.
VT_HOST_DEVICE inline void join_pixel(const EdgeBatch& e, int64_t b, int32_t i) {
  const int64_t first = b * pixels_of(e);
  if (e.states[first + i] == nothing) return;
  for_earlier(e, e.states + first, i, [&](int32_t j) { join_places(e.norms + first, i, j); });
}
/// Third: a component's root is an edge where one of its pixels is.
VT_HOST_DEVICE inline void raise_pixel(const EdgeBatch& e, int64_t b, int32_t i) {
  const int64_t first = b * pixels_of(e);
  if (e.states[first + i] != edge) return;
  e.states[first + root_of(e.norms + first, i)] = edge;
}
/// Fourth: the map.
VT_HOST_DEVICE inline void mark_pixel(const EdgeBatch& e, int64_t b, int32_t i) {
  const int64_t first = b * pixels_of(e);
  uint8_t state = e.states[first + i];
  if (state == weak) state = e.states[first + root_of(e.norms + first, i)];
  e.map[first + i] = state == edge ? 1 : 0;
}

VT_HOST_DEVICE inline void gradient_pixel(const EdgeBatch& e, int64_t b, int32_t i) {
  const int64_t pixels = pixels_of(e);
  int32_t largest = 0;
  for (int64_t c = 0; c < e.channels; ++c) {
    const Step g = gradient_at(e, e.blurred + (b * e.channels + c) * pixels, place_of(e, i));
    const int32_t squares = squares_of(g);
    largest = squares > largest ? squares : largest;
  }
  e.map[b * pixels + i] = static_cast<uint8_t>(gradient_importance(largest, e.is_volume));
}

VT_HOST_DEVICE inline void variance_pixel(const EdgeBatch& e, int64_t b, int32_t i) {
  const int64_t pixels = pixels_of(e);
  int32_t largest = 0;
  for (int64_t c = 0; c < e.channels; ++c) {
    const uint8_t* channel = e.bytes + (b * e.channels + c) * pixels;
    const int32_t sum = weighted_sum<2, true>(e, channel, i);
    const int32_t importance = e.is_volume ? variance_importance<125>(channel[i], sum)
                                           : variance_importance<25>(channel[i], sum);
    largest = importance > largest ? importance : largest;
  }
  e.map[b * pixels + i] = static_cast<uint8_t>(largest);
}

}  // namespace vitrail::patching

#include "vitrail/comm/mesh.h"

#include <fmt/format.h>

#include "vitrail/core/error.h"

namespace vitrail::comm {
namespace {

constexpr const char* kProduct = "replicate*shard*pipeline*sequence*tensor";

std::array<int64_t, kAxisCount> factors(const MeshShape& shape) {
  return {shape.replicate, shape.shard, shape.pipeline, shape.sequence, shape.tensor};
}

std::string written(const std::array<int64_t, kAxisCount>& sizes) {
  return fmt::format("{}*{}*{}*{}*{}", sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]);
}

/// Replaces -1 by what the other axes leave. throws ConfigError naming every factor.
std::array<int64_t, kAxisCount> resolve(const MeshShape& shape, int64_t ranks) {
  const std::array<int64_t, kAxisCount> given = factors(shape);
  int open = -1;
  int64_t product = 1;
  for (int axis = 0; axis < kAxisCount; ++axis) {
    const int64_t size = given[static_cast<size_t>(axis)];
    VT_REQUIRE(ConfigError, size == -1 || size >= 1,
               "[mesh] {} must be at least 1, or -1 for what is left, but got {}",
               name(static_cast<Axis>(axis)), size);
    if (size != -1) {
      // Stays below ranks * limit, so the product cannot overflow; past `ranks` its exact value
      // matters only in print.
      VT_REQUIRE(ConfigError, size <= (int64_t{1} << 31) && product <= (int64_t{1} << 31),
                 "[mesh] {} must equal the number of ranks but got {} for {} ranks", kProduct,
                 written(given), ranks);
      product *= size;
      continue;
    }
    VT_REQUIRE(ConfigError, open == -1, "[mesh] only one axis may be -1 but {} and {} are",
               name(static_cast<Axis>(open)), name(static_cast<Axis>(axis)));
    open = axis;
  }
  std::array<int64_t, kAxisCount> sizes = given;
  if (open >= 0) {
    VT_REQUIRE(ConfigError, ranks % product == 0,
               "[mesh] {} must equal the number of ranks but the factors in {} give {}, which does "
               "not divide {} ranks",
               kProduct, written(given), product, ranks);
    sizes[static_cast<size_t>(open)] = ranks / product;
    return sizes;
  }
  VT_REQUIRE(ConfigError, product == ranks,
             "[mesh] {} must equal the number of ranks but got {} = {} for {} ranks", kProduct,
             written(given), product, ranks);
  return sizes;
}

}  // namespace

const char* name(Axis axis) {
  constexpr const char* names[] = {"replicate", "shard", "pipeline", "sequence", "tensor"};
  return names[static_cast<int>(axis)];
}

Mesh::Mesh(Communicator& world, const MeshShape& shape) : world_(world) {
  const std::array<int64_t, kAxisCount> sizes = resolve(shape, world.size());
  int left = world.rank();
  for (size_t axis = kAxisCount; axis-- > 0;) {  // the last axis, tensor, varies fastest
    sizes_[axis] = static_cast<int>(sizes[axis]);
    coordinates_[axis] = left % sizes_[axis];
    left /= sizes_[axis];
  }
}

Communicator& Mesh::along(Axis axis) { return along({axis}); }

Communicator& Mesh::along(std::initializer_list<Axis> axes) {
  unsigned mask = 0;
  for (const Axis axis : axes) mask |= 1u << static_cast<unsigned>(axis);
  std::unique_ptr<Communicator>& group = groups_[mask];
  if (group) return *group;
  // Ranks with equal coordinates on all other axes share a color; inside, the order of the world.
  int color = 0;
  for (size_t axis = 0; axis < kAxisCount; ++axis)
    if ((mask >> axis & 1u) == 0) color = color * sizes_[axis] + coordinates_[axis];
  group = world_.split(color, world_.rank());
  return *group;
}

int Mesh::data_rank() const {
  return coordinate(Axis::replicate) * size(Axis::shard) + coordinate(Axis::shard);
}

int Mesh::data_size() const { return size(Axis::replicate) * size(Axis::shard); }

std::string Mesh::describe() const {
  std::string text;
  for (int axis = 0; axis < kAxisCount; ++axis)
    text += fmt::format("{}{} {}", axis == 0 ? "" : " x ", name(static_cast<Axis>(axis)),
                        sizes_[static_cast<size_t>(axis)]);
  return text + fmt::format(" = {} {}", world_.size(), world_.size() == 1 ? "rank" : "ranks");
}

}  // namespace vitrail::comm

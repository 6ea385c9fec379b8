#pragma once
/// The ranks as a grid. Axes, outermost first: replicate, shard, pipeline, sequence, tensor (tensor
/// ranks are neighbours). Their product equals the number of ranks.

#include <array>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>

#include "vitrail/comm/communicator.h"

namespace vitrail::comm {

enum class Axis { replicate, shard, pipeline, sequence, tensor };
constexpr int kAxisCount = 5;
const char* name(Axis axis);

struct MeshShape {
  int64_t replicate = -1, shard = 1, pipeline = 1, sequence = 1,
          tensor = 1;  // at most one is -1 = what is left
};

class Mesh {
 public:
  /// `world` outlives the mesh. throws ConfigError when the product does not equal world.size().
  Mesh(Communicator& world, const MeshShape& shape);

  Communicator& world() const { return world_; }
  /// The group of ranks that differ from this one only along `axis` (or along any of `axes`);
  /// created on first use, so every rank must ask in the same order.
  Communicator& along(Axis axis);
  Communicator& along(std::initializer_list<Axis> axes);
  int coordinate(Axis axis) const { return coordinates_[static_cast<int>(axis)]; }
  int size(Axis axis) const { return sizes_[static_cast<int>(axis)]; }
  /// Ranks that see different samples: replicate x shard. Batches are split over these.
  int data_rank() const;
  int data_size() const;
  /// "replicate 2 x shard 4 x pipeline 1 x sequence 1 x tensor 1 = 8 ranks"
  std::string describe() const;

 private:
  Communicator& world_;
  std::array<int, kAxisCount> sizes_{};
  std::array<int, kAxisCount> coordinates_{};
  std::map<unsigned, std::unique_ptr<Communicator>> groups_;  // by bit mask of axes
};

}  // namespace vitrail::comm

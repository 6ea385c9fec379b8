#pragma once
/// The communicators of a mesh for the memory of one device.
///
/// Order   groups are made at first use, so every rank asks for them in the same order.

#include <initializer_list>
#include <map>
#include <memory>
#include <utility>

#include <c10/core/Device.h>

#include "vitrail/comm/mesh.h"

namespace vitrail::parallel {

class Groups {
 public:
  /// `mesh` outlives the groups.
  Groups(comm::Mesh& mesh, at::Device device);

  comm::Mesh& mesh() const { return mesh_; }
  at::Device device() const { return device_; }
  /// Ranks that differ from this one only along `axes`, for buffers on the device. Collectives of one group run in the
  /// order in which they are issued; groups of different `lane` over the same ranks do not wait for each other.
  comm::Communicator& along(std::initializer_list<comm::Axis> axes, int lane = 0);

 private:
  comm::Mesh& mesh_;
  at::Device device_;
  std::map<std::pair<unsigned, int>, std::unique_ptr<comm::Communicator>> made_;
};

}  // namespace vitrail::parallel

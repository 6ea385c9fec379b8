#include "vitrail/parallel/groups.h"

#include "vitrail/comm/launch.h"

namespace vitrail::parallel {

Groups::Groups(comm::Mesh& mesh, at::Device device) : mesh_(mesh), device_(device) {}

comm::Communicator& Groups::along(std::initializer_list<comm::Axis> axes, int lane) {
  comm::Communicator& host = mesh_.along(axes);
  if (device_.is_cpu() && lane == 0) return host;
  unsigned mask = 0;
  for (const comm::Axis axis : axes) mask |= 1u << static_cast<unsigned>(axis);
  std::unique_ptr<comm::Communicator>& group = made_[{mask, lane}];
  if (!group)
    group = device_.is_cuda() && host.size() > 1 ? comm::device_communicator(host, device_.index())
                                                 : host.split(0, host.rank());
  return *group;
}

}  // namespace vitrail::parallel

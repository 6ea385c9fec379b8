#include "vitrail/parallel/placement.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include "vitrail/core/error.h"

namespace vitrail::parallel {
namespace {

Box whole_box(const std::vector<int64_t>& shape) {
  return {std::vector<int64_t>(shape.size(), 0), shape};
}

/// The part of [start, start + length) on `axis`.
Box cut(const std::vector<int64_t>& shape, size_t axis, int64_t start, int64_t length,
        const Placement& placement) {
  VT_REQUIRE(ConfigError, axis < shape.size() && length % placement.parts == 0,
             "[tensor] {} ranks must divide {} but do not; choose another parallel.tensor",
             placement.parts, axis < shape.size() ? length : 0);
  Box box = whole_box(shape);
  box.shape[axis] = length / placement.parts;
  box.start[axis] = start + placement.part * box.shape[axis];
  return box;
}

}  // namespace

int64_t Box::count() const {
  int64_t product = 1;
  for (const int64_t extent : shape) product *= extent;
  return product;
}

std::vector<Box> boxes(const std::vector<int64_t>& shape, const Placement& placement) {
  switch (placement.split) {
    case Split::none:
      return {whole_box(shape)};
    case Split::owner:
      if (placement.part != placement.owner) return {};
      return {whole_box(shape)};
    case Split::columns:
      return {cut(shape, 1, 0, shape.size() > 1 ? shape[1] : 0, placement)};
    case Split::rows:
      break;
  }
  std::vector<int64_t> sections = placement.sections;
  if (sections.empty()) sections = {shape.empty() ? 0 : shape[0]};
  std::vector<Box> found;
  int64_t start = 0;
  for (const int64_t length : sections) {
    found.push_back(cut(shape, 0, start, length, placement));
    start += length;
  }
  VT_CHECK(!shape.empty() && start == shape[0],
           "[tensor] the sections of a divided axis must add up to {} but give {}",
           shape.empty() ? 0 : shape[0], start);
  return found;
}

std::vector<int64_t> local_shape(const std::vector<int64_t>& whole_shape,
                                 const Placement& placement) {
  const std::vector<Box> held = boxes(whole_shape, placement);
  std::vector<int64_t> shape = whole_shape;
  if (held.empty()) {
    shape.assign(std::max<size_t>(1, shape.size()), 0);
    return shape;
  }
  shape = held[0].shape;
  for (size_t i = 1; i < held.size(); ++i) shape[0] += held[i].shape[0];
  return shape;
}

at::Tensor local_part(const at::Tensor& whole, const Placement& placement) {
  const std::vector<Box> held = boxes(whole.sizes().vec(), placement);
  if (held.empty()) return at::empty(local_shape(whole.sizes().vec(), placement), whole.options());
  std::vector<at::Tensor> parts;
  for (const Box& box : held) {
    at::Tensor part = whole;
    for (size_t axis = 0; axis < box.shape.size(); ++axis)
      part = part.narrow(static_cast<int64_t>(axis), box.start[axis], box.shape[axis]);
    parts.push_back(part);
  }
  return (parts.size() == 1 ? parts[0] : at::cat(parts)).contiguous();
}

}  // namespace vitrail::parallel

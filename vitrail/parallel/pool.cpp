#include "vitrail/parallel/pool.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

namespace vitrail::parallel {

MovingTensor::MovingTensor(int64_t count, const at::TensorOptions& options)
    : tensor_(without_memory({count}, options)) {}

bool MovingTensor::has_memory() const {
  return tensor_.defined() && tensor_.storage().data() != nullptr;
}

void MovingTensor::point_to(void* data) {
  c10::StorageImpl* storage = tensor_.storage().unsafeGetStorageImpl();
  storage->set_data_ptr_noswap(at::DataPtr(data, tensor_.device()));
  storage->set_nbytes(data ? tensor_.numel() * tensor_.element_size() : 0);
}

at::Tensor without_memory(at::IntArrayRef shape, const at::TensorOptions& options) {
  return at::for_blob(nullptr, shape)
      .options(options)
      .target_device(options.device())
      .make_tensor();
}

SlotMemory::SlotMemory(int slots, int64_t count, const at::TensorOptions& options)
    : memory_(at::empty({slots * count}, options)), slot_count_(count) {}

}  // namespace vitrail::parallel

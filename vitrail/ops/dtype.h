#pragma once
/// ATen's element types <-> those of files and buffers.

#include <ATen/core/Tensor.h>

#include "vitrail/core/dtype.h"

namespace vitrail::ops {

/// throws Error naming the type when ATen lacks it.
at::ScalarType scalar_type(core::DType dtype);
/// throws Error naming the type when files lack it.
core::DType dtype_of(at::ScalarType type);

}  // namespace vitrail::ops

#pragma once
// What nvcc cannot compile beside the kernel (fmt's compile-time format check), and the device's properties.

#include "vitrail/kernels/gemm.h"

namespace vitrail::kernels {

int current_device();
int multiprocessors(int device);
bool is_capability_90(int device);
[[noreturn]] void refuse_gemm_gelu(const GemmShape& shape, const char* why);

}  // namespace vitrail::kernels

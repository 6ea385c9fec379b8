#pragma once
/// The __shared__ variables of all emulated kernels: they are declared thread-local and the kernels are a shared
/// library of their own, so that they are the thread-local storage of that library and nothing else is.

#include <cstddef>
#include <span>

namespace emulation {

/// The storage of the calling thread.
std::span<unsigned char> static_shared();

}  // namespace emulation

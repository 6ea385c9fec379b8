#pragma once
/// What device.h says of the CPU, shared by builds with and without CUDA.

#include <cstddef>
#include <cstdint>
#include <string>

namespace vitrail::parallel {

std::string host_name_of_cpu();
int64_t host_peak_bytes();
void reset_host_peak();
int64_t host_total_bytes();
/// Memory that begins at a page, for std::free. throws OutOfMemoryError.
std::byte* host_pages(int64_t bytes);

}  // namespace vitrail::parallel

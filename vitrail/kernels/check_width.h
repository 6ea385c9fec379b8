#pragma once
/// What the kernels demand of shapes, in one place for plain loops and GPUs.

#include <cstdint>

namespace vitrail::kernels {

/// throws Error naming `where` unless width is a positive multiple of 8, at most `most`.
void check_width(const char* where, int64_t width, int64_t most = INT64_MAX);
/// throws Error naming `where` and `what` unless `value` is at most `most`.
void check_count(const char* where, const char* what, int64_t value, int64_t most);

}  // namespace vitrail::kernels

#include "vitrail/kernels/check_width.h"

#include "vitrail/core/error.h"

namespace vitrail::kernels {

void check_width(const char* where, int64_t width, int64_t most) {
  VT_CHECK(width > 0 && width % 8 == 0 && width <= most,
           "[{}] the width must be a multiple of 8, at most {}, but got {}", where, most, width);
}

void check_count(const char* where, const char* what, int64_t value, int64_t most) {
  VT_CHECK(value <= most, "[{}] {} must be at most {} but got {}", where, what, most, value);
}

}  // namespace vitrail::kernels

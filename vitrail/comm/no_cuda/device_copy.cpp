#include <cstring>

#include "vitrail/comm/self.h"

namespace vitrail::comm {

void copy_on_device(void* to, const void* from, int64_t bytes, Stream) {
  std::memmove(to, from, static_cast<size_t>(bytes));
}

}  // namespace vitrail::comm

#include "vitrail/io/tiff.h"

#include "vitrail/core/error.h"

namespace vitrail::io {

std::unique_ptr<ArrayFile> parse_tiff(std::span<const std::byte>, std::shared_ptr<const void>,
                                      const std::string& name) {
  core::fail<core::ConfigError>(
      "[data] {}: this program was built without libtiff, which reads TIFF files; install "
      "libtiff-dev and build again, or convert the files",
      name);
}

}  // namespace vitrail::io

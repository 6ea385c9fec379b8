#pragma once
/// Plain numbers in a file, behind one another, without a header; also what .npy and .npz hold.
///
/// Memory   the file is mapped: a box touches the pages that its rows lie on and no others, however
///          large the file is.
/// Errors   DataError naming the file.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vitrail/io/array.h"

namespace vitrail::io {

/// A type of number as a file stores it.
struct RawType {
  core::DType dtype = core::DType::u8;
  bool is_big_endian = false;
};

/// "uint8", "float64", "u2", "<i4", ">f4", "uint16le", "float32be", "bool", "bfloat16": a name or
/// NumPy's letter and bytes; the byte order in front (< > | =) or behind (le, be), little when it is
/// not said.
/// throws   ConfigError naming the text.
RawType parse_raw_type(std::string_view text);

struct RawLayout {
  RawType type;
  std::vector<int64_t> shape;
  int64_t offset = 0;               // bytes before the first number
  bool first_axis_fastest = false;  // Fortran order
};

/// Numbers in memory or in a mapped file.
class RawArray : public ArrayFile {
 public:
  /// `owner` keeps `file` alive; it may be null where the caller does.
  /// throws   DataError naming `name` unless the file ends exactly behind the last number: another
  ///          length means another shape, type or offset.
  RawArray(std::span<const std::byte> file, std::shared_ptr<const void> owner, RawLayout layout,
           std::string name);

  const std::vector<int64_t>& shape() const override { return layout_.shape; }
  core::DType dtype() const override { return layout_.type.dtype; }
  void read(std::span<const int64_t> origin, std::span<const int64_t> sides,
            std::byte* out) const override;

 private:
  std::shared_ptr<const void> owner_;
  RawLayout layout_;
  std::span<const std::byte> data_;
  std::vector<int64_t> strides_;  // bytes
};

std::unique_ptr<ArrayFile> open_raw(const std::string& path, const RawLayout& layout);

/// The number of bytes that a layout's numbers take.
/// throws   DataError naming `name`: a negative size, more than 63 bits.
int64_t raw_bytes(const RawLayout& layout, const std::string& name);

}  // namespace vitrail::io

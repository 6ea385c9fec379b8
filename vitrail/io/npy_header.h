#pragma once
/// The Python literal at the start of an .npy file; part of io/npy.h.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vitrail::io {

struct NpyHeader {
  std::string descr;
  bool fortran_order = false;
  std::vector<int64_t> shape;
};

/// Reads {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), } with its three keys in any
/// order. throws   DataError naming `file`.
NpyHeader parse_npy_header(std::string_view text, const std::string& file);

}  // namespace vitrail::io

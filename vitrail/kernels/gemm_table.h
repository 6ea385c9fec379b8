#pragma once
/// The text file that keeps which algorithm of the library computes which matrix product.
///
///   vitrail gemm table 1
///   device NVIDIA H200
///   library cuBLASLt 130100
///   nt bias bf16 50432 2304 768 0.241 0.289 0123...cdef 1a2b3c4d id 66 tile 20 stages 36
/// A line a product: layout of A and B (n = as it stands, t = transposed), options, type ("bf16:e4m3*e4m3:rows:fast" for
/// 8-bit operands), m n k, milliseconds of the choice
/// and of the library's own, the algorithm's 64 bytes, the crc32c of all before it, the algorithm in words.
/// Errors   a broken line is left out; DataError where the file cannot be read or is no such table.

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "vitrail/kernels/gemm.h"

namespace vitrail::kernels {

using GemmAlgorithm = std::array<uint8_t, 64>;  // the library's own form, not to be understood

struct GemmRow {
  GemmChoice choice;
  GemmAlgorithm algorithm{};
};

struct GemmTable {
  std::string device, library;
  std::vector<GemmRow> rows;
};

std::string to_text(const GemmTable& table);
GemmTable parse_gemm_table(const std::string& text, const std::string& path);
void save_gemm_table(const GemmTable& table, const std::string& path);
GemmTable load_gemm_table(const std::string& path);

/// "nt bias bf16 50432 x 2304 x 768", for messages and logs.
std::string to_words(const GemmShape& shape);

}  // namespace vitrail::kernels

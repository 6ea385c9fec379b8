#pragma once
/// Gzipped files and tables of numbers as text.
///
/// Errors   DataError naming the file and, for tables, line and column.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vitrail::io {

/// The whole content of a .gz file (also of several parts behind each other).
/// throws   DataError if it is damaged, ends early or unpacks to more than max_bytes.
std::string read_gzip(const std::string& path, int64_t max_bytes);

/// The same for a file in memory; `name` is for messages.
std::string inflate_gzip(std::span<const std::byte> file, const std::string& name,
                         int64_t max_bytes);

struct NumericTable {
  int64_t rows = 0, columns = 0;
  std::vector<double> values;  // [rows, columns]

  double at(int64_t row, int64_t column) const {
    return values[static_cast<size_t>(row * columns + column)];
  }
};

/// Comma-separated finite numbers, every line equally many; spaces around them, \r\n and blank
/// lines are fine. The first skip_lines lines (column names) are not looked at.
NumericTable parse_csv(std::string_view text, const std::string& name, int skip_lines = 0);

}  // namespace vitrail::io

#pragma once
/// Tables of text: comma-separated values as RFC 4180 has them.
///
/// Format   fields may be quoted, then hold separators, line ends and doubled quotes; lines end in
///          \n or \r\n; a UTF-8 byte order mark at the start is skipped; blank lines are left out.
/// Errors   DataError naming the file and the line.
/// Memory   one record at a time.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace vitrail::io {

struct CsvRecord {
  int64_t line = 0;  // on which it starts, from 1
  std::vector<std::string> fields;
};

struct CsvLimits {
  int64_t max_fields = 10'000;        // of a record
  int64_t max_field_bytes = 1 << 20;  // so that a quote that is never closed ends soon
};

/// Calls `take` for every record in order.
void parse_csv_records(std::string_view text, const std::string& name, char separator,
                       const std::function<void(const CsvRecord&)>& take,
                       const CsvLimits& limits = {});

}  // namespace vitrail::io

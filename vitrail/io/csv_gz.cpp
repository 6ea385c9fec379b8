#include "vitrail/io/csv_gz.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include <zlib.h>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include "vitrail/core/text.h"

namespace vitrail::io {
namespace {

/// Ends zlib's state whatever happens between.
struct Inflater {
  z_stream stream{};
  ~Inflater() { ::inflateEnd(&stream); }
};

std::string_view trimmed(std::string_view text) {
  const auto is_blank = [](char letter) {
    return letter == ' ' || letter == '\t' || letter == '\r';
  };
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

/// Splits off what comes before `separator`, which is dropped; all if there is none.
std::string_view take_until(std::string_view& text, char separator) {
  const size_t end = std::min(text.find(separator), text.size());
  const std::string_view part = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return part;
}

double parse_number(std::string_view field, const std::string& name, int64_t line, int64_t column) {
  const std::string_view text = trimmed(field);
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  VT_REQUIRE(DataError,
             error == std::errc() && end == text.data() + text.size() && std::isfinite(value),
             "[data] {}:{}: column {} must be a finite number but got '{}'", name, line, column,
             core::printable(text));
  return value;
}

}  // namespace

std::string inflate_gzip(std::span<const std::byte> file, const std::string& name,
                         int64_t max_bytes) {
  constexpr int kGzipOnly = 16 + MAX_WBITS;
  constexpr size_t kChunk = 1 << 16;
  Inflater inflater;
  z_stream& stream = inflater.stream;
  VT_CHECK(::inflateInit2(&stream, kGzipOnly) == Z_OK, "[gzip] zlib cannot start");
  std::string result;
  size_t used = 0;
  for (bool ended = false;;) {
    if (stream.avail_in == 0 && used < file.size()) {
      const size_t part = std::min<size_t>(file.size() - used, 1u << 30);  // avail_in has 32 bits
      stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(file.data() + used));
      stream.avail_in = static_cast<uInt>(part);
      used += part;
    }
    const bool no_more_input = stream.avail_in == 0;
    if (ended && no_more_input) return result;
    if (ended) ::inflateReset(&stream);  // another part behind the last
    const size_t before = result.size();
    result.resize(before + kChunk);
    stream.next_out = reinterpret_cast<Bytef*>(result.data() + before);
    stream.avail_out = kChunk;
    const int status = ::inflate(&stream, Z_NO_FLUSH);
    result.resize(result.size() - stream.avail_out);
    ended = status == Z_STREAM_END;
    VT_REQUIRE(DataError, ended || status == Z_OK || status == Z_BUF_ERROR,
               "[data] {}: broken gzip: {}", name,
               stream.msg != nullptr ? stream.msg : ::zError(status));
    VT_REQUIRE(DataError, ended || !no_more_input || result.size() > before,
               "[data] {}: broken gzip: the file ends early", name);
    VT_REQUIRE(DataError, static_cast<int64_t>(result.size()) <= max_bytes,
               "[data] {}: must unpack to at most {} bytes but got more", name, max_bytes);
  }
}

std::string read_gzip(const std::string& path, int64_t max_bytes) {
  // Packing never makes a file much longer than what is in it.
  const int64_t margin = max_bytes / 1000 + 4096;
  const std::string file = core::read_file(
      path,
      max_bytes <= std::numeric_limits<int64_t>::max() - margin ? max_bytes + margin : max_bytes);
  return inflate_gzip(std::as_bytes(std::span(file)), path, max_bytes);
}

NumericTable parse_csv(std::string_view text, const std::string& name, int skip_lines) {
  NumericTable table;
  for (int64_t line = 1; !text.empty(); ++line) {
    std::string_view rest = take_until(text, '\n');
    if (line <= skip_lines || trimmed(rest).empty()) continue;
    int64_t column = 0;
    for (bool more = true; more;) {
      more = rest.find(',') != std::string_view::npos;
      table.values.push_back(parse_number(take_until(rest, ','), name, line, ++column));
    }
    if (table.rows++ == 0) table.columns = column;
    VT_REQUIRE(DataError, column == table.columns,
               "[data] {}:{}: must have {} columns as the lines before but has {}", name, line,
               table.columns, column);
  }
  return table;
}

}  // namespace vitrail::io

#include "vitrail/kernels/gemm_table.h"

#include <sstream>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/checksum.h"
#include "vitrail/core/error.h"

namespace vitrail::kernels {
namespace {

constexpr const char* kFirstLine = "vitrail gemm table 1";
constexpr int64_t kMostBytes = 16 << 20;

constexpr const char* kTypes[] = {"bf16", "e4m3", "e5m2"};

/// ":e5m2*e4m3:rows:fast"; empty for products of bf16.
std::string fp8_words(const GemmShape& shape) {
  if (!shape.is_fp8()) return "";
  return fmt::format(":{}*{}{}{}", kTypes[static_cast<int>(shape.a_type)],
                     kTypes[static_cast<int>(shape.b_type)], shape.row_scales ? ":rows" : "",
                     shape.fast_sums ? ":fast" : "");
}

void parse_fp8(const std::string& words, GemmShape& shape) {
  const auto has = [&](const char* word) { return words.find(word) != std::string::npos; };
  for (const GemmType type : {GemmType::e4m3, GemmType::e5m2}) {
    if (has(fmt::format(":{}*", kTypes[static_cast<int>(type)]).c_str())) shape.a_type = type;
    if (has(fmt::format("*{}", kTypes[static_cast<int>(type)]).c_str())) shape.b_type = type;
  }
  shape.row_scales = has(":rows");
  shape.fast_sums = has(":fast");
}

/// "nt bias+add f32": what a product is besides its sizes.
std::string kind_of(const GemmShape& shape) {
  const char* options =
      shape.has_bias ? (shape.adds ? "bias+add" : "bias") : (shape.adds ? "add" : "plain");
  return fmt::format("{}{} {} {}{}", shape.a_transposed ? 't' : 'n', shape.b_transposed ? 't' : 'n',
                     options, shape.is_f32 ? "f32" : "bf16", fp8_words(shape));
}

std::string hex(const GemmAlgorithm& algorithm) {
  std::string text;
  for (const uint8_t byte : algorithm) text += fmt::format("{:02x}", byte);
  return text;
}

bool parse_hex(const std::string& text, GemmAlgorithm& algorithm) {
  if (text.size() != 2 * algorithm.size()) return false;
  if (text.find_first_not_of("0123456789abcdef") != std::string::npos) return false;
  for (size_t i = 0; i < algorithm.size(); ++i)
    algorithm[i] = static_cast<uint8_t>(std::stoi(text.substr(2 * i, 2), nullptr, 16));
  return true;
}

std::string checked_part(const GemmRow& row) {
  const GemmShape& shape = row.choice.shape;
  return fmt::format("{} {} {} {} {:.6g} {:.6g} {}", kind_of(shape), shape.m, shape.n, shape.k,
                     row.choice.ms, row.choice.first_ms, hex(row.algorithm));
}

uint32_t checksum(const std::string& text) { return core::crc32c(text.data(), text.size()); }

/// False for a line that is not one of ours, whole and unchanged.
bool parse_row(const std::string& line, GemmRow& row) {
  std::istringstream words(line);
  std::string layout, options, type, bytes, sum;
  GemmShape& shape = row.choice.shape;
  if (!(words >> layout >> options >> type >> shape.m >> shape.n >> shape.k >> row.choice.ms >>
        row.choice.first_ms >> bytes >> sum))
    return false;
  if (layout.size() != 2 || !parse_hex(bytes, row.algorithm)) return false;
  shape.a_transposed = layout[0] == 't';
  shape.b_transposed = layout[1] == 't';
  shape.has_bias = options.rfind("bias", 0) == 0;
  shape.adds = options == "add" || options == "bias+add";
  shape.is_f32 = type.rfind("f32", 0) == 0;
  parse_fp8(type, shape);
  std::getline(words >> std::ws, row.choice.algorithm);
  return fmt::format("{:08x}", checksum(checked_part(row))) == sum;
}

/// The rest of a line that begins with `key` and a space.
std::string value_of(const std::string& line, const std::string& key, const std::string& path) {
  VT_REQUIRE(DataError, line.rfind(key + " ", 0) == 0,
             "[gemm] {}: expected a line '{} ...' but got '{}'", path, key, line);
  return line.substr(key.size() + 1);
}

}  // namespace

std::string to_words(const GemmShape& shape) {
  return fmt::format("{} {} x {} x {}", kind_of(shape), shape.m, shape.n, shape.k);
}

std::string to_text(const GemmTable& table) {
  std::string text =
      fmt::format("{}\ndevice {}\nlibrary {}\n", kFirstLine, table.device, table.library);
  for (const GemmRow& row : table.rows) {
    const std::string part = checked_part(row);
    text += fmt::format("{} {:08x} {}\n", part, checksum(part), row.choice.algorithm);
  }
  return text;
}

GemmTable parse_gemm_table(const std::string& text, const std::string& path) {
  std::istringstream lines(text);
  std::string line;
  std::getline(lines, line);
  VT_REQUIRE(DataError, line == kFirstLine, "[gemm] {}: the first line must be '{}' but is '{}'",
             path, kFirstLine, line.substr(0, 80));
  GemmTable table;
  std::getline(lines, line);
  table.device = value_of(line, "device", path);
  std::getline(lines, line);
  table.library = value_of(line, "library", path);
  while (std::getline(lines, line)) {
    GemmRow row;
    if (parse_row(line, row)) table.rows.push_back(std::move(row));
  }
  return table;
}

void save_gemm_table(const GemmTable& table, const std::string& path) {
  core::write_file_atomic(path, to_text(table));
}

GemmTable load_gemm_table(const std::string& path) {
  return parse_gemm_table(core::read_file(path, kMostBytes), path);
}

}  // namespace vitrail::kernels

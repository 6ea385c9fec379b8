#include <filesystem>
#include <system_error>

#include "vitrail/core/error.h"
#include "vitrail/data/readers.h"
#include "vitrail/io/csv_gz.h"

namespace vitrail::data {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kSide = 8, kPixels = kSide * kSide, kWhite = 16, kClasses = 10;
// The real table unpacks to 300 kB.
constexpr int64_t kMaxBytes = 64 << 20;

class Digits : public Reader {
 public:
  Digits(std::string path, io::NumericTable table, int64_t channels)
      : Reader(channels), path_(std::move(path)), table_(std::move(table)) {}

  int64_t size() const override { return table_.rows; }

  SampleInfo describe(int64_t i) const override {
    return {fmt::format("{}:{}", path_, i + 1), static_cast<int64_t>(table_.at(i, kPixels))};
  }

  Shape shape(int64_t) const override { return {{kSide, kSide}, 1}; }

  Pixels decode(int64_t i) const override {
    Pixels pixels;
    pixels.sides = {kSide, kSide};
    pixels.full_scale = kWhite;
    for (int64_t p = 0; p < kPixels; ++p)
      pixels.values.push_back(static_cast<uint8_t>(table_.at(i, p)));
    return pixels;
  }

  std::vector<std::string> class_names() const override {
    return {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
  }

 private:
  std::string path_;
  io::NumericTable table_;
};

/// Every value whole and in its range, so that decode() and describe() cannot fail.
void check_values(const io::NumericTable& table, const std::string& path) {
  VT_REQUIRE(DataError, table.rows > 0, "[data] {}: the table of digits is empty", path);
  VT_REQUIRE(DataError, table.columns == kPixels + 1,
             "[data] {}:1: a row of digits must hold {} values (64 pixels, label) but has {}", path,
             kPixels + 1, table.columns);
  for (int64_t row = 0; row < table.rows; ++row)
    for (int64_t column = 0; column <= kPixels; ++column) {
      const double value = table.at(row, column);
      const double last = column < kPixels ? kWhite : kClasses - 1;
      const bool is_whole = value >= 0 && value <= last && value == static_cast<int64_t>(value);
      VT_REQUIRE(DataError, is_whole,
                 "[data] {}:{}:{}: expected a whole number from 0 to {} but got {}", path, row + 1,
                 column + 1, last, value);
    }
}

}  // namespace

std::unique_ptr<Reader> open_digits(const config::Source& source, const config::Model& model) {
  VT_REQUIRE(ConfigError, model.image_size.size() == 2,
             "[data] source '{}': the reader digits reads images of 2 sides but model.image_size "
             "has {}",
             source_name(source), model.image_size.size());
  std::error_code error;
  fs::path path = source.root;
  if (fs::is_directory(path, error)) path /= "digits.csv.gz";
  VT_REQUIRE(DataError, fs::exists(path, error),
             "[data] {}: no such file; set root of the source '{}'", path.string(),
             source_name(source));
  io::NumericTable table = io::parse_csv(io::read_gzip(path.string(), kMaxBytes), path.string());
  check_values(table, path.string());
  return std::make_unique<Digits>(path.string(), std::move(table), model.in_channels);
}

}  // namespace vitrail::data

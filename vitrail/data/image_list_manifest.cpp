#include "vitrail/data/image_list_manifest.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>

#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/core/text.h"
#include "vitrail/io/csv.h"
#include "vitrail/io/json_records.h"

namespace vitrail::data {
namespace {

constexpr int64_t kMaxValues = 1 << 16;

std::string trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t"), last = text.find_last_not_of(" \t");
  return std::string(first == std::string_view::npos ? "" : text.substr(first, last - first + 1));
}

/// A whole number that fills the text.
std::optional<int64_t> whole(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool fits = error == std::errc() && end == text.data() + text.size();
  return fits ? std::optional(value) : std::nullopt;
}

/// N of "valueN", 0 of "value".
std::optional<int64_t> value_place(std::string_view key) {
  if (!key.starts_with("value")) return std::nullopt;
  const std::string_view digits = key.substr(5);
  if (digits.empty()) return 0;
  const bool plain = digits == "0" || (digits[0] >= '1' && digits[0] <= '9');
  const std::optional<int64_t> place = whole(digits);
  return plain && place && *place < kMaxValues ? place : std::nullopt;
}

/// A row or an object, whatever its format.
struct Entry {
  std::string where, path, mask;
  std::optional<std::string> label;
  std::vector<float> values;
};

/// Checks each entry against those before it, then makes classes of the labels.
class ManifestBuilder {
 public:
  explicit ManifestBuilder(const std::string& name) : name_(name) {}

  void set_keys(std::string keys) { manifest_.keys = std::move(keys); }

  void add(Entry entry) {
    VT_REQUIRE(DataError, !entry.path.empty(), "[data] {}: has no path of an image", entry.where);
    check_text(entry.path, entry.where);
    check_text(entry.mask, entry.where);
    const auto values = static_cast<int64_t>(entry.values.size());
    if (manifest_.images.empty()) {
      manifest_.has_labels = entry.label.has_value();
      manifest_.has_masks = !entry.mask.empty();
      manifest_.num_values = values;
    }
    check_alike(entry.where, "a label", entry.label.has_value(), manifest_.has_labels);
    check_alike(entry.where, "a mask", !entry.mask.empty(), manifest_.has_masks);
    VT_REQUIRE(DataError, values == manifest_.num_values,
               "[data] {}: must have {} values as the entries before it but has {}", entry.where,
               manifest_.num_values, values);
    manifest_.values.insert(manifest_.values.end(), entry.values.begin(), entry.values.end());
    const int64_t label = entry.label ? number_of(*entry.label) : -1;
    manifest_.images.push_back(
        {std::move(entry.path), std::move(entry.mask), label, std::move(entry.where)});
  }

  Manifest finish() {
    VT_REQUIRE(DataError, !manifest_.images.empty(), "[data] {}: lists no image", name_);
    if (manifest_.has_labels) name_classes();
    return std::move(manifest_);
  }

 private:
  static void check_text(const std::string& path, const std::string& where) {
    const bool is_plain = std::none_of(path.begin(), path.end(), [](char letter) {
      return static_cast<unsigned char>(letter) < 0x20;
    });
    VT_REQUIRE(DataError, is_plain,
               "[data] {}: a path must not hold control characters but is '{}'", where,
               core::printable(path));
  }

  static void check_alike(const std::string& where, const char* what, bool has, bool others_have) {
    VT_REQUIRE(DataError, has == others_have,
               "[data] {}: {} {} but the entries before it {}; give every image one or none", where,
               has ? "has" : "lacks", what, others_have ? "have one" : "have none");
  }

  /// The place of a label's text among all that differ.
  int64_t number_of(const std::string& label) {
    const auto [entry, is_new] = numbers_.try_emplace(label, static_cast<int64_t>(texts_.size()));
    if (is_new) texts_.push_back(label);
    return entry->second;
  }

  /// Labels are the whole numbers they are; or, when one is none, names in the order of their bytes.
  void name_classes() {
    std::vector<int64_t> classes;
    for (const std::string& text : texts_)
      if (const std::optional<int64_t> value = whole(text)) classes.push_back(*value);
    if (classes.size() != texts_.size()) {
      std::vector<std::string> names = texts_;
      std::sort(names.begin(), names.end());
      classes.clear();
      for (const std::string& text : texts_)
        classes.push_back(std::lower_bound(names.begin(), names.end(), text) - names.begin());
      manifest_.class_names = std::move(names);
    }
    for (ListedImage& image : manifest_.images)
      image.label = classes[static_cast<size_t>(image.label)];
  }

  const std::string& name_;
  Manifest manifest_;
  std::unordered_map<std::string, int64_t> numbers_;
  std::vector<std::string> texts_;
};

float finite(double value, const std::string& where, std::string_view written) {
  const auto result = static_cast<float>(value);
  VT_REQUIRE(DataError, std::isfinite(result),
             "[data] {}: a value must be a finite number but is '{}'", where,
             core::printable(written));
  return result;
}

/// Which column holds what; -1 = none.
struct Columns {
  int64_t path = -1, label = -1, mask = -1;
  std::vector<int64_t> values;
  size_t count = 0;

  Columns(const io::CsvRecord& header, const std::string& name) : count(header.fields.size()) {
    std::map<int64_t, int64_t> places;  // of valueN
    std::set<std::string> seen;
    for (size_t i = 0; i < count; ++i) {
      const std::string key = trimmed(header.fields[i]);
      const auto column = static_cast<int64_t>(i);
      VT_REQUIRE(DataError, key.empty() || seen.insert(key).second,
                 "[data] {}:{}: the column '{}' must be there once but is there twice", name,
                 header.line, core::printable(key));
      if (key == "path" || (key == "image" && path < 0)) path = column;
      if (key == "label") label = column;
      if (key == "mask") mask = column;
      if (const auto place = value_place(key)) {
        VT_REQUIRE(DataError, places.emplace(*place, column).second,
                   "[data] {}:{}: the columns value and value0 exclude each other", name,
                   header.line);
      }
    }
    VT_REQUIRE(DataError, path >= 0,
               "[data] {}:{}: the first row must name a column 'path' or 'image' but names '{}'",
               name, header.line,
               core::printable(fmt::format("{}", fmt::join(header.fields, ", "))));
    for (const auto& [place, column] : places) {
      VT_REQUIRE(DataError, place == static_cast<int64_t>(values.size()),
                 "[data] {}:{}: there must be a column value{} before value{}", name, header.line,
                 values.size(), place);
      values.push_back(column);
    }
  }
};

Entry entry_of(const io::CsvRecord& row, const Columns& columns, const std::string& name) {
  Entry entry;
  entry.where = fmt::format("{}:{}", name, row.line);
  VT_REQUIRE(DataError, row.fields.size() == columns.count,
             "[data] {}: must have {} columns as the first row but has {}", entry.where,
             columns.count, row.fields.size());
  const auto cell = [&](int64_t column) {
    return column < 0 ? std::string() : trimmed(row.fields[static_cast<size_t>(column)]);
  };
  entry.path = cell(columns.path);
  entry.mask = cell(columns.mask);
  if (std::string label = cell(columns.label); !label.empty()) entry.label = std::move(label);
  for (const int64_t column : columns.values) {
    const std::string text = cell(column);
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool fits = error == std::errc() && end == text.data() + text.size();
    VT_REQUIRE(DataError, fits, "[data] {}: a value must be a finite number but is '{}'",
               entry.where, core::printable(text));
    entry.values.push_back(finite(value, entry.where, text));
  }
  return entry;
}

Manifest parse_table(std::string_view text, const std::string& name, char separator) {
  ManifestBuilder builder(name);
  std::optional<Columns> columns;
  io::parse_csv_records(text, name, separator, [&](const io::CsvRecord& row) {
    if (columns) {
      builder.add(entry_of(row, *columns, name));
    } else {
      columns.emplace(row, name);
      builder.set_keys(core::printable(fmt::format("{}", fmt::join(row.fields, ", "))));
    }
  });
  return builder.finish();
}

/// The text of a key; "" if it is not there.
std::string text_of(const io::JsonRecord& record, const char* key, const std::string& where) {
  const io::JsonValue* value = record.find(key);
  if (value == nullptr) return "";
  VT_REQUIRE(DataError, value->kind == io::JsonValue::Kind::text,
             "[data] {}: '{}' must be a text but is something else", where, key);
  return trimmed(value->text);
}

std::optional<std::string> label_of(const io::JsonRecord& record, const std::string& where) {
  const io::JsonValue* value = record.find("label");
  if (value == nullptr) return std::nullopt;
  if (value->kind == io::JsonValue::Kind::integer) return std::to_string(value->integer);
  std::string text = text_of(record, "label", where);
  return text.empty() ? std::nullopt : std::optional(std::move(text));
}

std::vector<float> values_of(const io::JsonRecord& record, const std::string& where) {
  std::vector<float> values;
  if (const io::JsonValue* value = record.find("value")) {
    VT_REQUIRE(DataError, value->is_number() || value->kind == io::JsonValue::Kind::numbers,
               "[data] {}: 'value' must be a number or a list of numbers", where);
    if (value->is_number()) return {finite(value->number, where, "infinite")};
    for (const double number : value->numbers) values.push_back(finite(number, where, "infinite"));
    return values;
  }
  while (const io::JsonValue* value = record.find(fmt::format("value{}", values.size()))) {
    VT_REQUIRE(DataError, value->is_number(), "[data] {}: 'value{}' must be a number", where,
               values.size());
    values.push_back(finite(value->number, where, "infinite"));
  }
  return values;
}

void add_record(const io::JsonRecord& record, const std::string& where, ManifestBuilder& builder) {
  Entry entry;
  entry.where = where;
  entry.path = text_of(record, "path", where);
  if (entry.path.empty()) entry.path = text_of(record, "image", where);
  entry.mask = text_of(record, "mask", where);
  entry.label = label_of(record, where);
  entry.values = values_of(record, where);
  std::vector<std::string> keys;
  for (const auto& [key, ignored] : record.fields) keys.push_back(core::printable(key));
  builder.set_keys(core::printable(fmt::format("{}", fmt::join(keys, ", "))));
  builder.add(std::move(entry));
}

Manifest parse_list(std::string_view text, const std::string& name) {
  ManifestBuilder builder(name);
  io::parse_json_records(text, name, [&](const io::JsonRecord& record) {
    VT_REQUIRE(DataError, record.place >= 0 && record.list.empty(),
               "[data] {}: must be a list of objects, one an image, but is an object", name);
    add_record(record, fmt::format("{}: {}", name, record.where()), builder);
  });
  return builder.finish();
}

Manifest parse_lines(std::string_view text, const std::string& name) {
  ManifestBuilder builder(name);
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  for (int64_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}:{}", name, number);
    io::parse_json_records(line, where, [&](const io::JsonRecord& record) {
      if (record.place >= 0 && !record.list.empty()) return;  // a list of objects inside the entry
      VT_REQUIRE(DataError, record.place < 0, "[data] {}: a line must be an object but is a list",
                 where);
      add_record(record, where, builder);
    });
  }
  return builder.finish();
}

}  // namespace

Manifest parse_image_manifest(std::string_view text, const std::string& name) {
  const std::string extension = std::filesystem::path(name).extension().string();
  if (extension == ".json") return parse_list(text, name);
  if (extension == ".jsonl" || extension == ".ndjson") return parse_lines(text, name);
  return parse_table(text, name, extension == ".tsv" ? '\t' : ',');
}

}  // namespace vitrail::data

#include "vitrail/io/zarr_json.h"

#include <filesystem>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include "vitrail/core/text.h"

namespace vitrail::io {
namespace {

using core::DataError;

constexpr int kMaxDepth = 64;

/// A copy in which the numbers that Python writes and JSON does not know are null.
std::string plain_json(std::string_view text, const std::string& name) {
  std::string result;
  result.reserve(text.size());
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char letter = text[i];
    if (in_string) {
      result += letter;
      if (letter == '\\' && i + 1 < text.size()) result += text[++i];
      in_string = letter != '"';
      continue;
    }
    if (letter == '[' || letter == '{') {
      VT_REQUIRE(DataError, ++depth <= kMaxDepth, "[data] {}: JSON nested deeper than {}", name,
                 kMaxDepth);
    } else if (letter == ']' || letter == '}') {
      --depth;
    }
    bool is_number = false;
    for (const std::string_view number : {"NaN", "Infinity", "-Infinity"}) {
      if (text.substr(i, number.size()) != number) continue;
      result += "null";
      i += number.size() - 1;
      is_number = true;
      break;
    }
    if (is_number) continue;
    result += letter;
    in_string = letter == '"';
  }
  return result;
}

}  // namespace

Json parse_json(std::string_view text, const std::string& name) {
  VT_REQUIRE(DataError, text.size() <= kMaxMetadataBytes,
             "[data] {}: metadata of {} must not be above {}", name,
             core::format_bytes(static_cast<int64_t>(text.size())),
             core::format_bytes(kMaxMetadataBytes));
  Json json;
  try {
    json = Json::parse(plain_json(text, name));
  } catch (const Json::exception& error) {
    core::fail<DataError>("[data] {}: must be JSON but {}", name, core::printable(error.what()));
  }
  VT_REQUIRE(DataError, json.is_object(), "[data] {}: must be a JSON object but is {}", name,
             json.type_name());
  return json;
}

Json read_json(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return nullptr;
  return parse_json(core::read_file(path, kMaxMetadataBytes), path);
}

const Json& member_or_null(const Json& object, const char* key) {
  static const Json null;
  if (!object.is_object()) return null;
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}

const Json& member(const Json& object, const char* key, const std::string& name) {
  VT_REQUIRE(DataError, object.is_object() && object.contains(key), "[data] {}: must have '{}'",
             name, key);
  return object.find(key).value();
}

int64_t to_integer(const Json& value, const char* what, int64_t least, const std::string& name) {
  const bool fits = value.is_number_integer() &&
                    (!value.is_number_unsigned() || value.get<uint64_t>() <= INT64_MAX);
  VT_REQUIRE(DataError, fits && value.get<int64_t>() >= least,
             "[data] {}: {} must be a whole number from {} up but got {}", name, what, least,
             shown(value));
  return value.get<int64_t>();
}

std::vector<int64_t> to_integers(const Json& value, const char* what, int64_t least,
                                 const std::string& name) {
  VT_REQUIRE(DataError, value.is_array() && value.size() <= kMaxAxes,
             "[data] {}: {} must be a list of at most {} numbers but got {}", name, what, kMaxAxes,
             shown(value));
  std::vector<int64_t> result;
  for (const Json& item : value) result.push_back(to_integer(item, what, least, name));
  return result;
}

std::string to_text(const Json& value, const char* what, const std::string& name) {
  VT_REQUIRE(DataError, value.is_string(), "[data] {}: {} must be text but got {}", name, what,
             shown(value));
  return value.get<std::string>();
}

std::string shown(const Json& value) {
  if (value.is_structured() && value.size() > 100)
    return fmt::format("{} of {} items", value.type_name(), value.size());
  return core::printable(value.dump(-1, ' ', false, Json::error_handler_t::replace));
}

std::string axes_of_attributes(const Json& attributes) {
  std::vector<std::string> names;
  const Json& list = member_or_null(attributes, "_ARRAY_DIMENSIONS");
  if (!list.is_array()) return "";
  for (const Json& item : list) names.push_back(item.is_string() ? item.get<std::string>() : "");
  return axes_of_names(names);
}

}  // namespace vitrail::io

#pragma once
/// JSON documents that are lists of flat objects: manifests, annotations.
///
/// Errors   DataError naming the file, and the line or the list and place in it.
/// Memory   one record at a time, whatever the document's size; what lies deeper than a record's
///          own values (polygons, nested objects) is skipped and not kept.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace vitrail::io {

struct JsonValue {
  enum class Kind { null, boolean, integer, number, text, numbers, other };

  Kind kind = Kind::null;
  int64_t integer = 0;  // of integer and boolean
  double number = 0;    // of integer and number
  std::string text;
  std::vector<double> numbers;  // of a list of numbers

  bool is_number() const { return kind == Kind::integer || kind == Kind::number; }
};

/// One object, its values by key.
struct JsonRecord {
  std::string list;    // key in the outermost object of the list it is in; "" = the outermost list
  int64_t place = -1;  // in that list, from 0; -1 = this is the outermost object itself
  std::vector<std::pair<std::string, JsonValue>> fields;

  /// nullptr = no such key, or null.
  const JsonValue* find(std::string_view key) const;
  /// "annotations[12]", "[12]", or "" for the outermost object: where it is, for messages.
  std::string where() const;
};

struct JsonLimits {
  int64_t max_fields = 256;       // of a record
  int64_t max_numbers = 1 << 16;  // of one of its lists of numbers
};

/// Calls `take` for every object of the outermost list; or for every object in the lists that are
/// values of the outermost object, and at the end for that object itself.
void parse_json_records(std::string_view text, const std::string& name,
                        const std::function<void(const JsonRecord&)>& take,
                        const JsonLimits& limits = {});

}  // namespace vitrail::io

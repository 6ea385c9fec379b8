#pragma once
/// JSON as zarr and N5 use it, with errors that name file and key. Private to the parsers.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "vitrail/io/zarr_metadata.h"
#include <nlohmann/json.hpp>

namespace vitrail::io {

using Json = nlohmann::json;

/// The object in `text`. Python's NaN and Infinity outside of strings become null.
/// throws   DataError: no JSON object, over 16 MiB, nested over 64 deep.
/// Memory   at most about 40 times the text.
Json parse_json(std::string_view text, const std::string& name);

/// parse_json of a file; null if there is no such file.
Json read_json(const std::string& path);

/// The value of a key; throws if there is none.
const Json& member(const Json& object, const char* key, const std::string& name);
/// The value of a key, or null.
const Json& member_or_null(const Json& object, const char* key);

/// A whole number from `least` up. throws   DataError naming `what`.
int64_t to_integer(const Json& value, const char* what, int64_t least, const std::string& name);
/// At most kMaxAxes of them.
std::vector<int64_t> to_integers(const Json& value, const char* what, int64_t least,
                                 const std::string& name);
std::string to_text(const Json& value, const char* what, const std::string& name);
/// The JSON of a value, short enough for a message.
std::string shown(const Json& value);

/// The bytes of a fill value of `dtype`: a number, true or false, "NaN", "Infinity", "-Infinity",
/// "0x..." (the bits of a float), or null for zero.
std::array<std::byte, 8> parse_fill(const Json& value, core::DType dtype, const std::string& name);

/// Axis names of `_ARRAY_DIMENSIONS` in an array's attributes; "" if there are none.
std::string axes_of_attributes(const Json& attributes);

}  // namespace vitrail::io

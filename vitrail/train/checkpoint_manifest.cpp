#include "vitrail/train/checkpoint_manifest.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/core/checksum.h"
#include "vitrail/train/checkpoint_files.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {

namespace {

using core::CheckpointError;
using core::fail;
using nlohmann::json;

constexpr int kMaxDepth = 8;  // the format needs 5
constexpr size_t kMaxNameBytes = 4096;
constexpr int64_t kMaxRank = 16;          // dimensions of a tensor
constexpr int64_t kMaxBytes = 1ll << 60;  // of one tensor or file: sums of a few never overflow
constexpr std::string_view kTailStart = "\"manifest_crc32c\": \"";
constexpr std::string_view kTailEnd = "\"\n}\n";
constexpr size_t kTailBytes = kTailStart.size() + 8 + kTailEnd.size();

std::string tail(std::string_view body) {
  return fmt::format("{}{:08x}{}", kTailStart, core::crc32c(body.data(), body.size()), kTailEnd);
}

bool has_control_characters(const std::string& name) {
  return std::any_of(name.begin(), name.end(),
                     [](unsigned char c) { return c < 0x20 || c == 0x7F; });
}

/// A name from the file, fit for a terminal.
std::string printable(std::string name) {
  name.resize(std::min(name.size(), size_t{200}));
  for (char& c : name)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  return name;
}

/// Fields of one JSON object; messages name the object and the key.
class Fields {
 public:
  Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {
    VT_REQUIRE(CheckpointError, object.is_object(), "[checkpoint] {} must be an object but got {}",
               where_, object.type_name());
  }
  const json& at(const char* key) const {
    const auto found = object_.find(key);
    VT_REQUIRE(CheckpointError, found != object_.end(), "[checkpoint] {}: '{}' is missing", where_,
               key);
    return *found;
  }
  int64_t integer(const char* key, int64_t low, int64_t high) const {
    return to_integer(at(key), key, low, high);
  }
  int64_t to_integer(const json& value, const char* key, int64_t low, int64_t high) const {
    const bool fits = value.is_number_unsigned()
                          ? value.get<uint64_t>() <= static_cast<uint64_t>(high)
                          : value.is_number_integer() && value.get<int64_t>() <= high;
    VT_REQUIRE(CheckpointError, fits && value.get<int64_t>() >= low,
               "[checkpoint] {}: '{}' must be an integer from {} to {} but got {}", where_, key,
               low, high, value.dump().substr(0, 40));
    return value.get<int64_t>();
  }
  std::string text(const char* key) const {
    const json& value = at(key);
    VT_REQUIRE(CheckpointError, value.is_string(),
               "[checkpoint] {}: '{}' must be a string but got {}", where_, key, value.type_name());
    return value.get<std::string>();
  }
  uint32_t checksum(const char* key) const {
    const std::string hex = text(key);
    const bool good =
        hex.size() == 8 && hex.find_first_not_of("0123456789abcdef") == std::string::npos;
    VT_REQUIRE(CheckpointError, good,
               "[checkpoint] {}: '{}' must be 8 hexadecimal digits but got '{}'", where_, key,
               printable(hex));
    return static_cast<uint32_t>(std::stoul(hex, nullptr, 16));
  }

 private:
  const json& object_;
  std::string where_;
};

/// A parse that refuses deep nesting and repeated keys, both of which json accepts silently.
json parse_strict(const std::string& text, const std::string& where) {
  std::vector<std::set<std::string>> keys;
  const auto check = [&](int depth, json::parse_event_t event, json& parsed) {
    VT_REQUIRE(CheckpointError, depth <= kMaxDepth, "[checkpoint] {}: nested deeper than {} levels",
               where, kMaxDepth);
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key)
      VT_REQUIRE(CheckpointError, keys.back().insert(parsed.get_ref<const std::string&>()).second,
                 "[checkpoint] {}: '{}' appears twice", where,
                 printable(parsed.get_ref<const std::string&>()));
    return true;
  };
  try {
    return json::parse(text, check);
  } catch (const json::exception& error) {
    fail<CheckpointError>("[checkpoint] {}: not valid JSON: {}", where, error.what());
  }
}

/// Product of the dimensions; throws when an element count or its bytes overflow.
int64_t checked_count(const std::vector<int64_t>& shape, core::DType dtype,
                      const std::string& where) {
  int64_t count = 1;
  for (const int64_t extent : shape) {
    const bool good = extent >= 0 && !__builtin_mul_overflow(count, extent, &count) &&
                      count <= kMaxBytes / core::size_bytes(dtype);
    VT_REQUIRE(CheckpointError, good, "[checkpoint] {}: shape {} is negative or too large", where,
               shape_text(shape));
  }
  return count;
}

bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name.size() <= 255 && name.front() != '.' && name != kManifestName &&
         name.find('/') == std::string::npos && name.find('\\') == std::string::npos &&
         !has_control_characters(name);
}

Region parse_region(const json& value, const std::string& where) {
  const Fields fields(value, where);
  return Region{.file = fields.text("file"),
                .offset = fields.integer("offset", 0, kMaxBytes),
                .bytes = fields.integer("bytes", 0, kMaxBytes),
                .start = fields.integer("start", 0, kMaxBytes),
                .count = fields.integer("count", 1, kMaxBytes),
                .crc32c = fields.checksum("crc32c")};
}

TensorEntry parse_tensor(const json& value, const std::string& where) {
  const Fields fields(value, where);
  TensorEntry entry;
  entry.dtype = dtype_named(fields.text("dtype"), where);
  const json& shape = fields.at("shape");
  VT_REQUIRE(CheckpointError, shape.is_array() && static_cast<int64_t>(shape.size()) <= kMaxRank,
             "[checkpoint] {}: 'shape' must be a list of at most {} integers", where, kMaxRank);
  for (const json& extent : shape)
    entry.shape.push_back(fields.to_integer(extent, "shape", 0, kMaxBytes));
  const json& regions = fields.at("regions");
  VT_REQUIRE(CheckpointError, regions.is_array(), "[checkpoint] {}: 'regions' must be a list",
             where);
  entry.regions.reserve(regions.size());
  for (const json& region : regions) entry.regions.push_back(parse_region(region, where));
  return entry;
}

/// Regions follow one another and end with the tensor.
void check_regions(const TensorEntry& entry, const Manifest& manifest, const std::string& where) {
  const int64_t count = checked_count(entry.shape, entry.dtype, where);
  int64_t next = 0;
  for (const Region& region : entry.regions) {
    VT_REQUIRE(CheckpointError, region.start == next,
               "[checkpoint] {}: regions must follow one another but one starts at element {} "
               "where {} was expected ({})",
               where, region.start, next, region.start > next ? "a hole" : "an overlap");
    VT_REQUIRE(CheckpointError, region.count >= 1 && region.count <= count - next,
               "[checkpoint] {}: a region ends past the tensor's {} elements", where, count);
    VT_REQUIRE(CheckpointError, region.bytes == region.count * core::size_bytes(entry.dtype),
               "[checkpoint] {}: a region of {} elements of {} must have {} bytes but got {}",
               where, region.count, core::name(entry.dtype),
               region.count * core::size_bytes(entry.dtype), region.bytes);
    VT_REQUIRE(CheckpointError, manifest.files.contains(region.file),
               "[checkpoint] {}: unknown file '{}'", where, printable(region.file));
    next += region.count;
  }
  VT_REQUIRE(CheckpointError, next == count,
             "[checkpoint] {}: regions hold {} of the tensor's {} elements", where, next, count);
}

/// Every byte of a file is its header or belongs to one region: so the checksums cover all of it.
void check_files(const Manifest& manifest, const std::string& where) {
  std::map<std::string, std::vector<std::pair<int64_t, int64_t>>> spans;
  for (const auto& [name, entry] : manifest.tensors)
    for (const Region& region : entry.regions)
      spans[region.file].emplace_back(region.offset, region.offset + region.bytes);
  for (const auto& [name, file] : manifest.files) {
    VT_REQUIRE(CheckpointError, is_plain_file_name(name),
               "[checkpoint] {}: '{}' is not a plain file name", where, printable(name));
    auto& ranges = spans[name];
    std::sort(ranges.begin(), ranges.end());
    int64_t next = file.header_bytes;
    for (const auto& [begin, end] : ranges) {
      VT_REQUIRE(CheckpointError, begin == next,
                 "[checkpoint] {}: in file {} bytes must follow one another but a region starts at "
                 "{} where {} was "
                 "expected",
                 where, name, begin, next);
      next = end;
    }
    VT_REQUIRE(CheckpointError, next == file.bytes,
               "[checkpoint] {}: file {} has {} bytes but its regions end at {}", where, name,
               file.bytes, next);
  }
}

json info_json(const CheckpointInfo& info) {
  return json{{"step", info.step},
              {"update_count", info.update_count},
              {"skipped_updates", info.skipped_updates},
              {"epoch", info.loader.epoch},
              {"batch", info.loader.batch},
              {"seed", info.seed},
              {"wall_seconds", info.wall_seconds},
              {"mesh", info.mesh},
              {"recipe", info.recipe},
              {"program", info.program},
              {"created_utc", info.created_utc}};
}

CheckpointInfo parse_info(const Fields& fields, const std::string& where) {
  constexpr int64_t kMax = INT64_MAX;
  CheckpointInfo info;
  info.step = fields.integer("step", 0, kMax);
  info.update_count = fields.integer("update_count", 0, kMax);
  info.skipped_updates = fields.integer("skipped_updates", 0, kMax);
  info.loader = {fields.integer("epoch", 0, kMax), fields.integer("batch", 0, kMax)};
  const json& seed = fields.at("seed");
  VT_REQUIRE(CheckpointError, seed.is_number_unsigned(),
             "[checkpoint] {}: 'seed' must be an integer >= 0", where);
  info.seed = seed.get<uint64_t>();
  const json& seconds = fields.at("wall_seconds");
  VT_REQUIRE(CheckpointError, seconds.is_number(),
             "[checkpoint] {}: 'wall_seconds' must be a number", where);
  info.wall_seconds = seconds.get<double>();
  info.mesh = fields.text("mesh");
  info.recipe = fields.text("recipe");
  info.program = fields.text("program");
  info.created_utc = fields.text("created_utc");
  return info;
}

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

template <class Map, class F>
void append_map(std::string& text, const char* key, const Map& map, F&& entry_json) {
  text += fmt::format("\"{}\": {{", key);
  const char* separator = "\n";
  for (const auto& [name, entry] : map) {
    text += fmt::format("{}{}: {}", separator, dump(name), dump(entry_json(entry)));
    separator = ",\n";
  }
  text += "\n},\n";
}

json tensor_json(const TensorEntry& entry) {
  json regions = json::array();
  for (const Region& region : entry.regions)
    regions.push_back({{"file", region.file},
                       {"offset", region.offset},
                       {"bytes", region.bytes},
                       {"start", region.start},
                       {"count", region.count},
                       {"crc32c", fmt::format("{:08x}", region.crc32c)}});
  return {
      {"dtype", core::name(entry.dtype)}, {"shape", entry.shape}, {"regions", std::move(regions)}};
}

json file_json(const FileEntry& file) {
  return {{"bytes", file.bytes},
          {"header_bytes", file.header_bytes},
          {"header_crc32c", fmt::format("{:08x}", file.header_crc32c)}};
}

}  // namespace

int64_t TensorEntry::count() const {
  int64_t product = 1;
  for (const int64_t extent : shape) product *= extent;
  return product;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

core::DType dtype_named(const std::string& text, const std::string& where) {
  for (int i = 0; i <= static_cast<int>(core::DType::boolean); ++i)
    if (core::name(static_cast<core::DType>(i)) == text) return static_cast<core::DType>(i);
  fail<CheckpointError>("[checkpoint] {}: unknown dtype '{}'", where, printable(text));
}

std::string to_text(const Manifest& manifest) {
  std::string text = fmt::format("{{\n\"format_version\": {},\n", kCheckpointFormat);
  const json info = info_json(manifest.info);
  for (const auto& [key, value] : info.items())
    text += fmt::format("\"{}\": {},\n", key, dump(value));
  append_map(text, "files", manifest.files, file_json);
  append_map(text, "tensors", manifest.tensors, tensor_json);
  return text + tail(text);
}

void check_manifest(const Manifest& manifest, const std::string& where) {
  VT_REQUIRE(CheckpointError, manifest.info.step >= 0 && std::isfinite(manifest.info.wall_seconds),
             "[checkpoint] {}: step and wall_seconds must be finite numbers >= 0 but got {} and {}",
             where, manifest.info.step, manifest.info.wall_seconds);
  for (const auto& [name, entry] : manifest.tensors) {
    VT_REQUIRE(CheckpointError,
               !name.empty() && name.size() <= kMaxNameBytes && !has_control_characters(name),
               "[checkpoint] {}: a tensor's name must have 1 to {} printable bytes but got '{}'",
               where, kMaxNameBytes, printable(name));
    check_regions(entry, manifest, where + ": tensor " + printable(name));
  }
  check_files(manifest, where);
}

Manifest parse_manifest(const std::string& text, const std::string& where) {
  const auto size = text.size();
  VT_REQUIRE(CheckpointError, static_cast<int64_t>(size) <= kMaxManifestBytes,
             "[checkpoint] {}: {} bytes are more than the limit of {}", where, size,
             kMaxManifestBytes);
  const std::string_view body(text.data(), size - std::min(size, kTailBytes));
  VT_REQUIRE(
      CheckpointError,
      size > kTailBytes && std::string_view(text).substr(body.size()) == tail(body),
      "[checkpoint] {}: does not match the checksum on its last line: cut short, damaged or edited",
      where);
  const json root = parse_strict(text, where);
  const Fields fields(root, where);
  const int64_t version = fields.integer("format_version", 1, INT32_MAX);
  VT_REQUIRE(
      CheckpointError, version == kCheckpointFormat,
      "[checkpoint] {}: format version must be {} but got {}; it was written by a newer vitrail",
      where, kCheckpointFormat, version);
  Manifest manifest;
  manifest.info = parse_info(fields, where);
  const json& files = fields.at("files");
  const json& tensors = fields.at("tensors");
  VT_REQUIRE(CheckpointError, files.is_object() && tensors.is_object(),
             "[checkpoint] {}: 'files' and 'tensors' must be objects", where);
  for (const auto& [name, value] : files.items()) {
    const Fields file(value, where + ": file " + printable(name));
    manifest.files[name] = {file.integer("bytes", 0, kMaxBytes),
                            file.integer("header_bytes", 8, kMaxBytes),
                            file.checksum("header_crc32c")};
  }
  for (const auto& [name, value] : tensors.items())
    manifest.tensors[name] = parse_tensor(value, where + ": tensor " + printable(name));
  check_manifest(manifest, where);
  return manifest;
}

}  // namespace vitrail::train

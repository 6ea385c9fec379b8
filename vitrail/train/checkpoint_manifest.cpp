#include "vitrail/train/checkpoint_manifest.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/core/checksum.h"
#include "vitrail/core/error.h"
#include "vitrail/parallel/box_range.h"
#include "vitrail/train/checkpoint_coverage.h"
#include "vitrail/train/checkpoint_files.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {

namespace {

using core::CheckpointError;
using core::fail;
using nlohmann::json;
using parallel::Box;

constexpr int kMaxDepth = 8;  // the format needs 5
constexpr size_t kMaxNameBytes = 4096;
constexpr int64_t kMaxRank = 16;  // dimensions of a tensor
constexpr std::string_view kTailStart = "\"manifest_crc32c\": \"";
constexpr std::string_view kTailEnd = "\"\n}\n";
constexpr size_t kTailBytes = kTailStart.size() + 8 + kTailEnd.size();

std::string tail(std::string_view body) {
  return fmt::format("{}{:08x}{}", kTailStart, core::crc32c(body.data(), body.size()), kTailEnd);
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
    const std::vector<uint32_t> found = checksums(at(key), key);
    VT_REQUIRE(CheckpointError, found.size() == 1,
               "[checkpoint] {}: '{}' must be 8 hexadecimal digits but has {}", where_, key,
               8 * found.size());
    return found[0];
  }
  /// 8 hexadecimal digits each, one after another.
  std::vector<uint32_t> checksums(const json& value, const char* key) const {
    VT_REQUIRE(CheckpointError, value.is_string(),
               "[checkpoint] {}: '{}' must be a string but got {}", where_, key, value.type_name());
    const auto& hex = value.get_ref<const std::string&>();
    const bool good = !hex.empty() && hex.size() % 8 == 0 &&
                      hex.find_first_not_of("0123456789abcdef") == std::string::npos;
    VT_REQUIRE(CheckpointError, good,
               "[checkpoint] {}: '{}' must be 8 hexadecimal digits a checksum but got '{}'", where_,
               key, printable(hex));
    std::vector<uint32_t> found(hex.size() / 8);
    for (size_t i = 0; i < found.size(); ++i)
      std::from_chars(hex.data() + 8 * i, hex.data() + 8 * i + 8, found[i], 16);
    return found;
  }
  std::vector<int64_t> integers(const json& value, const char* key) const {
    VT_REQUIRE(CheckpointError, value.is_array() && static_cast<int64_t>(value.size()) <= kMaxRank,
               "[checkpoint] {}: '{}' must be a list of at most {} integers", where_, key,
               kMaxRank);
    std::vector<int64_t> found;
    for (const json& one : value) found.push_back(to_integer(one, key, 0, kMaxTensorBytes));
    return found;
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

/// {"file", "offset", "bytes", "start", "count", "crc32c"}: a run of the whole tensor with one checksum.
Region parse_region_1(const json& value, const std::string& where) {
  const Fields fields(value, where);
  return Region{.file = fields.text("file"),
                .offset = fields.integer("offset", 0, kMaxTensorBytes),
                .bytes = fields.integer("bytes", 0, kMaxTensorBytes),
                .start = fields.integer("start", 0, kMaxTensorBytes),
                .count = fields.integer("count", 1, kMaxTensorBytes),
                .crc32c = {fields.checksum("crc32c")}};
}

/// [file, offset, box, start, count, checksums].
Region parse_region_2(const json& value, const Fields& tensor, const TensorEntry& entry,
                      const std::vector<std::string>& files, const std::string& where) {
  VT_REQUIRE(CheckpointError, value.is_array() && value.size() == 6,
             "[checkpoint] {}: a region must be a list [file, offset, box, start, count, crc32c]",
             where);
  const auto place = [&](size_t index, const char* key, int64_t low, int64_t high) {
    return tensor.to_integer(value[index], key, low, high);
  };
  Region region;
  region.file =
      files[static_cast<size_t>(place(0, "file", 0, static_cast<int64_t>(files.size()) - 1))];
  region.offset = place(1, "offset", 0, kMaxTensorBytes);
  region.box =
      static_cast<int32_t>(place(2, "box", 0, static_cast<int64_t>(entry.boxes.size()) - 1));
  region.start = place(3, "start", 0, kMaxTensorBytes);
  region.count = place(4, "count", 1, kMaxTensorBytes / core::size_bytes(entry.dtype));
  region.bytes = region.count * core::size_bytes(entry.dtype);
  region.crc32c = tensor.checksums(value[5], "crc32c");
  const int64_t blocks = (region.bytes + kBlockBytes - 1) / kBlockBytes;
  VT_REQUIRE(CheckpointError, static_cast<int64_t>(region.crc32c.size()) == blocks,
             "[checkpoint] {}: a region of {} bytes must have {} checksums but has {}", where,
             region.bytes, blocks, region.crc32c.size());
  return region;
}

/// Pairs [start, shape]; without them the tensor is one box.
std::vector<Box> parse_boxes(const json& tensor, const Fields& fields, const TensorEntry& entry,
                             const std::string& where) {
  const auto found = tensor.find("boxes");
  if (found == tensor.end()) return {parallel::whole_box(entry.shape)};
  VT_REQUIRE(CheckpointError, found->is_array() && found->size() <= kMaxBoxes,
             "[checkpoint] {}: 'boxes' must be a list of at most {} boxes", where, kMaxBoxes);
  std::vector<Box> boxes;
  for (const json& box : *found) {
    VT_REQUIRE(CheckpointError, box.is_array() && box.size() == 2,
               "[checkpoint] {}: a box must be a list [start, shape]", where);
    boxes.push_back({fields.integers(box[0], "boxes"), fields.integers(box[1], "boxes")});
  }
  return boxes;
}

TensorEntry parse_tensor(const json& value, int64_t version, const std::vector<std::string>& files,
                         const std::string& where) {
  const Fields fields(value, where);
  TensorEntry entry;
  entry.dtype = dtype_named(fields.text("dtype"), where);
  entry.shape = fields.integers(fields.at("shape"), "shape");
  entry.boxes = version == 1 ? std::vector<Box>{parallel::whole_box(entry.shape)}
                             : parse_boxes(value, fields, entry, where);
  const json& regions = fields.at("regions");
  VT_REQUIRE(CheckpointError, regions.is_array(), "[checkpoint] {}: 'regions' must be a list",
             where);
  entry.regions.reserve(regions.size());
  for (const json& region : regions)
    entry.regions.push_back(version == 1 ? parse_region_1(region, where)
                                         : parse_region_2(region, fields, entry, files, where));
  return entry;
}

json loss_scale_json(const kernels::LossScaleState& state) {
  return {{"scale", state.scale},
          {"hysteresis", state.hysteresis},
          {"last_overflow", state.last_overflow},
          {"iteration", state.iteration}};
}

std::optional<kernels::LossScaleState> parse_loss_scale(const json& info,
                                                        const std::string& where) {
  const auto found = info.find("loss_scale");
  if (found == info.end()) return {};
  const Fields fields(*found, where);
  const json& scale = fields.at("scale");
  VT_REQUIRE(CheckpointError, scale.is_number() && scale.get<double>() > 0,
             "[checkpoint] {}: 'scale' of 'loss_scale' must be a number above 0", where);
  constexpr int64_t kMax = INT64_MAX;
  return kernels::LossScaleState{.scale = scale.get<double>(),
                                 .hysteresis = fields.integer("hysteresis", 1, kMax),
                                 .last_overflow = fields.integer("last_overflow", -1, kMax),
                                 .iteration = fields.integer("iteration", 0, kMax)};
}

json info_json(const CheckpointInfo& info) {
  json text{{"step", info.step},
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
  if (info.loss_scale) text["loss_scale"] = loss_scale_json(*info.loss_scale);
  return text;
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

std::string hex(const std::vector<uint32_t>& checksums) {
  std::string text;
  for (const uint32_t one : checksums) text += fmt::format("{:08x}", one);
  return text;
}

json tensor_json(const TensorEntry& entry, const std::map<std::string, int64_t>& files) {
  json regions = json::array();
  for (const Region& region : entry.regions)
    regions.push_back({files.at(region.file), region.offset, region.box, region.start, region.count,
                       hex(region.crc32c)});
  json text = {
      {"dtype", core::name(entry.dtype)}, {"shape", entry.shape}, {"regions", std::move(regions)}};
  if (entry.boxes.size() == 1 && parallel::is_whole(entry.boxes[0], entry.shape)) return text;
  json boxes = json::array();
  for (const Box& box : entry.boxes) boxes.push_back({box.start, box.shape});
  text["boxes"] = std::move(boxes);
  return text;
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

std::vector<uint32_t> block_checksums(const void* data, int64_t bytes) {
  std::vector<uint32_t> checksums;
  for (int64_t done = 0; done < bytes; done += kBlockBytes)
    checksums.push_back(core::crc32c(static_cast<const char*>(data) + done,
                                     static_cast<size_t>(std::min(kBlockBytes, bytes - done))));
  return checksums;
}

void add_region(Manifest& manifest, const std::string& tensor, core::DType dtype,
                const std::vector<int64_t>& shape, const Box& box, Region region) {
  const auto [found, is_new] =
      manifest.tensors.try_emplace(tensor, TensorEntry{dtype, shape, {}, {}});
  TensorEntry& entry = found->second;
  VT_REQUIRE(CheckpointError, entry.dtype == dtype && entry.shape == shape,
             "[checkpoint] tensor {} must be the same on every rank but is {} {} and {} {}", tensor,
             core::name(entry.dtype), shape_text(entry.shape), core::name(dtype),
             shape_text(shape));
  const auto same = [&](const Box& one) {
    return one.start == box.start && one.shape == box.shape;
  };
  const auto place = std::find_if(entry.boxes.begin(), entry.boxes.end(), same);
  region.box = static_cast<int32_t>(place - entry.boxes.begin());
  if (place == entry.boxes.end()) entry.boxes.push_back(box);
  entry.regions.push_back(std::move(region));
}

void sort_regions(Manifest& manifest) {
  for (auto& [name, entry] : manifest.tensors)
    std::sort(entry.regions.begin(), entry.regions.end(), [](const Region& a, const Region& b) {
      return std::pair(a.box, a.start) < std::pair(b.box, b.start);
    });
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
  std::map<std::string, int64_t> files;
  for (const auto& [name, file] : manifest.files)
    files.emplace(name, static_cast<int64_t>(files.size()));
  append_map(text, "tensors", manifest.tensors,
             [&](const TensorEntry& entry) { return tensor_json(entry, files); });
  VT_REQUIRE(CheckpointError, static_cast<int64_t>(text.size() + kTailBytes) <= kMaxManifestBytes,
             "[checkpoint] {}: {} bytes are more than the limit of {}; fewer ranks must share what "
             "a strategy divides",
             kManifestName, text.size(), kMaxManifestBytes);
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
      CheckpointError, version <= kCheckpointFormat,
      "[checkpoint] {}: format version must be at most {} but got {}; it was written by a newer "
      "vitrail",
      where, kCheckpointFormat, version);
  Manifest manifest;
  manifest.info = parse_info(fields, where);
  manifest.info.loss_scale = parse_loss_scale(root, where);
  const json& files = fields.at("files");
  const json& tensors = fields.at("tensors");
  VT_REQUIRE(CheckpointError, files.is_object() && tensors.is_object(),
             "[checkpoint] {}: 'files' and 'tensors' must be objects", where);
  std::vector<std::string> file_names;  // as numbered by regions: sorted
  for (const auto& [name, value] : files.items()) {
    file_names.push_back(name);
    const Fields file(value, where + ": file " + printable(name));
    manifest.files[name] = {file.integer("bytes", 0, kMaxTensorBytes),
                            file.integer("header_bytes", 8, kMaxTensorBytes),
                            file.checksum("header_crc32c")};
  }
  for (const auto& [name, value] : tensors.items())
    manifest.tensors[name] =
        parse_tensor(value, version, file_names, where + ": tensor " + printable(name));
  check_manifest(manifest, where);
  return manifest;
}

}  // namespace vitrail::train

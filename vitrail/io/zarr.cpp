#include "vitrail/io/zarr.h"

#include <filesystem>
#include <optional>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include "vitrail/io/zarr_json.h"

namespace vitrail::io {
namespace {

using core::DataError;

bool exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

std::optional<ZarrMeta> read_zarr_array(const std::string& folder) {
  const std::string v3 = folder + "/zarr.json", v2 = folder + "/.zarray";
  if (exists(v3)) {
    const std::string text = core::read_file(v3, kMaxMetadataBytes);
    const Json json = parse_json(text, v3);
    if (member_or_null(json, "node_type") != "array") return std::nullopt;
    return parse_zarr_v3(text, v3);
  }
  if (!exists(v2)) return std::nullopt;
  ZarrMeta meta = parse_zarr_v2(core::read_file(v2, kMaxMetadataBytes), v2);
  meta.axes = axes_of_attributes(read_json(folder + "/.zattrs"));
  if (meta.axes.size() != meta.shape.size()) meta.axes.clear();
  return meta;
}

/// Attributes of a group: OME-NGFF 0.5 puts its own below "ome".
Json read_attributes(const std::string& folder) {
  const Json v3 = read_json(folder + "/zarr.json");
  const Json& attributes = member_or_null(v3, "attributes");
  if (const Json& ome = member_or_null(attributes, "ome"); ome.is_object()) return ome;
  if (attributes.is_object()) return attributes;
  return read_json(folder + "/.zattrs");
}

/// Since 0.4 objects with a name, in 0.3 only names.
std::string parse_axes(const Json& list) {
  std::vector<std::string> names;
  if (!list.is_array()) return "";
  for (const Json& axis : list) {
    const Json& name = axis.is_object() ? member_or_null(axis, "name") : axis;
    names.push_back(name.is_string() ? name.get<std::string>() : "");
  }
  return axes_of_names(names);
}

std::optional<Multiscales> read_zarr_multiscales(const std::string& folder) {
  const Json attributes = read_attributes(folder);
  const Json& list = member_or_null(attributes, "multiscales");
  if (!list.is_array() || list.empty()) return std::nullopt;
  const Json& datasets = member_or_null(list[0], "datasets");
  if (!datasets.is_array()) return std::nullopt;
  Multiscales scales;
  for (const Json& dataset : datasets) {
    const Json& path = member_or_null(dataset, "path");
    VT_REQUIRE(
        DataError, path.is_string() && path.get<std::string>().find("..") == std::string::npos,
        "[data] {}: the path of a scale must be text without .. but is {}", folder, shown(path));
    scales.paths.push_back(path.get<std::string>());
  }
  scales.axes = parse_axes(member_or_null(list[0], "axes"));
  return scales;
}

const ContainerFormat kFormat{
    "zarr", {"zarr.json", ".zarray"}, &read_zarr_array, &read_zarr_multiscales};

}  // namespace

std::unique_ptr<ArrayFile> open_zarr(const std::string& path, const std::string& array,
                                     std::shared_ptr<ChunkCache> cache) {
  return open_array(kFormat, path, array, std::move(cache));
}

std::vector<ArrayEntry> list_zarr(const std::string& path) { return list_arrays(kFormat, path); }

bool is_zarr(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path folder = path;
  if (!fs::is_directory(folder, error)) return false;
  const fs::path name = folder.has_filename() ? folder : folder.parent_path();
  if (name.extension() == ".zarr") return true;
  for (const char* file : {"zarr.json", ".zarray", ".zgroup"})
    if (fs::exists(folder / file, error)) return true;
  return false;
}

}  // namespace vitrail::io

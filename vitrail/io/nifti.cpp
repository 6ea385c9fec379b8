#include "vitrail/io/nifti.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <system_error>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include "vitrail/core/mapped_file.h"
#include "vitrail/io/nifti_bytes.h"

namespace vitrail::io {
namespace {

/// Offsets of the fields that we read; the two versions hold them in other places and widths.
struct Layout {
  size_t bytes, dim, datatype, pixdim, offset, slope, intercept, units, qform_code, sform_code,
      quaternion, quaternion_offset, sform;
};
constexpr Layout kNifti1{kNifti1Bytes, 40, 70, 76, 108, 112, 116, 123, 252, 254, 256, 268, 280};
constexpr Layout kNifti2{kNifti2Bytes, 16, 12, 104, 168, 176, 184, 500, 344, 348, 352, 376, 400};

int64_t bytes_of(int16_t datatype) {
  switch (datatype) {
    case 2:    // uint8
    case 256:  // int8
      return 1;
    case 4:    // int16
    case 512:  // uint16
      return 2;
    case 8:    // int32
    case 16:   // float32
    case 768:  // uint32
      return 4;
    case 64:    // float64
    case 1024:  // int64
    case 1280:  // uint64
      return 8;
    default:
      return 0;
  }
}

class HeaderParser {
 public:
  HeaderParser(std::span<const std::byte> bytes, const std::string& name, const NiftiLimits& limits)
      : bytes_(bytes), name_(name), limits_(limits) {
    find_version();
  }

  NiftiHeader parse() {
    header_.version = is_second_ ? 2 : 1;
    header_.is_big_endian = is_swapped_;
    header_.datatype = at<int16_t>(layout_.datatype);
    VT_REQUIRE(
        DataError, bytes_of(header_.datatype) > 0,
        "[data] {}: NIfTI data must be integers of 8 to 64 bits or floats of 32 or 64 bits but "
        "the file has datatype {}",
        name_, header_.datatype);
    parse_sides();
    parse_scale();
    parse_offset();
    parse_geometry();
    return header_;
  }

 private:
  void find_version() {
    VT_REQUIRE(DataError, bytes_.size() >= kNifti1Bytes,
               "[data] {}: broken NIfTI: a header has {} bytes but the file has {}", name_,
               kNifti1Bytes, bytes_.size());
    const auto native = load_value<int32_t>(bytes_.data(), false);
    const auto swapped = load_value<int32_t>(bytes_.data(), true);
    is_swapped_ = swapped == int32_t{kNifti1Bytes} || swapped == int32_t{kNifti2Bytes};
    const int32_t size = is_swapped_ ? swapped : native;
    VT_REQUIRE(DataError, size == int32_t{kNifti1Bytes} || size == int32_t{kNifti2Bytes},
               "[data] {}: must be a NIfTI file but starts with other bytes", name_);
    is_second_ = size == int32_t{kNifti2Bytes};
    layout_ = is_second_ ? kNifti2 : kNifti1;
    VT_REQUIRE(DataError, bytes_.size() >= layout_.bytes,
               "[data] {}: broken NIfTI: the file ends within its header", name_);
    const auto* magic = reinterpret_cast<const char*>(bytes_.data()) + (is_second_ ? 4 : 344);
    const bool is_nifti = magic[0] == 'n' && (magic[1] == '+' || magic[1] == 'i') &&
                          magic[2] == (is_second_ ? '2' : '1');
    VT_REQUIRE(
        DataError, is_nifti,
        "[data] {}: must be a NIfTI file (magic n+1, n+2, ni1 or ni2); ANALYZE files are not "
        "read",
        name_);
    header_.is_pair = magic[1] == 'i';
  }

  void parse_sides() {
    const int64_t axes = dim(0);
    VT_REQUIRE(DataError, axes >= 1 && axes <= 7,
               "[data] {}: broken NIfTI: the number of axes must be 1 to 7 but is {}", name_, axes);
    header_.sides.assign(3, 1);
    int64_t values = 1;
    for (int64_t axis = 1; axis <= axes; ++axis) {
      const int64_t size = dim(axis);
      const bool fits = size >= 1 && size <= limits_.max_values / values;
      VT_REQUIRE(
          DataError, fits,
          "[data] {}: NIfTI axes must be at least 1 with at most {} values in all but axis {} "
          "is {}",
          name_, limits_.max_values, axis, size);
      values *= size;
      if (axis <= 3)
        header_.sides[static_cast<size_t>(3 - axis)] = size;
      else
        header_.channels *= size;
    }
  }

  void parse_scale() {
    const double slope = real(layout_.slope, 0), intercept = real(layout_.intercept, 0);
    if (slope == 0 || !std::isfinite(slope)) return;  // the format's way to say: not scaled
    VT_REQUIRE(DataError, std::isfinite(intercept),
               "[data] {}: broken NIfTI: scl_inter must be finite but is {}", name_, intercept);
    header_.slope = slope;
    header_.intercept = intercept;
  }

  void parse_offset() {
    const double offset = is_second_ ? static_cast<double>(at<int64_t>(layout_.offset))
                                     : static_cast<double>(at<float>(layout_.offset));
    const auto least = header_.is_pair ? 0.0 : static_cast<double>(layout_.bytes);
    const auto most = static_cast<double>(limits_.max_file_bytes);
    VT_REQUIRE(DataError, offset == 0 || (offset >= least && offset <= most),
               "[data] {}: broken NIfTI: vox_offset must be {} to {} but is {}", name_, least, most,
               offset);
    const size_t behind_header = header_.is_pair ? 0 : layout_.bytes + 4;
    header_.data_offset =
        offset == 0 ? static_cast<int64_t>(behind_header) : static_cast<int64_t>(offset);
  }

  void parse_geometry() {
    NiftiGeometry& g = header_.geometry;
    for (size_t axis = 0; axis < 3; ++axis) {
      g.voxel_size[axis] = real(layout_.pixdim, axis + 1);
      g.quaternion[axis] = real(layout_.quaternion, axis);
      g.offset[axis] = real(layout_.quaternion_offset, axis);
      for (size_t column = 0; column < 4; ++column)
        g.sform[axis][column] = real(layout_.sform, 4 * axis + column);
    }
    g.qfac = real(layout_.pixdim, 0) < 0 ? -1 : 1;
    g.units = is_second_ ? at<int32_t>(layout_.units)
                         : int32_t{static_cast<uint8_t>(bytes_[layout_.units])};
    g.qform_code = code(layout_.qform_code);
    g.sform_code = code(layout_.sform_code);
  }

  template <class T>
  T at(size_t offset) const {
    return load_value<T>(bytes_.data() + offset, is_swapped_);
  }
  int64_t dim(int64_t i) const {
    const auto place = static_cast<size_t>(i);
    return is_second_ ? at<int64_t>(layout_.dim + 8 * place) : at<int16_t>(layout_.dim + 2 * place);
  }
  double real(size_t offset, size_t i) const {
    return is_second_ ? at<double>(offset + 8 * i) : double{at<float>(offset + 4 * i)};
  }
  int32_t code(size_t offset) const {
    return is_second_ ? at<int32_t>(offset) : int32_t{at<int16_t>(offset)};
  }

  std::span<const std::byte> bytes_;
  const std::string& name_;
  const NiftiLimits& limits_;
  bool is_swapped_ = false, is_second_ = false;
  Layout layout_ = kNifti1;
  NiftiHeader header_;
};

template <class T>
void convert(const std::byte* from, const NiftiHeader& header, std::span<float> values) {
  const bool is_scaled = header.slope != 1 || header.intercept != 0;
  for (float& value : values) {
    const auto stored = static_cast<double>(load_value<T>(from, header.is_big_endian));
    value = static_cast<float>(is_scaled ? stored * header.slope + header.intercept : stored);
    from += sizeof(T);
  }
}

void convert_any(const std::byte* from, const NiftiHeader& header, std::span<float> values) {
  switch (header.datatype) {
    case 2:
      return convert<uint8_t>(from, header, values);
    case 4:
      return convert<int16_t>(from, header, values);
    case 8:
      return convert<int32_t>(from, header, values);
    case 16:
      return convert<float>(from, header, values);
    case 64:
      return convert<double>(from, header, values);
    case 256:
      return convert<int8_t>(from, header, values);
    case 512:
      return convert<uint16_t>(from, header, values);
    case 768:
      return convert<uint32_t>(from, header, values);
    case 1024:
      return convert<int64_t>(from, header, values);
    case 1280:
      return convert<uint64_t>(from, header, values);
    default:
      core::fail("[nifti] datatype {} was not refused", header.datatype);
  }
}

int64_t count(const NiftiHeader& header) {
  return header.sides[0] * header.sides[1] * header.sides[2] * header.channels;
}

struct NiftiBox {
  std::array<int64_t, 3> origin, sides;
};

NiftiBox whole(const NiftiHeader& header) {
  return {{0, 0, 0}, {header.sides[0], header.sides[1], header.sides[2]}};
}

/// `data` is the file that holds the values, gzipped or not.
std::vector<float> decode_values(std::span<const std::byte> data, const NiftiHeader& header,
                                 const NiftiBox& box, const std::string& name) {
  // At most 2^34 + 2^31 * 8: the limits keep it far from overflow.
  const int64_t each = bytes_of(header.datatype), bytes = count(header) * each;
  const auto needed = static_cast<size_t>(header.data_offset + bytes);
  std::string unpacked;
  if (is_gzip(data)) {
    unpacked = unpack_prefix(data, needed, name);
    data = std::as_bytes(std::span(unpacked));
  }
  VT_REQUIRE(
      DataError, data.size() >= needed,
      "[data] {}: broken NIfTI: {} values of {} bytes end at byte {} but the file ends at {}", name,
      count(header), each, needed, data.size());
  const auto [depth, height, width] = box.sides;
  std::vector<float> values(static_cast<size_t>(header.channels * depth * height * width));
  const std::byte* first = data.data() + header.data_offset;
  float* to = values.data();
  for (int64_t c = 0; c < header.channels; ++c)
    for (int64_t z = box.origin[0]; z < box.origin[0] + depth; ++z)
      for (int64_t y = box.origin[1]; y < box.origin[1] + height; ++y, to += width) {
        const int64_t row = (c * header.sides[0] + z) * header.sides[1] + y;
        const int64_t at = row * header.sides[2] + box.origin[2];
        convert_any(first + at * each, header, {to, static_cast<size_t>(width)});
      }
  return values;
}

void check_file_size(std::span<const std::byte> file, const std::string& name,
                     const NiftiLimits& limits) {
  VT_REQUIRE(DataError, static_cast<int64_t>(file.size()) <= limits.max_file_bytes,
             "[data] {}: must have at most {} bytes but has {}", name, limits.max_file_bytes,
             file.size());
}

std::string lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return text;
}

/// The file with the values of a pair, beside its header.
std::string image_path(const std::string& header_path) {
  const std::string stem = header_path.substr(0, header_path.size() - 4);
  std::error_code unknown;
  for (const char* extension : {".img", ".IMG", ".img.gz", ".IMG.GZ"})
    if (std::filesystem::exists(stem + extension, unknown)) return stem + extension;
  core::fail<core::DataError>("[data] {}: a pair's values must lie beside it in {}.img or .img.gz",
                              header_path, stem);
}

/// `choose` gives the box once the header is known.
template <class Choose>
NiftiVolume read_part(const std::string& path, const NiftiLimits& limits, const Choose& choose) {
  const core::MappedFile file(path);
  check_file_size(file.bytes(), path, limits);
  NiftiVolume volume{parse_nifti_header(file.bytes(), path, limits), {}};
  const NiftiBox box = choose(volume.header);
  if (!volume.header.is_pair) {
    volume.values = decode_values(file.bytes(), volume.header, box, path);
    return volume;
  }
  VT_REQUIRE(DataError, lower_case(path).ends_with(".hdr"),
             "[data] {}: the header of a pair must be called .hdr", path);
  const std::string image = image_path(path);
  const core::MappedFile data(image);
  check_file_size(data.bytes(), image, limits);
  volume.values = decode_values(data.bytes(), volume.header, box, image);
  return volume;
}

}  // namespace

bool is_plain_nifti(const std::string& path) { return lower_case(path).ends_with(".nii"); }

bool has_nifti_extension(const std::string& path) {
  const std::string lower = lower_case(path);
  return lower.ends_with(".nii") || lower.ends_with(".nii.gz") || lower.ends_with(".hdr");
}

NiftiHeader parse_nifti_header(std::span<const std::byte> file, const std::string& name,
                               const NiftiLimits& limits) {
  const std::string start = unpack_prefix(file, kNifti2Bytes, name);
  return HeaderParser(std::as_bytes(std::span(start)), name, limits).parse();
}

NiftiVolume decode_nifti(std::span<const std::byte> file, const std::string& name,
                         const NiftiLimits& limits) {
  check_file_size(file, name, limits);
  NiftiVolume volume{parse_nifti_header(file, name, limits), {}};
  VT_REQUIRE(DataError, !volume.header.is_pair,
             "[data] {}: is the header of a pair, whose values lie in another file", name);
  volume.values = decode_values(file, volume.header, whole(volume.header), name);
  return volume;
}

NiftiHeader read_nifti_header(const std::string& path, const NiftiLimits& limits) {
  const core::MappedFile file(path);
  return parse_nifti_header(file.bytes(), path, limits);
}

NiftiVolume read_nifti(const std::string& path, const NiftiLimits& limits) {
  return read_part(path, limits, whole);
}

NiftiVolume read_nifti_box(const std::string& path, std::span<const int64_t> origin,
                           std::span<const int64_t> sides, const NiftiLimits& limits) {
  VT_CHECK(origin.size() == 3 && sides.size() == 3, "[nifti] a box must have three axes");
  return read_part(path, limits, [&](const NiftiHeader& header) {
    NiftiBox box{};
    for (size_t axis = 0; axis < 3; ++axis) {
      VT_CHECK(
          origin[axis] >= 0 && sides[axis] >= 0 && sides[axis] <= header.sides[axis] - origin[axis],
          "[nifti] {}: a box must lie inside the volume", path);
      box.origin[axis] = origin[axis];
      box.sides[axis] = sides[axis];
    }
    return box;
  });
}

}  // namespace vitrail::io

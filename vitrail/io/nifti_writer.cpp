#include <cstring>
#include <limits>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include "vitrail/io/nifti.h"
#include "vitrail/io/nifti_bytes.h"

namespace vitrail::io {
namespace {

constexpr int64_t kDataOffset = 352;

template <class T>
void put(std::string& header, size_t offset, T value) {
  std::memcpy(header.data() + offset, &value, sizeof value);
}

void put_geometry(std::string& header, const NiftiGeometry& g) {
  put<float>(header, 76, g.qfac < 0 ? -1.0f : 1.0f);
  header[123] = static_cast<char>(g.units);
  put(header, 252, static_cast<int16_t>(g.qform_code));
  put(header, 254, static_cast<int16_t>(g.sform_code));
  for (size_t axis = 0; axis < 3; ++axis) {
    put(header, 80 + 4 * axis, static_cast<float>(g.voxel_size[axis]));
    put(header, 256 + 4 * axis, static_cast<float>(g.quaternion[axis]));
    put(header, 268 + 4 * axis, static_cast<float>(g.offset[axis]));
    for (size_t column = 0; column < 4; ++column)
      put(header, 280 + 16 * axis + 4 * column, static_cast<float>(g.sform[axis][column]));
  }
}

std::string make_header(const std::vector<int64_t>& sides, int16_t datatype, int16_t bits,
                        const NiftiGeometry& geometry) {
  std::string header(kDataOffset, '\0');
  put(header, 0, static_cast<int32_t>(kNifti1Bytes));
  put(header, 40, int16_t{3});
  for (size_t axis = 0; axis < 7; ++axis)
    put(header, 42 + 2 * axis, axis < 3 ? static_cast<int16_t>(sides[2 - axis]) : int16_t{1});
  put(header, 70, datatype);
  put(header, 72, bits);
  put(header, 108, static_cast<float>(kDataOffset));
  put(header, 112, 1.0f);
  put_geometry(header, geometry);
  std::memcpy(header.data() + 344, "n+1", 4);
  return header;
}

template <class T>
void write(const std::string& path, const std::vector<int64_t>& sides, std::span<const T> values,
           int16_t datatype, const NiftiGeometry& geometry) {
  int64_t voxels = 1;
  VT_CHECK(sides.size() == 3, "[nifti] a volume must have 3 sides but got {}", sides.size());
  for (const int64_t side : sides) {
    VT_CHECK(side >= 1 && side <= std::numeric_limits<int16_t>::max(),
             "[nifti] {}: a side must be 1 to 32767 but is {}", path, side);
    voxels *= side;
  }
  VT_CHECK(voxels == static_cast<int64_t>(values.size()),
           "[nifti] {}: must get {} values but got {}", path, voxels, values.size());
  std::string file = make_header(sides, datatype, 8 * sizeof(T), geometry);
  file.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  core::write_file_atomic(path, pack_gzip(file));
}

}  // namespace

void write_nifti(const std::string& path, const std::vector<int64_t>& sides,
                 std::span<const float> values, const NiftiGeometry& geometry) {
  write(path, sides, values, 16, geometry);
}

void write_nifti(const std::string& path, const std::vector<int64_t>& sides,
                 std::span<const uint8_t> values, const NiftiGeometry& geometry) {
  write(path, sides, values, 2, geometry);
}

}  // namespace vitrail::io

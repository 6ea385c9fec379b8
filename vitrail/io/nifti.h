#pragma once
/// NIfTI-1 and NIfTI-2 volumes: .nii, .nii.gz, and pairs of .hdr and .img.
///
/// Format   https://nifti.nimh.nih.gov: single files ("n+1", "n+2") and pairs ("ni1", "ni2", the
///          values in the .img or .img.gz beside the .hdr), both byte orders, integers of 8 to 64
///          bits and floats of 32 and 64 bits, with scl_slope and scl_inter. Refused: ANALYZE,
///          complex, colour, bit and 128-bit values (they have no counterpart here).
/// Shapes   sides [D, H, W] = [dim3, dim2, dim1]: the file's fastest axis x is the last. Axes four and
///          on (time, vectors) are channels, channel first.
/// Errors   DataError naming the file. Sizes are checked against the limits and the file's length
///          before anything is allocated.
/// Threads  any; nothing is shared.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace vitrail::io {

/// Where voxels lie in space. Axes are the file's: x, y, z = dim1, dim2, dim3.
struct NiftiGeometry {
  using Matrix = std::array<std::array<double, 4>, 3>;

  std::array<double, 3> voxel_size{1, 1, 1};
  int32_t units = 0;  // xyzt_units as stored; 2 = millimetres
  int32_t qform_code = 0, sform_code = 0;
  double qfac = 1;  // sign of the z axis of the quaternion's frame
  std::array<double, 3> quaternion{}, offset{};
  Matrix sform{};

  /// Voxel (x, y, z, 1) to scanner coordinates (right, anterior, superior): sform if there is one,
  /// else qform, else the voxel size with x to the left, as nibabel chooses. `sides` as of a volume.
  Matrix affine(const std::vector<int64_t>& sides) const;
  /// Directions in which x, y and z grow, such as "RAS" or "LPS".
  std::string orientation(const std::vector<int64_t>& sides) const;
};

struct NiftiHeader {
  int version = 1;
  bool is_pair = false;  // the values lie in another file
  bool is_big_endian = false;
  std::vector<int64_t> sides;  // [D, H, W]; 1 for axes that the file lacks
  int64_t channels = 1;
  int16_t datatype = 0;
  double slope = 1, intercept = 0;  // value = stored * slope + intercept
  int64_t data_offset = 0;
  NiftiGeometry geometry;
};

struct NiftiVolume {
  NiftiHeader header;
  std::vector<float> values;  // [C, D, H, W]; scaled in double, then rounded to float
};

struct NiftiLimits {
  int64_t max_values = int64_t{1} << 31;
  int64_t max_file_bytes = int64_t{1} << 34;
};

/// .nii, .nii.gz or .hdr (of a pair) in capitals or not.
bool has_nifti_extension(const std::string& path);

/// .nii: boxes are read from a map of the file, without the rest of it.
bool is_plain_nifti(const std::string& path);

/// `file` is the whole file, gzipped or not (told by its first bytes).
NiftiHeader parse_nifti_header(std::span<const std::byte> file, const std::string& name,
                               const NiftiLimits& limits = {});
NiftiVolume decode_nifti(std::span<const std::byte> file, const std::string& name,
                         const NiftiLimits& limits = {});

/// The same for a file on disk; the header alone reads little of it.
NiftiHeader read_nifti_header(const std::string& path, const NiftiLimits& limits = {});
NiftiVolume read_nifti(const std::string& path, const NiftiLimits& limits = {});

/// A part of the file: [C, sides...] from `origin` on, three entries each, inside the volume. A
/// packed file is unpacked up to its end.
NiftiVolume read_nifti_box(const std::string& path, std::span<const int64_t> origin,
                           std::span<const int64_t> sides, const NiftiLimits& limits = {});

/// A gzipped NIfTI-1 file of [D, H, W] values, written atomically, with another volume's geometry.
/// throws   Error unless there is one value per voxel and every side is at most 32767.
void write_nifti(const std::string& path, const std::vector<int64_t>& sides,
                 std::span<const float> values, const NiftiGeometry& geometry);
void write_nifti(const std::string& path, const std::vector<int64_t>& sides,
                 std::span<const uint8_t> values, const NiftiGeometry& geometry);

}  // namespace vitrail::io

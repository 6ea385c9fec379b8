#pragma once
/// The arrays that zarr_matrix.py wrote, and the comparison of a reader with their values.

#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/philox.h"
#include "vitrail/io/array.h"

namespace vitrail::testing {

struct ArrayCase {
  std::string format, path, dtype, axes;
  std::vector<int64_t> shape;
  std::string values;  // row-major, little-endian
};

inline std::vector<ArrayCase> parse_array_cases(const std::string& said,
                                                const std::string& folder) {
  std::vector<ArrayCase> cases;
  std::istringstream lines(said);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    ArrayCase one;
    words >> one.format >> one.path >> one.dtype >> one.axes;
    if (one.axes == "-") one.axes.clear();
    for (int64_t side = 0; words >> side;) one.shape.push_back(side);
    EXPECT_TRUE(words.eof()) << line;
    const std::string raw = folder + '/' + std::to_string(cases.size()) + ".raw";
    one.values = core::read_file(raw, 1 << 24);
    one.path = folder + '/' + one.path;
    cases.push_back(one);
  }
  return cases;
}

/// The box of `values`, cut by the plainest loop.
inline std::string plain_box(const ArrayCase& one, int64_t item, std::span<const int64_t> origin,
                             std::span<const int64_t> sides) {
  std::string box;
  const size_t axes = sides.size();
  for (const int64_t side : sides)
    if (side == 0) return box;
  std::vector<int64_t> at(axes, 0);
  for (;;) {
    int64_t offset = 0;
    for (size_t k = 0; k < axes; ++k) offset = offset * one.shape[k] + origin[k] + at[k];
    box += one.values.substr(static_cast<size_t>(offset * item), static_cast<size_t>(item));
    size_t k = axes;
    while (k > 0 && ++at[k - 1] == sides[k - 1]) at[--k] = 0;
    if (k == 0) return box;
  }
}

inline std::string read_box(const io::ArrayFile& array, std::span<const int64_t> origin,
                            std::span<const int64_t> sides) {
  int64_t bytes = core::size_bytes(array.dtype());
  for (const int64_t side : sides) bytes *= side;
  // One byte more, to see whether anything is written behind the box.
  std::string box(static_cast<size_t>(bytes) + 1, '\x5A');
  array.read(origin, sides, reinterpret_cast<std::byte*>(box.data()));
  EXPECT_EQ(box.back(), '\x5A');
  box.pop_back();
  return box;
}

/// The whole array and `boxes` random boxes are equal, bit for bit.
inline void expect_equal(const ArrayCase& one, const io::ArrayFile& array, uint32_t boxes) {
  SCOPED_TRACE(one.path);
  ASSERT_EQ(array.shape(), one.shape);
  EXPECT_EQ(core::name(array.dtype()), one.dtype);
  EXPECT_EQ(array.axes(), one.axes);
  const int64_t item = core::size_bytes(array.dtype());
  const std::vector<int64_t> corner(one.shape.size(), 0);
  ASSERT_TRUE(read_box(array, corner, one.shape) == one.values) << "the whole array differs";
  uint32_t element = 0;
  const auto random = [&](int64_t below) {
    return static_cast<int64_t>(core::draw({5, core::Stream::test, 0, 0}, 0, element++) %
                                static_cast<uint64_t>(below));
  };
  for (uint32_t round = 0; round < boxes; ++round) {
    std::vector<int64_t> origin, sides;
    for (const int64_t side : one.shape) {
      sides.push_back(random(side + 1));
      origin.push_back(random(side - sides.back() + 1));
    }
    ASSERT_TRUE(read_box(array, origin, sides) == plain_box(one, item, origin, sides))
        << "box " << ::testing::PrintToString(origin) << " + " << ::testing::PrintToString(sides);
  }
}

}  // namespace vitrail::testing

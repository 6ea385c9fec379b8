// ucf_tree FIXED_LENGTH PATCH_SIZE UNIT SIDE SIDE [SIDE] < map and image > boxes and tokens: leaves of one map by
// UCF-VIT's rules, for tests/parity/ucf_tree.py. In: int32 [sides...], then float [sides...]. Out: float.

#include <cstdio>
#include <cstdlib>

#include "vitrail/core/error.h"
#include "vitrail/patching/compat_ucf.h"

namespace {

using namespace vitrail;

template <class T>
void read_all(std::vector<T>& values) {
  VT_CHECK(std::fread(values.data(), sizeof(T), values.size(), stdin) == values.size(),
           "[ucf_tree] the input must hold {} values more", values.size());
}

void write_all(const std::vector<float>& values) {
  std::fwrite(values.data(), sizeof(float), values.size(), stdout);
}

void run(const std::vector<int64_t>& numbers) {
  VT_CHECK(numbers.size() >= 5, "[ucf_tree] needs at least 5 arguments but got {}", numbers.size());
  const int64_t length = numbers[0], patch = numbers[1];
  const std::vector<int64_t> sides(numbers.begin() + 3, numbers.end());
  size_t pixels = 1;
  auto patch_pixels = static_cast<size_t>(1);
  for (const int64_t side : sides) {
    pixels *= static_cast<size_t>(side);
    patch_pixels *= static_cast<size_t>(patch);
  }
  patching::UcfMap map{std::vector<int32_t>(pixels), numbers[2]};
  std::vector<float> image(pixels);
  read_all(map.values);
  read_all(image);
  std::vector<float> boxes(static_cast<size_t>(length) * 2 * sides.size());
  std::vector<float> tokens(static_cast<size_t>(length) * patch_pixels);
  patching::ucf_boxes(map, sides, length, boxes);
  patching::ucf_serialise(image, 1, sides, boxes, patch, tokens);
  write_all(boxes);
  write_all(tokens);
}

}  // namespace

int main(int count, char** words) {
  try {
    std::vector<int64_t> numbers;
    for (int i = 1; i < count; ++i) numbers.push_back(std::strtoll(words[i], nullptr, 10));
    run(numbers);
  } catch (const core::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

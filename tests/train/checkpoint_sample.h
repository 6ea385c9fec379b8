#pragma once
/// A small state of every awkward kind, and a folder that goes away with the test.

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include <ATen/ops/empty.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "vitrail/comm/communicator.h"
#include "vitrail/core/error.h"
#include "vitrail/core/philox.h"
#include "vitrail/train/checkpoint.h"

namespace vitrail::train {

/// Bytes that are a function of (seed, tensor, place): any bit pattern, NaNs included.
inline void fill(at::Tensor& tensor, uint64_t seed, uint64_t index) {
  auto* bytes = static_cast<unsigned char*>(tensor.mutable_data_ptr());
  for (size_t i = 0; i < tensor.nbytes(); ++i)
    bytes[i] = static_cast<unsigned char>(core::draw({seed}, index, static_cast<uint32_t>(i)));
  if (tensor.scalar_type() == at::kBool)
    for (size_t i = 0; i < tensor.nbytes(); ++i) bytes[i] &= 1;
}

struct SampleTensor {
  const char* name;
  std::vector<int64_t> shape;
  at::ScalarType dtype;
};

inline std::vector<TensorState> make_state(const std::vector<SampleTensor>& tensors,
                                           uint64_t seed) {
  std::vector<TensorState> state;
  for (const auto& [name, shape, dtype] : tensors) {
    state.push_back({name, at::empty(shape, at::TensorOptions().dtype(dtype))});
    fill(state.back().tensor, seed, state.size());
  }
  return state;
}

/// Odd lengths, a scalar, an empty tensor, element sizes 1 to 8, in an order that is not sorted.
inline std::vector<TensorState> sample_state(uint64_t seed) {
  return make_state({{"blocks.0.attn.qkv.weight", {13, 7}, at::kFloat},
                     {"blocks.0.norm1.bias", {7}, at::kFloat},
                     {"half", {3, 5}, at::kBFloat16},
                     {"cls_token", {1, 1, 7}, at::kFloat},
                     {"scale", {}, at::kFloat},
                     {"counts", {5}, at::kLong},
                     {"nothing", {0, 3}, at::kFloat},
                     {"flags", {11}, at::kBool},
                     {"exp_avg/blocks.0.attn.qkv.weight", {13, 7}, at::kFloat}},
                    seed);
}

inline bool bits_equal(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && a.scalar_type() == b.scalar_type() &&
         (a.nbytes() == 0 || std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0);
}

inline void expect_same(const std::vector<TensorState>& a, const std::vector<TensorState>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i)
    EXPECT_TRUE(bits_equal(a[i].tensor, b[i].tensor)) << a[i].name;
}

inline CheckpointInfo sample_info(int64_t step) {
  return {.step = step,
          .update_count = step - 1,
          .skipped_updates = 1,
          .loader = {3, 7},
          .seed = ~uint64_t{0},
          .wall_seconds = 1.0 / 3,
          .mesh = "replicate 2",
          .recipe = "run:\n  name: \"x\"\n",
          .program = "0.1.0"};
}

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "vitrail-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// One synchronous save by `ranks` threads.
inline void save_once(const std::string& folder, int ranks, int64_t step,
                      const std::vector<TensorState>& state, int64_t keep = 0) {
  comm::run_thread_group(ranks, [&](comm::Communicator& group) {
    CheckpointWriter writer(group, {.folder = folder, .keep = keep, .async = false});
    writer.save(state, sample_info(step));
  });
}

inline std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

/// Turns one bit over, in place.
inline void flip(const std::string& path, size_t offset, int bit = 4) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(static_cast<std::streamoff>(offset));
  const int byte = file.get();
  ASSERT_NE(byte, EOF) << path << " has no byte " << offset;
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(static_cast<char>(byte ^ (1 << bit)));
}

/// Names in a folder, hidden ones aside.
inline std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().filename().string().front() != '.')
      names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

/// The text of the CheckpointError that `body` throws; empty when it throws none.
inline std::string checkpoint_error(const std::function<void()>& body) {
  try {
    body();
  } catch (const core::CheckpointError& error) {
    return error.what();
  }
  return "";
}

}  // namespace vitrail::train

#include "vitrail/train/checkpoint_tensor.h"

#include <algorithm>
#include <numeric>

#include "vitrail/core/error.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {

namespace {

struct DTypePair {
  core::DType file;
  at::ScalarType tensor;
  const char* safetensors;
};

constexpr DTypePair kDTypes[] = {
    {core::DType::f64, at::kDouble, "F64"}, {core::DType::f32, at::kFloat, "F32"},
    {core::DType::f16, at::kHalf, "F16"},   {core::DType::bf16, at::kBFloat16, "BF16"},
    {core::DType::i64, at::kLong, "I64"},   {core::DType::i32, at::kInt, "I32"},
    {core::DType::i16, at::kShort, "I16"},  {core::DType::i8, at::kChar, "I8"},
    {core::DType::u8, at::kByte, "U8"},     {core::DType::boolean, at::kBool, "BOOL"},
    {core::DType::u64, at::kUInt64, "U64"}, {core::DType::u32, at::kUInt32, "U32"},
    {core::DType::u16, at::kUInt16, "U16"},
};

const char* safetensors_dtype(core::DType dtype) {
  for (const DTypePair& pair : kDTypes)
    if (pair.file == dtype) return pair.safetensors;
  return "U8";
}

}  // namespace

core::DType dtype_of(const at::Tensor& tensor, const std::string& name) {
  for (const DTypePair& pair : kDTypes)
    if (pair.tensor == tensor.scalar_type()) return pair.file;
  core::fail<core::CheckpointError>("[checkpoint] tensor {}: a checkpoint cannot hold {}", name,
                                    c10::toString(tensor.scalar_type()));
}

at::ScalarType scalar_type(core::DType dtype) {
  for (const DTypePair& pair : kDTypes)
    if (pair.file == dtype) return pair.tensor;
  return at::kByte;
}

std::string safetensors_header(const std::vector<FileTensor>& tensors,
                               const std::map<std::string, std::string>& metadata) {
  nlohmann::json head = nlohmann::json::object();
  head["__metadata__"] = metadata;
  int64_t offset = 0;
  for (const FileTensor& tensor : tensors) {
    head[tensor.name] = {{"dtype", safetensors_dtype(tensor.dtype)},
                         {"shape", tensor.shape},
                         {"data_offsets", {offset, offset + tensor.bytes}}};
    offset += tensor.bytes;
  }
  std::string text = head.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string length(8, '\0');
  for (size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(text.size() >> (8 * i) & 0xFF);
  return length + text;
}

std::vector<Piece> even_share(const std::vector<TensorState>& tensors, int rank, int size) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  // Falling element sizes keep every piece aligned to its own element in the file.
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return tensors[a].tensor.element_size() > tensors[b].tensor.element_size();
  });
  int64_t total = 0;
  for (const TensorState& state : tensors) total += static_cast<int64_t>(state.tensor.nbytes());
  const auto boundary = [&](int64_t r) {
    return total / size * r + std::min<int64_t>(r, total % size);
  };
  const int64_t begin = boundary(rank), end = boundary(rank + 1);

  std::vector<Piece> pieces;
  int64_t position = 0;
  for (const size_t index : order) {
    const at::Tensor& tensor = tensors[index].tensor;
    const auto width = static_cast<int64_t>(tensor.element_size());
    const auto element_at =
        [&](int64_t byte) {  // first element that starts at or after `byte` of the whole
          return std::clamp<int64_t>((std::max<int64_t>(byte - position, 0) + width - 1) / width, 0,
                                     tensor.numel());
        };
    const int64_t first = element_at(begin), last = element_at(end);
    if (last > first) pieces.push_back({index, first, last - first, (last - first) * width});
    position += static_cast<int64_t>(tensor.nbytes());
  }
  return pieces;
}

}  // namespace vitrail::train

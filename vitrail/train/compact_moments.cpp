#include "vitrail/train/compact_moments.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "vitrail/core/error.h"

namespace vitrail::train {
namespace {

using kernels::kCompactBlock;

/// FNV-1a.
uint64_t hash_of(const std::string& name) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return hash;
}

/// The number of each block: 27 bits of the parameter's name, 32 of the block in it; padding draws nothing that counts.
at::Tensor places_of(const parallel::UnitSet& units) {
  at::Tensor places = at::zeros({units.kept_count() / kCompactBlock}, at::kLong);
  for (const parallel::KeptRun& run : units.layout().kept_runs()) {
    const uint64_t first = ((hash_of(run.slot->name) & 0x7FFFFFFu) << 32) +
                           static_cast<uint64_t>(run.start / kCompactBlock);
    int64_t* out = places.data_ptr<int64_t>() + run.kept_offset / kCompactBlock;
    for (int64_t block = 0; block * kCompactBlock < run.count; ++block)
      out[block] = static_cast<int64_t>(first) + block;
  }
  return places.to(units.gradient().device());
}

template <class T>
T* data_or_null(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<T*>(tensor.data_ptr()) : nullptr;
}

at::Tensor on_host(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.to(at::kCPU) : tensor;
}

}  // namespace

CompactMoments::CompactMoments(const parallel::UnitSet& units, const std::string& state)
    : type_(state == "bf16" ? kernels::StateType::bf16 : kernels::StateType::fp8),
      count_(units.kept_count()) {
  VT_CHECK(state == "bf16" || state == "fp8", "[optimizer] a compact state is bf16 or fp8, not {}",
           state);
  const at::NoGradGuard no_grad;
  const bool is_fp8 = type_ == kernels::StateType::fp8;
  const auto options = units.gradient().options().dtype(is_fp8 ? at::kByte : at::kBFloat16);
  first_ = at::zeros({count_}, options);
  second_ = at::zeros({count_}, options);
  if (is_fp8) {
    first_exponent_ = at::zeros({count_ / kCompactBlock}, options.dtype(at::kChar));
    second_exponent_ = at::zeros({count_ / kCompactBlock}, options.dtype(at::kChar));
  }
  places_ = places_of(units);
}

kernels::CompactArena CompactMoments::arena_of(const at::Tensor& first, const at::Tensor& second,
                                               const at::Tensor& first_exponent,
                                               const at::Tensor& second_exponent) const {
  kernels::CompactArena arena;
  arena.type = type_;
  arena.first = first.data_ptr();
  arena.second_root = second.data_ptr();
  arena.first_exponent = data_or_null<int8_t>(first_exponent);
  arena.second_exponent = data_or_null<int8_t>(second_exponent);
  arena.count = count_;
  return arena;
}

void CompactMoments::put_into(kernels::CompactArena& arena, int64_t first, int64_t count) const {
  const int64_t block = first / kCompactBlock;
  const auto bytes = static_cast<int64_t>(first_.element_size());
  arena.type = type_;
  arena.first = static_cast<char*>(first_.data_ptr()) + first * bytes;
  arena.second_root = static_cast<char*>(second_.data_ptr()) + first * bytes;
  if (first_exponent_.defined()) {
    arena.first_exponent = data_or_null<int8_t>(first_exponent_) + block;
    arena.second_exponent = data_or_null<int8_t>(second_exponent_) + block;
  }
  arena.places = data_or_null<uint64_t>(places_) + block;
  arena.count = count;
}

CompactMoments::Expanded CompactMoments::expand() const {
  const at::NoGradGuard no_grad;
  const at::Tensor first = on_host(first_), second = on_host(second_),
                   first_exponent = on_host(first_exponent_),
                   second_exponent = on_host(second_exponent_);
  const Expanded moments{at::empty({count_}, at::kFloat), at::empty({count_}, at::kFloat)};
  kernels::expand_moments(arena_of(first, second, first_exponent, second_exponent),
                          moments.first.data_ptr<float>(), moments.second.data_ptr<float>());
  return moments;
}

void CompactMoments::compact(const Expanded& moments) {
  const at::NoGradGuard no_grad;
  const at::Tensor first = on_host(first_), second = on_host(second_),
                   first_exponent = on_host(first_exponent_),
                   second_exponent = on_host(second_exponent_);
  kernels::compact_moments(arena_of(first, second, first_exponent, second_exponent),
                           moments.first.data_ptr<float>(), moments.second.data_ptr<float>());
  first_.copy_(first);
  second_.copy_(second);
  if (!first_exponent_.defined()) return;
  first_exponent_.copy_(first_exponent);
  second_exponent_.copy_(second_exponent);
}

int64_t CompactMoments::bytes() const {
  size_t bytes = 0;
  for (const at::Tensor& tensor : {first_, second_, first_exponent_, second_exponent_, places_})
    if (tensor.defined()) bytes += tensor.nbytes();
  return static_cast<int64_t>(bytes);
}

}  // namespace vitrail::train

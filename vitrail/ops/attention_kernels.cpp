#include "vitrail/ops/attention_kernels.h"

#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>

#include "vitrail/core/log.h"
#include "vitrail/ops/on_device.h"

namespace vitrail::ops {
namespace {

using kernels::AttentionKernel;

constexpr int kTimedRuns = 20;

/// What a kernel is made for.
struct Key {
  int device = 0;
  AttentionKind kind = AttentionKind::automatic;
  bool is_deterministic = false;
  kernels::AttentionShape shape;
  int64_t q_token = 0, kv_token = 0;
  bool operator==(const Key&) const = default;
};

struct Entry {
  Key key;
  std::unique_ptr<AttentionKernel> kernel;  // null: none can
};

struct Kept {
  std::mutex mutex;
  std::deque<Entry> entries;
};

/// Never destroyed: at exit the driver may be gone first.
Kept& kept() {
  static auto& all = *new Kept();
  return all;
}

Key key_of(const Heads& heads, const PackedOptions& options) {
  const at::Tensor& q = heads.q_BLNE;
  return {.device = q.device().index(),
          .kind = options.kind,
          .is_deterministic = at::globalContext().deterministicAlgorithms(),
          .shape = {.samples = q.size(0),
                    .tokens = q.size(1),
                    .heads = q.size(2),
                    .kv_heads = heads.k_BLNE.size(2),
                    .head_width = q.size(3),
                    .has_lengths = options.key_mask_BL.defined()},
          .q_token = q.stride(1),
          .kv_token = heads.v_BLNE.stride(1)};
}

/// Gradients lie packed as the qkv layer's result does.
kernels::AttentionStrides strides_of(const Heads& heads) {
  const int64_t L = heads.q_BLNE.size(1);
  const int64_t packed = (heads.q_BLNE.size(2) + 2 * heads.k_BLNE.size(2)) * heads.q_BLNE.size(3);
  const int64_t width = heads.q_BLNE.size(2) * heads.q_BLNE.size(3);
  kernels::AttentionStrides strides;
  strides.q_sample = heads.q_BLNE.stride(0), strides.q_token = heads.q_BLNE.stride(1);
  strides.kv_sample = heads.v_BLNE.stride(0), strides.kv_token = heads.v_BLNE.stride(1);
  strides.dq_sample = strides.dkv_sample = L * packed;
  strides.dq_token = strides.dkv_token = packed;
  strides.out_sample = strides.dout_sample = L * width;
  strides.out_token = strides.dout_token = width;
  return strides;
}

/// cuDNN as the library links it gives NaN gradients for some of these numbers of keys (docs/numerics.md).
bool avoids_cudnn(const Key& key) { return key.is_deterministic || key.shape.tokens % 128 == 64; }

std::vector<std::unique_ptr<AttentionKernel>> candidates(const Key& key, const Heads& heads) {
  std::vector<std::unique_ptr<AttentionKernel>> found;
  const auto wants = [&](AttentionKind kind) {
    return key.kind == AttentionKind::automatic || key.kind == kind;
  };
  const auto add = [&](std::unique_ptr<AttentionKernel> kernel) {
    if (kernel) found.push_back(std::move(kernel));
  };
  if (wants(AttentionKind::own_short)) add(kernels::short_attention(key.shape, key.device));
  // By name only: its present form has not been compared with the others on a GPU.
  if (key.kind == AttentionKind::own_narrow)
    add(kernels::narrow_attention(key.shape, key.device));
  // One description of k and v alike serves both only where they lie at the same strides.
  const bool alike = heads.k_BLNE.strides() == heads.v_BLNE.strides();
  if (wants(AttentionKind::cudnn) && alike && !avoids_cudnn(key))
    add(kernels::library_attention(key.shape, strides_of(heads), key.device));
  return found;
}

/// Milliseconds of forward and backward together, hot.
double time(AttentionKernel& kernel, const Heads& heads, const PackedOptions& options) {
  const auto like = heads.q_BLNE.options();
  const int64_t B = heads.q_BLNE.size(0), L = heads.q_BLNE.size(1), E = heads.q_BLNE.size(3);
  const int64_t N = heads.q_BLNE.size(2), Nkv = heads.k_BLNE.size(2);
  const at::Tensor dqkv_BLF = at::empty({B, L, (N + 2 * Nkv) * E}, like);
  const Heads gradients = split_heads(dqkv_BLF, {.heads = N, .kv_heads = Nkv, .head_width = E});
  const c10::impl::VirtualGuardImpl device(heads.q_BLNE.device().type());
  const c10::Stream stream = device.getStream(heads.q_BLNE.device());
  const auto once = [&] {
    const PackedResult result = run_attention(kernel, heads, options);
    run_attention_backward(kernel, result.out_BLF, heads, result, options, gradients);
  };
  for (int i = 0; i < 3; ++i) once();
  device.synchronizeStream(stream);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kTimedRuns; ++i) once();
  device.synchronizeStream(stream);
  const std::chrono::duration<double, std::milli> passed = std::chrono::steady_clock::now() - start;
  return passed.count() / kTimedRuns;
}

std::unique_ptr<AttentionKernel> fastest(const Key& key, const Heads& heads,
                                         const PackedOptions& options) {
  std::vector<std::unique_ptr<AttentionKernel>> found = candidates(key, heads);
  if (found.empty()) return nullptr;
  size_t best = 0;
  std::string times;
  if (found.size() > 1 && !key.is_deterministic) {  // times differ from run to run
    double least = 0;
    for (size_t i = 0; i < found.size(); ++i) {
      const double ms = time(*found[i], heads, options);
      if (i == 0 || ms < least) least = ms, best = i;
      times += fmt::format("{}{} {:.3f} ms", i ? ", " : "; ", found[i]->name(), ms);
    }
  }
  core::log_info("attention of {} samples, {} tokens, {} heads of {}: {}{}", key.shape.samples,
                 key.shape.tokens, key.shape.heads, key.shape.head_width, found[best]->name(),
                 times);
  return std::move(found[best]);
}

template <class T, class Place>
kernels::HeadRows<T> rows(const at::Tensor& x_BLNE, Place place) {
  return {place(x_BLNE), x_BLNE.stride(0), x_BLNE.stride(1)};
}

kernels::HeadRows<const uint16_t> in_rows(const at::Tensor& x_BLNE) {
  return rows<const uint16_t>(x_BLNE, bf16_strided_in);
}
kernels::HeadRows<uint16_t> out_rows(const at::Tensor& x_BLNE) {
  return rows<uint16_t>(x_BLNE, bf16_strided_out);
}

at::Tensor lengths_of(const PackedOptions& options) {
  if (!options.key_mask_BL.defined()) return {};
  return options.key_mask_BL.sum(1).to(at::kInt);
}

const int32_t* data_of(const at::Tensor& lengths) {
  return lengths.defined() ? lengths.const_data_ptr<int32_t>() : nullptr;
}

at::Tensor workspace_of(const AttentionKernel& kernel, const at::Tensor& like) {
  return at::empty({kernel.workspace_bytes()}, like.options().dtype(at::kByte));
}

}  // namespace

AttentionKernel* attention_kernel(const Heads& heads, const PackedOptions& options) {
  if (options.kind == AttentionKind::aten) return nullptr;
  if (options.key_mask_BL.defined() && !options.mask_is_prefix) return nullptr;
  const Key key = key_of(heads, options);
  const OnDevice on(heads.q_BLNE);
  Kept& all = kept();
  const std::lock_guard lock(all.mutex);
  for (const Entry& entry : all.entries)
    if (entry.key == key) return entry.kernel.get();
  all.entries.push_back({key, fastest(key, heads, options)});
  return all.entries.back().kernel.get();
}

PackedResult run_attention(AttentionKernel& kernel, const Heads& heads,
                           const PackedOptions& options) {
  const OnDevice on(heads.q_BLNE);
  const int64_t B = heads.q_BLNE.size(0), L = heads.q_BLNE.size(1);
  const int64_t N = heads.q_BLNE.size(2), E = heads.q_BLNE.size(3);
  const at::Tensor out_BLNE = at::empty({B, L, N, E}, heads.q_BLNE.options());
  const at::Tensor lse = at::empty({B, N, L}, heads.q_BLNE.options().dtype(at::kFloat));
  const at::Tensor lengths = lengths_of(options), workspace = workspace_of(kernel, out_BLNE);
  const kernels::AttentionForward task{.q = in_rows(heads.q_BLNE),
                                       .k = in_rows(heads.k_BLNE),
                                       .v = in_rows(heads.v_BLNE),
                                       .lengths = data_of(lengths),
                                       .out = out_rows(out_BLNE),
                                       .lse = f32_out(lse)};
  kernel.forward(task, workspace.mutable_data_ptr(), on.stream());
  return {out_BLNE.view({B, L, N * E}), lse};
}

void run_attention_backward(AttentionKernel& kernel, const at::Tensor& dout_BLF, const Heads& heads,
                            const PackedResult& forward, const PackedOptions& options,
                            const Heads& gradients) {
  const OnDevice on(dout_BLF);
  const at::IntArrayRef shape = heads.q_BLNE.sizes();
  const at::Tensor lengths = lengths_of(options), workspace = workspace_of(kernel, dout_BLF);
  const kernels::AttentionBackward task{.q = in_rows(heads.q_BLNE),
                                        .k = in_rows(heads.k_BLNE),
                                        .v = in_rows(heads.v_BLNE),
                                        .out = in_rows(forward.out_BLF.view(shape)),
                                        .dout = in_rows(dout_BLF.view(shape)),
                                        .lengths = data_of(lengths),
                                        .lse = f32_in(forward.lse),
                                        .dq = out_rows(gradients.q_BLNE),
                                        .dk = out_rows(gradients.k_BLNE),
                                        .dv = out_rows(gradients.v_BLNE)};
  kernel.backward(task, workspace.mutable_data_ptr(), on.stream());
}

std::string attention_choices() {
  Kept& all = kept();
  const std::lock_guard lock(all.mutex);
  std::string text;
  for (const Entry& entry : all.entries)
    text += fmt::format("{} tokens, {} heads of {}: {}\n", entry.key.shape.tokens,
                        entry.key.shape.heads, entry.key.shape.head_width,
                        entry.kernel ? entry.kernel->name() : "the library's, under autograd");
  return text;
}

}  // namespace vitrail::ops

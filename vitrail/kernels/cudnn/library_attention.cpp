// cuDNN's attention through cudnn-frontend's graphs. The only file that includes its headers: they take most of a minute.

#define CUDNN_FRONTEND_SKIP_JSON_LIB  // graphs are never written to text
#include "vitrail/kernels/library_attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#include <cuda_runtime.h>
#include <cudnn_frontend.h>

#include "vitrail/core/error.h"
#include "vitrail/kernels/attention.h"
#include "vitrail/kernels/cuda/clear_padding.h"

namespace vitrail::kernels {
namespace {

namespace fe = cudnn_frontend;
using Values = std::shared_ptr<fe::graph::Tensor_attributes>;
using Pointers = std::unordered_map<int64_t, void*>;

std::atomic<bool> deterministic{false};
thread_local std::string refusal;

/// Names of the tensors in both graphs.
enum Id : int64_t { kQ = 1, kK, kV, kOut, kLse, kDout, kDq, kDk, kDv, kQueryCount, kKeyCount };

/// A device's handle. cuDNN allows one thread at a time on it, so each use holds the lock. Never destroyed: at the end of
/// the process CUDA may be gone before it.
struct Handle {
  std::mutex mutex;
  cudnnHandle_t value = nullptr;
  void* stream = nullptr;
};

Handle& handle_of(int device) {
  static std::mutex mutex;
  static auto* handles = new std::map<int, Handle>;
  const std::scoped_lock lock(mutex);
  Handle& handle = (*handles)[device];
  if (!handle.value) {
    const cudnnStatus_t status = cudnnCreate(&handle.value);
    VT_CHECK(status == CUDNN_STATUS_SUCCESS, "[attention] cuDNN must start but says {}",
             cudnnGetErrorString(status));
  }
  return handle;
}

/// One direction: its graph, and how it is run.
class Pass {
 public:
  Pass() : graph_(std::make_shared<fe::graph::Graph>()) {
    graph_->set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
  }
  fe::graph::Graph& graph() { return *graph_; }
  int64_t workspace_bytes() const { return workspace_bytes_; }

  /// False, with the reason in `refusal`, where cuDNN has no plan.
  bool build(cudnnHandle_t handle) {
    fe::error_t status = graph_->build(handle, {fe::HeurMode_t::A, fe::HeurMode_t::FALLBACK});
    if (status.is_good()) status = graph_->get_workspace_size(workspace_bytes_);
    refusal = status.is_good() ? "" : status.get_message();
    return status.is_good();
  }

  void run(Handle& handle, const Pointers& pointers, void* workspace, void* stream,
           const char* what) {
    const std::scoped_lock lock(handle.mutex);
    if (stream != handle.stream) {
      cudnnSetStream(handle.value, static_cast<cudaStream_t>(stream));
      handle.stream = stream;
    }
    Pointers own = pointers;
    fe::error_t status = graph_->execute(handle.value, own, workspace);
    VT_CHECK(status.is_good(), "[attention] cuDNN's {} must start but: {}", what,
             status.get_message());
  }

 private:
  std::shared_ptr<fe::graph::Graph> graph_;
  int64_t workspace_bytes_ = 0;
};

/// [samples, heads, tokens, head_width] as cuDNN counts the axes, whatever the order in memory.
struct Layout {
  const AttentionShape& shape;
  const AttentionStrides& strides;

  std::vector<int64_t> dims(int64_t heads) const {
    return {shape.samples, heads, shape.tokens, shape.head_width};
  }
  std::vector<int64_t> steps(int64_t sample, int64_t token) const {
    return {sample, shape.head_width, token, 1};
  }
  Values add(fe::graph::Graph& graph, Id id, int64_t heads, int64_t sample, int64_t token) const {
    return graph.tensor(fe::graph::Tensor_attributes()
                            .set_uid(id)
                            .set_dim(dims(heads))
                            .set_stride(steps(sample, token)));
  }
  void set_output(const Values& values, Id id, int64_t heads, int64_t sample, int64_t token) const {
    values->set_output(true).set_uid(id).set_dim(dims(heads)).set_stride(steps(sample, token));
  }
  Values q(fe::graph::Graph& graph) const {
    return add(graph, kQ, shape.heads, strides.q_sample, strides.q_token);
  }
  Values k_or_v(fe::graph::Graph& graph, Id id) const {
    return add(graph, id, shape.kv_heads, strides.kv_sample, strides.kv_token);
  }
  fe::graph::Tensor_attributes lse() const {
    return fe::graph::Tensor_attributes()
        .set_uid(kLse)
        .set_dim({shape.samples, shape.heads, shape.tokens, 1})
        .set_stride({shape.heads * shape.tokens, shape.tokens, 1, 1})
        .set_data_type(fe::DataType_t::FLOAT);
  }
  /// Every query counts, as it does without lengths; keys count up to their sample's length.
  template <class Options>
  void set_lengths(fe::graph::Graph& graph, Options& options) const {
    if (!shape.has_lengths) return;
    const auto counts = [&](Id id) {
      return graph.tensor(fe::graph::Tensor_attributes()
                              .set_uid(id)
                              .set_dim({shape.samples, 1, 1, 1})
                              .set_stride({1, 1, 1, 1})
                              .set_data_type(fe::DataType_t::INT32));
    };
    options.set_padding_mask(true)
        .set_seq_len_q(counts(kQueryCount))
        .set_seq_len_kv(counts(kKeyCount));
  }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(shape.head_width)); }
};

void define_forward(fe::graph::Graph& graph, const Layout& layout) {
  auto options = fe::graph::SDPA_attributes().set_name("forward");
  options.set_generate_stats(true).set_attn_scale(layout.scale());
  layout.set_lengths(graph, options);
  auto [out, lse] =
      graph.sdpa(layout.q(graph), layout.k_or_v(graph, kK), layout.k_or_v(graph, kV), options);
  layout.set_output(out, kOut, layout.shape.heads, layout.strides.out_sample,
                    layout.strides.out_token);
  lse->set_output(true).set_uid(kLse).set_data_type(fe::DataType_t::FLOAT);
}

void define_backward(fe::graph::Graph& graph, const Layout& layout) {
  const AttentionStrides& s = layout.strides;
  const AttentionShape& shape = layout.shape;
  auto options = fe::graph::SDPA_backward_attributes().set_name("backward");
  options.set_attn_scale(layout.scale()).set_deterministic_algorithm(deterministic);
  layout.set_lengths(graph, options);
  const Values q = layout.q(graph), k = layout.k_or_v(graph, kK), v = layout.k_or_v(graph, kV),
               out = layout.add(graph, kOut, shape.heads, s.out_sample, s.out_token),
               dout = layout.add(graph, kDout, shape.heads, s.dout_sample, s.dout_token),
               lse = graph.tensor(layout.lse());
  auto [dq, dk, dv] = graph.sdpa_backward(q, k, v, out, dout, lse, options);
  layout.set_output(dq, kDq, shape.heads, s.dq_sample, s.dq_token);
  layout.set_output(dk, kDk, shape.kv_heads, s.dkv_sample, s.dkv_token);
  layout.set_output(dv, kDv, shape.kv_heads, s.dkv_sample, s.dkv_token);
}

template <class T>
void* bare(const T* pointer) {
  return const_cast<void*>(static_cast<const void*>(pointer));
}

template <class T>
bool has_strides(const HeadRows<T>& rows, int64_t sample, int64_t token) {
  return rows.sample_stride == sample && rows.token_stride == token;
}

class LibraryAttention : public AttentionKernel {
 public:
  LibraryAttention(const AttentionShape& shape, const AttentionStrides& strides, int device)
      : shape_(shape), strides_(strides), handle_(handle_of(device)) {
    const Layout layout{shape_, strides_};
    define_forward(forward_.graph(), layout);
    define_backward(backward_.graph(), layout);
    const std::scoped_lock lock(handle_.mutex);
    is_built_ = forward_.build(handle_.value) && backward_.build(handle_.value);
    if (is_built_ && shape_.has_lengths) fill_query_counts();
  }
  ~LibraryAttention() override { cudaFree(query_counts_); }
  LibraryAttention(const LibraryAttention&) = delete;
  LibraryAttention& operator=(const LibraryAttention&) = delete;

  bool is_built() const { return is_built_; }
  std::string name() const override { return "cudnn"; }
  int64_t workspace_bytes() const override {
    const int64_t most = std::max(forward_.workspace_bytes(), backward_.workspace_bytes());
    return (most + 255) / 256 * 256;
  }

  void forward(const AttentionForward& task, void* workspace, void* stream) override {
    check(has_strides(task.out, strides_.out_sample, strides_.out_token) && has_inputs(task));
    Pointers pointers = inputs(task);
    pointers[kOut] = task.out.values;
    pointers[kLse] = task.lse;
    forward_.run(handle_, pointers, workspace, stream, "forward");
  }

  void backward(const AttentionBackward& task, void* workspace, void* stream) override {
    check(has_inputs(task) && has_strides(task.out, strides_.out_sample, strides_.out_token) &&
          has_strides(task.dout, strides_.dout_sample, strides_.dout_token) &&
          has_strides(task.dq, strides_.dq_sample, strides_.dq_token) &&
          has_strides(task.dk, strides_.dkv_sample, strides_.dkv_token) &&
          has_strides(task.dv, strides_.dkv_sample, strides_.dkv_token));
    Pointers pointers = inputs(task);
    pointers.insert({{kOut, bare(task.out.values)},
                     {kLse, bare(task.lse)},
                     {kDout, bare(task.dout.values)},
                     {kDq, task.dq.values},
                     {kDk, task.dk.values},
                     {kDv, task.dv.values}});
    backward_.run(handle_, pointers, workspace, stream, "backward");
    // cuDNN leaves rows of keys that do not count as they were.
    if (shape_.has_lengths)
      clear_padding(task.dk, task.dv, task.lengths, shape_.samples, shape_.tokens,
                    shape_.kv_heads * shape_.head_width, stream);
  }

 private:
  void fill_query_counts() {
    const std::vector<int32_t> counts(static_cast<size_t>(shape_.samples),
                                      static_cast<int32_t>(shape_.tokens));
    const size_t bytes = counts.size() * sizeof(int32_t);
    VT_CHECK(
        cudaMalloc(&query_counts_, bytes) == cudaSuccess &&
            cudaMemcpy(query_counts_, counts.data(), bytes, cudaMemcpyHostToDevice) == cudaSuccess,
        "[attention] {} bytes of device memory must be had", bytes);
  }

  void check(bool fits) const {
    VT_CHECK(fits, "[attention] operands must have the strides that the kernel was built for{}",
             shape_.has_lengths ? ", and lengths" : " and no lengths");
  }

  template <class Task>
  bool has_inputs(const Task& task) const {
    return has_strides(task.q, strides_.q_sample, strides_.q_token) &&
           has_strides(task.k, strides_.kv_sample, strides_.kv_token) &&
           has_strides(task.v, strides_.kv_sample, strides_.kv_token) &&
           (task.lengths != nullptr) == shape_.has_lengths;
  }

  template <class Task>
  Pointers inputs(const Task& task) const {
    Pointers pointers{
        {kQ, bare(task.q.values)}, {kK, bare(task.k.values)}, {kV, bare(task.v.values)}};
    if (shape_.has_lengths) {
      pointers[kQueryCount] = query_counts_;
      pointers[kKeyCount] = bare(task.lengths);
    }
    return pointers;
  }

  AttentionShape shape_;
  AttentionStrides strides_;
  Handle& handle_;
  Pass forward_, backward_;
  bool is_built_ = false;
  void* query_counts_ = nullptr;
};

}  // namespace

bool has_library_attention() { return true; }

std::string library_attention_words() {
  return fmt::format("cuDNN through cudnn-frontend {}.{}.{}", CUDNN_FRONTEND_MAJOR_VERSION,
                     CUDNN_FRONTEND_MINOR_VERSION, CUDNN_FRONTEND_PATCH_VERSION);
}

void set_library_attention_deterministic(bool is_on) { deterministic = is_on; }
bool library_attention_is_deterministic() { return deterministic; }
const std::string& library_attention_refusal() { return refusal; }

std::unique_ptr<AttentionKernel> library_attention(const AttentionShape& shape,
                                                   const AttentionStrides& strides, int device) {
  int before = 0;
  VT_CHECK(cudaGetDevice(&before) == cudaSuccess && cudaSetDevice(device) == cudaSuccess,
           "[attention] GPU {} must be there", device);
  auto kernel = std::make_unique<LibraryAttention>(shape, strides, device);
  cudaSetDevice(before);
  if (!kernel->is_built()) return nullptr;
  return kernel;
}

}  // namespace vitrail::kernels

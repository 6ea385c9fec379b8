#pragma once
/// Attention's core on bf16 heads that lie side by side in one tensor of q, k and v; forward and backward.
///
///   out = softmax(q k^T / sqrt(head_width)) v;   lse = log(sum(exp(q k^T / sqrt(head_width))))
/// Shapes   q, out and their gradients [samples, tokens, heads, head_width]; k, v [samples, tokens, kv_heads, head_width];
///          lse fp32 [samples, heads, tokens]. Head h of k and v serves heads / kv_heads neighbouring query heads.
///          Strides are in elements; heads of a token lie one after another.
/// Lengths  int32 [samples], at least 1: tokens from there on are not attended to and their dk and dv are 0; as queries they are like all
///          others, so a caller whose loss does not ask for their rows of out gives those a gradient of 0. Null: all
///          tokens count.
/// Needs    device pointers, 16-byte aligned, strides multiples of 8. Asynchronous on the stream; no allocation and no
///          host synchronisation after prepare(), so it may be captured.
/// Paper    Vaswani et al. 2017, arXiv:1706.03762; online softmax: Milakov & Gimelshein 2018, arXiv:1805.02867; tiles:
///          Dao et al. 2022, arXiv:2205.14135.

#include <cstdint>
#include <memory>
#include <string>

namespace vitrail::kernels {

struct AttentionShape {
  int64_t samples = 0, tokens = 0, heads = 0, kv_heads = 0, head_width = 0;
  bool has_lengths = false;
  bool operator==(const AttentionShape&) const = default;
};

/// Where a token's heads begin: pointer + sample * sample_stride + token * token_stride.
template <class T>
struct HeadRows {
  T* values = nullptr;
  int64_t sample_stride = 0, token_stride = 0;
};

struct AttentionForward {
  HeadRows<const uint16_t> q, k, v;
  const int32_t* lengths = nullptr;
  HeadRows<uint16_t> out;
  float* lse = nullptr;
};

struct AttentionBackward {
  HeadRows<const uint16_t> q, k, v, out, dout;
  const int32_t* lengths = nullptr;
  const float* lse = nullptr;
  HeadRows<uint16_t> dq, dk, dv;
};

/// One way of computing attention of one shape.
class AttentionKernel {
 public:
  virtual ~AttentionKernel() = default;
  virtual std::string name() const = 0;
  /// Bytes of device memory that forward and backward need, 256-byte aligned; lent by the caller at each call.
  virtual int64_t workspace_bytes() const = 0;
  virtual void forward(const AttentionForward& task, void* workspace, void* stream) = 0;
  virtual void backward(const AttentionBackward& task, void* workspace, void* stream) = 0;
};

/// The library's (cuDNN), built for these strides; null where it has none. Builds take up to seconds.
struct AttentionStrides {
  int64_t q_sample = 0, q_token = 0, kv_sample = 0, kv_token = 0;  // k and v alike
  int64_t dq_sample = 0, dq_token = 0, dkv_sample = 0, dkv_token = 0;
  int64_t out_sample = 0, out_token = 0, dout_sample = 0, dout_token = 0;
};
std::unique_ptr<AttentionKernel> library_attention(const AttentionShape& shape,
                                                   const AttentionStrides& strides, int device);
/// Own kernels for at most kMostShortTokens tokens and head widths that are multiples of 8 in [32, 128]; null outside.
/// Deterministic.
constexpr int64_t kMostShortTokens = 320;
std::unique_ptr<AttentionKernel> short_attention(const AttentionShape& shape, int device);
/// Own kernels for head widths 16 and 32 and any number of tokens, without lengths or shared heads; null outside.
/// Right for every finite input: the form is chosen on the device by a bound of the logits. Deterministic.
std::unique_ptr<AttentionKernel> narrow_attention(const AttentionShape& shape, int device);

/// The formula on host memory, in fp64 on one thread: what the kernels are tested against. Queries that do not count
/// have dq 0 and add nothing to dk and dv. Time O(samples heads tokens^2 head_width).
void attention_plain_forward(const AttentionShape& shape, const AttentionForward& task);
void attention_plain_backward(const AttentionShape& shape, const AttentionBackward& task);

}  // namespace vitrail::kernels

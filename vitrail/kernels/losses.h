#pragma once
/// Losses with their gradients: a row is read from memory once for both.
///
/// Shapes   logits, prediction and their gradients as bits of bfloat16; losses one fp32 value. May be computed in place.
/// Differs  from models/losses.h only in rounding: sums and losses are fp32, gradients are rounded once.
/// Needs    device pointers; the same result at every launch. Asynchronous on `stream` (a cudaStream_t).
/// throws   Error in a build without CUDA.

#include <cstdint>

namespace vitrail::kernels {

/// Softmax cross-entropy, torch's with class weights, label smoothing and labels that count nowhere; the mean is over
/// the weights of what counts, 0 when nothing does.
/// With labels mixed (mixup, cutmix) a row is `share` of one label and 1 - share of the other.
/// Paper    Szegedy et al. 2016, arXiv:1512.00567 (smoothing); Zhang et al. 2018, arXiv:1710.09412 (mixup).
struct CrossEntropy {
  int64_t rows = 0, classes = 0;
  int64_t stride = 0;  // elements from one row of logits and dlogits to the next
  const uint16_t* logits = nullptr;
  const int64_t* label = nullptr;        // [rows]; below 0 or not below `classes`: counts nowhere
  const int64_t* other = nullptr;        // [rows]; null: not mixed
  const float* share = nullptr;          // [rows], with `other`
  const float* class_weights = nullptr;  // [classes]; null: 1
  float smoothing = 0;
  float scale = 1;  // of the gradient, not of the loss
  float* loss = nullptr;
  uint16_t* dlogits = nullptr;  // null: not wanted; may be logits
  float* partials = nullptr;    // cross_entropy_partials(rows) values
};
int64_t cross_entropy_partials(int64_t rows);
void cross_entropy(const CrossEntropy& task, void* stream);
/// The loop to read and to test against, on host memory; sums in fp64.
void cross_entropy_plain(const CrossEntropy& task);

/// Mean squared error of tokens' values, each token by its weight: sum of weight mean((prediction - target)^2) / sum of
/// weight; 0 when nothing counts.
/// Paper    He et al. 2022, arXiv:2111.06377.
/// Shapes   prediction [samples, prefix + tokens, width] (prefix tokens are not scored, their gradient is 0); target
///          fp32 [samples, tokens, width]; weights fp32 [samples, tokens].
struct TokenError {
  int64_t samples = 0, tokens = 0, prefix = 0, width = 0;
  const uint16_t* prediction = nullptr;
  const float* target = nullptr;
  const float* weights = nullptr;  // the mask; null: 1
  bool normalises = false;         // target by its token's mean and sqrt(unbiased variance + 1e-6)
  float scale = 1;                 // of the gradient, not of the loss
  float* loss = nullptr;
  uint16_t* dprediction = nullptr;  // null: not wanted; may be prediction
  float* partials = nullptr;        // token_error_partials() values
};
int64_t token_error_partials();
void token_error(const TokenError& task, void* stream);
void token_error_plain(const TokenError& task);

}  // namespace vitrail::kernels

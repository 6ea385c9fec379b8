#include "vitrail/kernels/library_attention.h"

#include "vitrail/kernels/attention.h"

namespace vitrail::kernels {

bool has_library_attention() { return false; }

std::string library_attention_words() {
  return "LibTorch's; this build has no cudnn-frontend (a CUDA build after ./script/setup has)";
}

void set_library_attention_deterministic(bool) {}
bool library_attention_is_deterministic() { return false; }

const std::string& library_attention_refusal() {
  static const std::string words = "this build has no cudnn-frontend";
  return words;
}

std::unique_ptr<AttentionKernel> library_attention(const AttentionShape&, const AttentionStrides&,
                                                   int) {
  return nullptr;
}

}  // namespace vitrail::kernels

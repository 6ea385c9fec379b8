#pragma once
/// What library_attention() of attention.h is in this build, and its options.

#include <string>

namespace vitrail::kernels {

/// True where the build found cuDNN and the headers of cudnn-frontend.
bool has_library_attention();
/// "cuDNN through cudnn-frontend 1.32.0", or why there is none.
std::string library_attention_words();

/// Backward passes of kernels built from then on give the same bits every time; cuDNN else adds up dq in any order.
/// Costs up to a seventh of the backward. Off at start.
void set_library_attention_deterministic(bool is_on);
bool library_attention_is_deterministic();

/// Why the calling thread's last library_attention() returned null; empty when it did not.
const std::string& library_attention_refusal();

}  // namespace vitrail::kernels

#pragma once
// Activations whose results leave as numbers of 8 bits. They need whole rows, so they have kernels of their own.

#include "vitrail/kernels/activation.h"

namespace vitrail::kernels {

/// As activation() and activation_backward() with codes.
void activation_codes(const Activation& task, void* stream);
void activation_backward_codes(const ActivationBackward& task, void* stream);
/// 0 for widths that codes cannot have.
int64_t activation_codes_partials(int64_t rows, int64_t width);

}  // namespace vitrail::kernels

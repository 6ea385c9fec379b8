#pragma once
/// The parts of a DeepSpeed file, each answered by a function of its own.

#include <utility>
#include <vector>

#include "vitrail/config/converter.h"

namespace vitrail::config {

/// Keys whose answer is one sentence.
using Notes = std::vector<std::pair<const char*, const char*>>;
void answer(Converter& converter, const std::string& section, const Notes& notes);

/// train_batch_size = train_micro_batch_size_per_gpu x gradient_accumulation_steps x data ranks.
void convert_batch(Converter& converter, const ConvertOptions& options);
/// zero_optimization.
void convert_zero(Converter& converter);
/// optimizer, scheduler, gradient_clipping.
void convert_optimizer(Converter& converter, const ConvertOptions& options);
/// fp16, bf16, data_types, communication_data_type.
void convert_precision(Converter& converter);
/// Everything else.
void convert_rest(Converter& converter, const ConvertOptions& options);

}  // namespace vitrail::config

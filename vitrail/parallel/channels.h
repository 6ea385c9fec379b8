#pragma once
/// Distributed channel aggregation: each tensor rank embeds the variables of its share of the aggregation groups and
/// makes one token of each group; only those are gathered, and the aggregation over groups runs on every rank.
///
/// Paper     D-CHAG: arXiv:2506.21411.
/// Memory    elements of tokens alive after embedding, V variables in G groups, M places, T ranks, D width:
///           whole M V D, then M G D; divided M (V / T) D, then M G D. With one group a rank (G = T) the sum is smallest
///           near T = sqrt(V).
/// Backward  of the gather takes this rank's part of the gradient and communicates nothing: what comes after it gives
///           the same gradient on every rank.

#include <cstdint>
#include <memory>

#include "vitrail/models/variables.h"
#include "vitrail/parallel/tensor_products.h"

namespace vitrail::parallel {

/// Elements of variables' and groups' tokens of one rank; parts = 1: nothing is divided.
constexpr int64_t channel_elements(int64_t places, int64_t variables, int64_t groups, int64_t width,
                                   int64_t parts) {
  return places * width * (variables / parts + (groups > 1 ? groups : 0));
}

/// The rank that embeds a variable and aggregates its group.
constexpr int owner_of_group(int64_t group, int64_t groups, int parts) {
  return static_cast<int>(group / (groups / parts));
}

/// throws ConfigError when the groups cannot be divided over the ranks.
void split_channels(models::VariableTokenizer& tokenizer,
                    const std::shared_ptr<const TensorDivision>& division);

}  // namespace vitrail::parallel

#pragma once
/// Sequence parallelism: ranks share the tokens of every sample inside the trunks, and the maps of convolutional decoders
/// (halo.h); other ends see whole samples.
///
/// Border    each rank takes an equal run of consecutive tokens (the last one's may reach past the end: those mean
///           nothing and attention leaves them out); at the end of a trunk, and at its taps, tokens are gathered.
/// Gradients blocks see only their tokens, so their gradients must be added over the ranks of the sequence, those of the
///           ends must not. Sharding averages over all of them, so the border multiplies what enters a trunk's backward by
///           the number of ranks and divides what leaves it.
/// With      parallel.split_norms the border divides tokens once more, over the tensor ranks, unscaled: layers gather
///           them (tensor.h).

#include <memory>

#include "vitrail/config/recipe.h"
#include "vitrail/models/model.h"
#include "vitrail/parallel/groups.h"

namespace vitrail::parallel {

/// Sets the borders of a model's trunks, the attention cores of their blocks and the tiles of its decoder. Must live as long as the model runs.
class SequenceParallel {
 public:
  /// throws ConfigError when heads or tokens do not fit the ranks.
  SequenceParallel(models::Model& model, const config::Recipe& recipe, Groups& groups);
  ~SequenceParallel();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vitrail::parallel

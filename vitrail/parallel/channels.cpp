#include "vitrail/parallel/channels.h"

namespace vitrail::parallel {

void split_channels(models::VariableTokenizer& tokenizer,
                    const std::shared_ptr<const TensorDivision>& division) {
  models::ChannelShare share{division->group.rank(), division->group.size(), {}};
  share.gather = [division](const at::Tensor& x_GMD) {
    return gather_alike(division, x_GMD).flatten(0, 1);
  };
  tokenizer.set_share(std::move(share));
}

}  // namespace vitrail::parallel

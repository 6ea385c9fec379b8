#include "vitrail/parallel/sequence.h"

#include <map>
#include <numeric>
#include <optional>

#include <ATen/core/Tensor.h>
#include <fmt/ranges.h>

#include "vitrail/comm/launch.h"
#include "vitrail/core/error.h"
#include "vitrail/core/log.h"
#include "vitrail/models/segmenter.h"
#include "vitrail/ops/attention.h"
#include "vitrail/parallel/exchange.h"
#include "vitrail/parallel/halo.h"
#include "vitrail/parallel/ring.h"
#include "vitrail/parallel/token_border.h"
#include "vitrail/parallel/ulysses.h"

namespace vitrail::parallel {
namespace {

using comm::Axis;

/// Some ranks of a group, for buffers on a device.
class Subgroup {
 public:
  Subgroup(comm::Communicator& ranks, int color, int key, at::Device device)
      : host_(ranks.split(color, key)) {
    if (device.is_cuda() && host_->size() > 1)
      on_device_ = comm::device_communicator(*host_, device.index());
  }
  comm::Communicator& get() const { return on_device_ ? *on_device_ : *host_; }

 private:
  std::unique_ptr<comm::Communicator> host_, on_device_;
};

/// The sequence ranks as rings of groups of neighbours that exchange heads.
struct Division {
  Subgroup exchange, ring;
  bool written_out;

  Division(comm::Communicator& ranks, int exchanging, bool plain, at::Device device)
      : exchange(ranks, ranks.rank() / exchanging, ranks.rank(), device),
        ring(ranks, ranks.rank() % exchanging, ranks.rank(), device),
        written_out(plain) {}

  at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    const nn::Attending& how) const {
    const Heads heads = gather_tokens(q, k, v, exchange.get());
    const int64_t first_head = exchange.get().rank() * heads.q.size(1);
    const at::Tensor out =
        ring.get().size() > 1
            ? ring_attention(heads.q, heads.k, heads.v, how, ring.get(), {first_head, written_out})
            : attend_whole(heads, how, first_head);
    return gather_heads(out, exchange.get());
  }

  /// All tokens are here, and some that mean nothing.
  static at::Tensor attend_whole(const Heads& heads, const nn::Attending& how, int64_t first_head) {
    const at::Tensor q = heads.q.narrow(2, 0, how.tokens), k = heads.k.narrow(2, 0, how.tokens),
                     v = heads.v.narrow(2, 0, how.tokens);
    const at::Tensor out =
        how.drop ? ops::plain_attention(q, k, v, how.key_mask_BL,
                                        [&](const at::Tensor& probabilities) {
                                          return how.drop(probabilities, {first_head, 0, 0});
                                        })
                 : how.core(q, k, v, how.key_mask_BL);
    return padded_narrow(out, 2, 0, heads.q.size(2));
  }
};

/// How many neighbours exchange heads in a trunk: as many as asked for or there are, as far as its heads allow.
int exchanging_ranks(const nn::BlockOptions& block, const config::Parallel& parallel,
                     int sequence) {
  const int64_t heads = block.num_heads / parallel.tensor;
  if (parallel.ulysses) return static_cast<int>(std::gcd(*parallel.ulysses, heads));
  const int64_t kv_heads = block.num_kv_heads > 0 ? block.num_kv_heads / parallel.tensor : heads;
  return static_cast<int>(std::gcd<int64_t>(kv_heads, sequence));
}

}  // namespace

class SequenceParallel::Impl {
 public:
  Impl(models::Model& model, const config::Recipe& recipe, Groups& groups) : model_(model) {
    const config::Parallel& parallel = recipe.parallel;
    const int sequence = groups.mesh().size(Axis::sequence);
    const int tensor = groups.mesh().size(Axis::tensor);
    const bool splits_norms = parallel.split_norms && tensor > 1;
    if (sequence == 1 && !splits_norms) return;
    check(parallel, sequence);
    border_.emplace(splits_norms ? groups.along({Axis::sequence, Axis::tensor})
                                 : groups.along({Axis::sequence}),
                    sequence);
    for (nn::Stack* stack : model.stacks()) {
      stack->set_border(&*border_);
      if (stack->depth() == 0) continue;
      const int exchanging = exchanging_ranks(stack->block(0).options(), parallel, sequence);
      auto [found, is_new] = divisions_.try_emplace(exchanging);
      if (is_new)
        found->second =
            std::make_unique<Division>(groups.mesh().along(Axis::sequence), exchanging,
                                       recipe.train.attention == "plain", groups.device());
      for (int i = 0; i < stack->depth(); ++i)
        stack->block(i).attention().set_divided_attend(
            [division = found->second.get()](const at::Tensor& q, const at::Tensor& k,
                                             const at::Tensor& v, const nn::Attending& how) {
              return division->attend(q, k, v, how);
            });
    }
    if (sequence > 1) divide_maps(groups.along({Axis::sequence}));
  }

  ~Impl() {
    if (tiles_) segmenter_->set_tiles(nullptr);
    if (!border_) return;
    for (nn::Stack* stack : model_.stacks()) {
      stack->set_border(nullptr);
      for (int i = 0; i < stack->depth(); ++i) stack->block(i).attention().set_divided_attend({});
    }
  }

 private:
  static void check(const config::Parallel& parallel, int sequence) {
    VT_REQUIRE(ConfigError, !parallel.ulysses || sequence % *parallel.ulysses == 0,
               "[sequence] parallel.ulysses must divide parallel.sequence but got {} and {}",
               parallel.ulysses.value_or(0), sequence);
  }

  void divide_maps(comm::Communicator& group) {
    segmenter_ = dynamic_cast<models::Segmenter*>(&model_);
    if (!segmenter_ || segmenter_->tile_grid().empty()) return;
    const std::vector<int64_t> cells = segmenter_->tile_grid();
    const std::optional<TileGrid> grid = TileGrid::cut(cells, group.size());
    if (!grid) {
      core::log_info(
          "sequence: the decoder runs whole on every rank, because {} ranks cannot each have a "
          "cell of "
          "a grid of {} patches",
          group.size(), fmt::join(cells, "x"));
      return;
    }
    core::log_info("sequence: the decoder's maps are cut into {} tiles of a grid of {} patches",
                   fmt::join(grid->parts(), "x"), fmt::join(cells, "x"));
    tiles_.emplace(group, *grid);
    segmenter_->set_tiles(&*tiles_);
  }

  models::Model& model_;
  models::Segmenter* segmenter_ = nullptr;
  std::optional<HaloTiles> tiles_;
  std::optional<TokenBorder> border_;
  std::map<int, std::unique_ptr<Division>> divisions_;  // by how many ranks exchange heads
};

SequenceParallel::SequenceParallel(models::Model& model, const config::Recipe& recipe,
                                   Groups& groups)
    : impl_(std::make_unique<Impl>(model, recipe, groups)) {}
SequenceParallel::~SequenceParallel() = default;

}  // namespace vitrail::parallel

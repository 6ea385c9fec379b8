#include "vitrail/parallel/halo.h"

#include <cstdio>
#include <limits>
#include <mutex>
#include <string>

#include <ATen/ops/arange.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "tests/models/segmenter_cases.h"
#include "tests/models/tiny_models.h"
#include "tests/parallel/tiny.h"
#include "vitrail/core/error.h"
#include "vitrail/models/losses.h"
#include "vitrail/nn/conv.h"
#include "vitrail/ops/resample.h"
#include "vitrail/parallel/exchange.h"

namespace vitrail::parallel {
namespace {

// fp64: the same sums in another order; worst seen 5e-13.
constexpr double kAllowed = 5e-12;

at::Tensor leaf(const std::vector<int64_t>& shape, uint16_t layer) {
  return models::random(shape, layer).to(at::kDouble).set_requires_grad(true);
}

std::vector<int64_t> joined(std::vector<int64_t> first, const std::vector<int64_t>& rest) {
  first.insert(first.end(), rest.begin(), rest.end());
  return first;
}

std::vector<int64_t> times(std::vector<int64_t> sides, int64_t factor) {
  for (int64_t& side : sides) side *= factor;
  return sides;
}

/// A piece of a decoder: doubling, convolution, norm, resizing, convolution with an edge of 5 and a bias. `resized`: sides
/// of a cell at its end.
struct Decoder {
  Decoder(std::vector<int64_t> cells, int64_t resized)
      : cells_(std::move(cells)), resized_(resized) {
    const std::vector<int64_t> two(cells_.size(), 2), three(cells_.size(), 3),
        five(cells_.size(), 5);
    weights = {leaf(joined({2, 3}, two), 2), leaf(joined({4, 3}, three), 1),
               leaf(joined({2, 4}, five), 3), leaf({2}, 4)};
  }

  at::Tensor doubled(const at::Tensor& x) const {
    const std::vector<int64_t> twos(cells_.size(), 2), zeros(cells_.size(), 0),
        ones(cells_.size(), 1);
    return at::convolution(x, weights[0], {}, twos, zeros, ones, true, zeros, 1);
  }
  at::Tensor plain(const at::Tensor& x) const {
    const std::vector<int64_t> ones(cells_.size(), 1), zeros(cells_.size(), 0),
        two(cells_.size(), 2);
    at::Tensor y = at::convolution(doubled(x), weights[1], {}, ones, ones, ones, false, zeros, 1);
    y = ops::resize_linear(at::leaky_relu(nn::instance_norm(y)), times(cells_, resized_));
    return at::convolution(y, weights[2], weights[3], ones, two, ones, false, zeros, 1);
  }
  at::Tensor divided(const at::Tensor& x, nn::Tiles& tiles) const {
    at::Tensor y = tiles.conv(doubled(tiles.enter(x)), weights[1], {});
    y = tiles.resize(at::leaky_relu(nn::instance_norm(y, &tiles)), times(cells_, resized_));
    return tiles.leave(tiles.conv(y, weights[2], weights[3]));
  }

  std::vector<int64_t> cells_;
  int64_t resized_;
  std::vector<at::Tensor> weights;
};

double worst_difference(int ranks, const std::vector<int64_t>& cells, int64_t resized) {
  const std::vector<int64_t> shape = joined({2, 2}, cells);
  const at::Tensor x = leaf(shape, 0);
  const Decoder decoder(cells, resized);
  const at::Tensor expected = decoder.plain(x);
  const at::Tensor dy = models::random(expected.sizes(), 9).to(at::kDouble);
  expected.backward(dy);
  double worst = 0;
  std::mutex mutex;
  comm::run_thread_group(ranks, [&](comm::Communicator& group) {
    testing::use_one_thread();
    const at::Tensor own_x = leaf(shape, 0);
    const Decoder own(cells, resized);
    HaloTiles tiles(group, *TileGrid::cut(cells, ranks));
    const at::Tensor y = own.divided(own_x, tiles);
    y.backward(dy);
    std::vector<double> differences{testing::largest((y - expected).detach()),
                                    testing::largest(own_x.grad() - x.grad())};
    for (size_t i = 0; i < own.weights.size(); ++i) {
      const at::Tensor gradient = own.weights[i].grad().clone();
      group.all_reduce(buffer_of(gradient), comm::Reduce::average).wait();
      differences.push_back(testing::largest(gradient - decoder.weights[i].grad()));
    }
    const std::lock_guard lock(mutex);
    for (const double difference : differences) worst = std::max(worst, difference);
  });
  return worst;
}

TEST(Halo, DividedDecodersAreThoseOfTheWholeMap) {
  for (const int ranks : {1, 2, 3, 4, 6, 8})
    for (const std::vector<int64_t>& cells :
         std::vector<std::vector<int64_t>>{{9}, {4, 4}, {2, 7}, {2, 3, 5}})
      for (const int64_t resized : {2, 5}) {  // 2: as it is, 5: rows between rows
        if (!TileGrid::cut(cells, ranks)) continue;
        const double worst = worst_difference(ranks, cells, resized);
        std::printf("%s cells in %s tiles, %d rows each: worst difference %.2g (allowed %.0e)\n",
                    fmt::format("{}", fmt::join(cells, "x")).c_str(),
                    fmt::format("{}", fmt::join(TileGrid::cut(cells, ranks)->parts(), "x")).c_str(),
                    static_cast<int>(resized), worst, kAllowed);
        EXPECT_LE(worst, kAllowed);
      }
}

TEST(Halo, ResizingIsThatOfTheWholeMapAtEveryRatio) {
  const std::vector<int64_t> cells{5, 3};
  double worst = 0;
  for (const int64_t from : {1, 2, 8, 16})
    for (const int64_t to : {1, 2, 3, 5, 7, 8, 9, 15, 17, 31})
      for (const int ranks : {2, 5, 6, 15}) {
        const at::Tensor x = models::random(joined({1, 2}, times(cells, from))).to(at::kDouble);
        const at::Tensor expected = ops::resize_linear(x, times(cells, to));
        std::mutex mutex;
        comm::run_thread_group(ranks, [&](comm::Communicator& group) {
          testing::use_one_thread();
          HaloTiles tiles(group, *TileGrid::cut(cells, ranks));
          const at::Tensor y = tiles.leave(tiles.resize(tiles.enter(x), times(cells, to)));
          const std::lock_guard lock(mutex);
          worst = std::max(worst, testing::largest(y - expected));
        });
      }
  std::printf("worst difference %.2g (allowed %.0e)\n", worst, kAllowed);
  EXPECT_LE(worst, kAllowed);
}

TEST(Halo, BorrowsTheNeighboursRowsAndZerosAtTheEnds) {
  comm::run_thread_group(3, [&](comm::Communicator& group) {
    const double rank = group.rank();
    HaloTiles tiles(group, *TileGrid::cut({3, 1}, 3));
    const at::Tensor x = at::zeros({1, 1, 2, 1}) + rank + 1.0;
    const at::Tensor y = tiles.with_halo(x, 0, 1).flatten();
    EXPECT_EQ(y.size(0), 4);
    EXPECT_EQ(y[0].item().toDouble(), rank);
    EXPECT_EQ(y[3].item().toDouble(), rank == 2 ? 0.0 : rank + 2.0);
    EXPECT_TRUE(tiles.with_halo(x, 1, 1).is_same(x));  // whole along this axis
  });
}

TEST(Halo, LabelsAreCutAsTheirImages) {
  comm::run_thread_group(4, [&](comm::Communicator& group) {
    HaloTiles tiles(group, *TileGrid::cut({2, 2}, 4));
    const at::Tensor label = at::arange(32, at::kLong).view({2, 4, 4});
    const at::Tensor own = tiles.enter(label);
    EXPECT_EQ(own.scalar_type(), at::kLong);
    EXPECT_TRUE(own.equal(tiles.enter(label.unsqueeze(1)).squeeze(1)));
    EXPECT_TRUE(tiles.leave(own).equal(label));
  });
}

/// Loss and its gradient over tiles against those of the whole.
double worst_of_loss(const config::Model& options, const at::Tensor& logits,
                     const at::Tensor& label) {
  const auto loss_of = [&](const at::Tensor& x, const at::Tensor& y,
                           const models::SumOverParts& sum) {
    return options.loss == "mse" ? models::values_loss(x, y, {}, sum)
                                 : models::segmentation_loss(x, y, options, {}, sum);
  };
  const at::Tensor x = logits.clone().set_requires_grad(true);
  const at::Tensor expected = loss_of(x, label, {});
  expected.backward();
  double worst = 0;
  std::mutex mutex;
  comm::run_thread_group(3, [&](comm::Communicator& group) {
    testing::use_one_thread();
    HaloTiles tiles(group, *TileGrid::cut({4, 3}, 3));
    const at::Tensor own = logits.clone().set_requires_grad(true);
    const at::Tensor loss = loss_of(tiles.enter(own), tiles.enter(label),
                                    [&](const at::Tensor& sums) { return tiles.sum(sums); });
    loss.backward();
    const std::lock_guard lock(mutex);
    worst = std::max({worst, testing::largest((loss - expected).detach()),
                      testing::largest(own.grad() - x.grad())});
  });
  return worst;
}

TEST(Halo, EveryLossOverTilesIsThatOfTheWhole) {
  config::Model options;
  options.num_classes = 3, options.focal_gamma = 2.0;
  const std::vector<int64_t> sides{8, 6};
  const at::Tensor logits = models::random(joined({3, 3}, sides)).to(at::kDouble);
  at::Tensor label = models::labels(3, sides, 3);
  label[0].slice(0, 0, 5).fill_(-1);  // no pixel of the first tile counts
  label[1].fill_(-1);                 // none of the sample does
  for (const char* loss :
       {"cross_entropy", "focal", "dice", "dice_ce", "dice_focal", "generalized_dice"}) {
    options.loss.value = loss;
    for (const std::vector<double>& weights : {std::vector<double>{}, {1.0, 2.0, 0.5}}) {
      options.class_weights = weights;
      const double worst = worst_of_loss(options, logits, label);
      std::printf("%s: worst difference %.2g (allowed %.0e)\n", loss, worst, kAllowed);
      EXPECT_LE(worst, kAllowed);
    }
  }
  options.loss.value = "mse";
  const at::Tensor values = at::where(label.unsqueeze(1).expand_as(logits) < 0,
                                      std::numeric_limits<double>::quiet_NaN(), logits * 0.3);
  EXPECT_LE(worst_of_loss(options, logits, values), kAllowed);
}

TEST(Halo, NormsOfBf16HaveStatisticsInFp32) {
  // A mean that bf16 cannot tell from its neighbours: statistics of rounded sums would be far off.
  const at::Tensor x = (models::random({2, 3, 24, 16}) + 100.0).to(at::kBFloat16);
  const at::Tensor expected = nn::instance_norm(x.to(at::kFloat));
  comm::run_thread_group(3, [&](comm::Communicator& group) {
    testing::use_one_thread();
    HaloTiles tiles(group, *TileGrid::cut({4, 4}, 3));
    const at::Tensor y = tiles.leave(tiles.instance_norm(tiles.enter(x)));
    EXPECT_EQ(y.scalar_type(), at::kBFloat16);
    EXPECT_LE(testing::relative_difference(y.to(at::kFloat), expected), 1.0 / 256);  // its rounding
  });
}

TEST(Halo, RefusesMapsThatAreNoMultiplesAndCellsThinnerThanTheHalo) {
  comm::run_thread_group(2, [&](comm::Communicator& group) {
    HaloTiles tiles(group, *TileGrid::cut({2, 2}, 2));
    EXPECT_THROW(tiles.enter(at::zeros({1, 1, 3, 2})), core::Error);
    EXPECT_THROW(tiles.with_halo(at::zeros({1, 1, 1, 2}), 0, 2), core::Error);
    EXPECT_THROW(tiles.conv(at::zeros({1, 1, 1, 2}), at::zeros({1, 1, 5, 5}), {}), core::Error);
  });
}

}  // namespace
}  // namespace vitrail::parallel

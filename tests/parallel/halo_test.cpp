#include "vitrail/parallel/halo.h"

#include <cstdio>
#include <mutex>

#include <ATen/ops/convolution.h>
#include <ATen/ops/leaky_relu.h>
#include <gtest/gtest.h>

#include "tests/models/tiny_models.h"
#include "tests/parallel/tiny.h"
#include "vitrail/core/error.h"
#include "vitrail/nn/conv.h"
#include "vitrail/parallel/exchange.h"

namespace vitrail::parallel {
namespace {

// fp64: the same sums in another order; worst seen 1.3e-13.
constexpr double kAllowed = 1e-12;

/// A piece of a decoder: convolution, norm, doubling, convolution with an edge of 5.
struct Decoder {
  explicit Decoder(int64_t axes) : axes_(static_cast<size_t>(axes)) {
    const auto leaf = [&](int64_t out, int64_t in, int64_t kernel, uint16_t layer) {
      std::vector<int64_t> shape{out, in};
      shape.insert(shape.end(), axes_, kernel);
      return models::random(shape, layer).to(at::kDouble).set_requires_grad(true);
    };
    weights = {leaf(4, 2, 3, 1), leaf(4, 3, 2, 2), leaf(2, 3, 5, 3),
               models::random({2}, 4).to(at::kDouble).set_requires_grad(true)};
  }

  at::Tensor doubled(const at::Tensor& x) const {
    const std::vector<int64_t> twos(axes_, 2), zeros(axes_, 0), ones(axes_, 1);
    return at::convolution(x, weights[1], {}, twos, zeros, ones, true, zeros, 1);
  }
  at::Tensor plain(const at::Tensor& x) const {
    const std::vector<int64_t> ones(axes_, 1), zeros(axes_, 0), two(axes_, 2);
    at::Tensor y = at::convolution(x, weights[0], {}, ones, ones, ones, false, zeros, 1);
    y = doubled(at::leaky_relu(nn::instance_norm(y)));
    return at::convolution(y, weights[2], weights[3], ones, two, ones, false, zeros, 1);
  }
  at::Tensor divided(const at::Tensor& x, comm::Communicator& group) const {
    at::Tensor y = slab_conv(enter_slab(x, group), weights[0], {}, group);
    y = doubled(at::leaky_relu(slab_instance_norm(y, group)));
    return leave_slab(slab_conv(y, weights[2], weights[3], group), group);
  }

  size_t axes_;
  std::vector<at::Tensor> weights;
};

at::Tensor leaf_map(const std::vector<int64_t>& sides) {
  std::vector<int64_t> shape{2, 2};
  shape.insert(shape.end(), sides.begin(), sides.end());
  return models::random(shape).to(at::kDouble).set_requires_grad(true);
}

double worst_difference(int ranks, const std::vector<int64_t>& sides) {
  const auto axes = static_cast<int64_t>(sides.size());
  const at::Tensor x = leaf_map(sides);
  const Decoder decoder(axes);
  const at::Tensor expected = decoder.plain(x);
  const at::Tensor dy = models::random(expected.sizes(), 9).to(at::kDouble);
  expected.backward(dy);
  double worst = 0;
  std::mutex mutex;
  comm::run_thread_group(ranks, [&](comm::Communicator& group) {
    testing::use_one_thread();
    const at::Tensor own_x = leaf_map(sides);
    const Decoder own(axes);
    const at::Tensor y = own.divided(own_x, group);
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

TEST(Halo, DividedConvolutionsAreThoseOfTheWholeMap) {
  for (const int ranks : {1, 2, 3, 4})
    for (const int64_t rows : {1, 2, 3})  // of a slab; the second convolution borrows two
      for (const std::vector<int64_t>& rest : {std::vector<int64_t>{5}, {3, 4}}) {
        std::vector<int64_t> sides{rows * ranks};
        sides.insert(sides.end(), rest.begin(), rest.end());
        const double worst = worst_difference(ranks, sides);
        std::printf("%d ranks, %d rows each, %d axes: worst difference %.2g (allowed %.0e)\n",
                    ranks, static_cast<int>(rows), static_cast<int>(sides.size()), worst, kAllowed);
        EXPECT_LE(worst, kAllowed);
      }
}

TEST(Halo, BorrowsTheNeighboursRowsAndZerosAtTheEnds) {
  comm::run_thread_group(3, [&](comm::Communicator& group) {
    const double rank = group.rank();
    const at::Tensor x = at::zeros({1, 1, 2, 1}) + rank + 1.0;
    const at::Tensor y = with_halo(x, 1, group).flatten();
    EXPECT_EQ(y.size(0), 4);
    EXPECT_EQ(y[0].item().toDouble(), rank);
    EXPECT_EQ(y[3].item().toDouble(), rank == 2 ? 0.0 : rank + 2.0);
  });
}

TEST(Halo, RefusesRowsThatDoNotDivideAndSlabsThinnerThanTheHalo) {
  comm::run_thread_group(2, [&](comm::Communicator& group) {
    EXPECT_THROW(enter_slab(at::zeros({1, 1, 3, 2}), group), core::ConfigError);
    EXPECT_THROW(with_halo(at::zeros({1, 1, 1, 2}), 2, group), core::Error);
  });
}

}  // namespace
}  // namespace vitrail::parallel

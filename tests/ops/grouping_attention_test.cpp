#include "vitrail/ops/grouping_attention.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <new>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <c10/core/CPUAllocator.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/neighbourhood_attention.h"
#include "vitrail/ops/random.h"

namespace vitrail::ops {
namespace {

at::Tensor random(at::IntArrayRef shape, uint16_t layer, at::ScalarType type) {
  int64_t count = 1;
  for (const int64_t side : shape) count *= side;
  const at::Tensor values =
      uniform({17, core::Stream::test, 0, layer}, at::arange(1, at::kLong), count).view(shape);
  return ((values - 0.5) * 2.0).to(type);
}

struct Case {
  at::Tensor q, k, v, dout;
};

Case make_case(int64_t B, int64_t N, int64_t G, int64_t L, int64_t E, at::ScalarType type) {
  return {random({B, N, G, E}, 1, type), random({B, N, L, E}, 2, type),
          random({B, N, L, E}, 3, type), random({B, N, G, E}, 4, type)};
}

/// Result and gradients of q, k, v.
using Outcome = std::array<at::Tensor, 4>;

template <class Attend>
Outcome outcome(const Case& given, const Attend& attend) {
  const at::Tensor q = given.q.detach().set_requires_grad(true);
  const at::Tensor k = given.k.detach().set_requires_grad(true);
  const at::Tensor v = given.v.detach().set_requires_grad(true);
  const at::Tensor out = attend(q, k, v);
  out.backward(given.dout);
  return {out.detach(), q.grad(), k.grad(), v.grad()};
}

/// Largest difference over the largest value of the reference, or of its result where that is larger: one group gets the
/// whole of every cell, so that gradients of q and k are what is left of terms of the result's size.
double worst(const Outcome& mine, const Outcome& reference) {
  double most = 0;
  const double result = reference[0].abs().max().item().toDouble();
  for (size_t i = 0; i < mine.size(); ++i) {
    const at::Tensor a = mine[i].to(at::kDouble), b = reference[i].to(at::kDouble);
    const double size = std::max(b.abs().max().item<double>(), result);
    most = std::max(most, (a - b).abs().max().item<double>() / size);
  }
  return most;
}

constexpr int64_t kWhole = int64_t{1} << 40;

TEST(GroupingAttention, StreamedIsTheFormulaWhateverThePieces) {
  // A piece of one row, of some, of whole maps, of several of them.
  for (const auto& [type, allowed] : {std::pair{at::kDouble, 1e-12}, std::pair{at::kFloat, 1e-5}}) {
    double most = 0;
    for (const int64_t workspace : {int64_t{1}, int64_t{4000}, int64_t{20000}, kWhole})
      for (const auto& [G, L] : {std::pair<int64_t, int64_t>{1, 1}, {1, 40}, {7, 40}, {20, 9}}) {
        const Case given = make_case(2, 3, G, L, 8, type);
        const Outcome reference = outcome(given, [](const auto& q, const auto& k, const auto& v) {
          return plain_grouping_attention(q, k, v);
        });
        const Outcome streamed = outcome(given, [&](const auto& q, const auto& k, const auto& v) {
          return grouping_attention(q, k, v, workspace);
        });
        if (L > 1)
          most = std::max(most, worst(streamed, reference));
        else
          EXPECT_LT((streamed[0] - reference[0]).abs().max().item<double>(), allowed);
      }
    fmt::print("worst relative difference, {} bytes a value: {:.2e}\n", at::elementSize(type),
               most);
    // Sums of at most 40 terms in another order: some tens of roundings of 1e-16 or 6e-8 each.
    EXPECT_LT(most, allowed);
  }
}

TEST(GroupingAttention, EveryColumnIsSharedOutOnce) {
  const Case given = make_case(1, 2, 5, 12, 4, at::kDouble);
  GroupingMaps maps;
  plain_grouping_attention(given.q, given.k, given.v, &maps);
  EXPECT_LT((maps.share.sum(-2) - 1.0).abs().max().item<double>(), 1e-6);  // eps over small sums
  EXPECT_LT((maps.assignment.sum(-1) - 1.0).abs().max().item<double>(), 1e-14);
}

/// sum(dout * result) as a function of one value of one argument.
template <class Attend>
double by_differences(const Case& given, const Attend& attend, int argument, int64_t place) {
  const at::NoGradGuard no_grad;
  constexpr double kStep = 1e-5;
  double ends[2];
  for (int end = 0; end < 2; ++end) {
    Case moved{given.q.clone(), given.k.clone(), given.v.clone(), given.dout};
    at::Tensor& x = argument == 0 ? moved.q : argument == 1 ? moved.k : moved.v;
    x.view(-1).narrow(0, place, 1).add_(end == 0 ? -kStep : kStep);
    ends[end] = (attend(moved.q, moved.k, moved.v) * given.dout).sum().template item<double>();
  }
  return (ends[1] - ends[0]) / (2 * kStep);
}

template <class Attend>
double worst_difference_quotient(const Case& given, const Attend& attend) {
  const Outcome found = outcome(given, attend);
  double most = 0;
  for (int argument = 0; argument < 3; ++argument) {
    const at::Tensor gradient = found[static_cast<size_t>(argument) + 1].reshape({-1});
    const double size = gradient.abs().max().item<double>();
    for (int64_t place = 0; place < gradient.numel(); ++place)
      most = std::max(most, std::abs(by_differences(given, attend, argument, place) -
                                     gradient[place].item<double>()) /
                                size);
  }
  return most;
}

TEST(GroupingAttention, GradientsAreThoseOfDifferences) {
  const Case given = make_case(1, 2, 3, 10, 4, at::kDouble);
  const double dense =
      worst_difference_quotient(given, [](const auto& q, const auto& k, const auto& v) {
        return grouping_attention(q, k, v, /*workspace_bytes=*/200);
      });
  const Neighbourhood where = make_neighbourhood({2, 5}, {1, 3}, 2, 3);
  const double sparse =
      worst_difference_quotient(given, [&](const auto& q, const auto& k, const auto& v) {
        return neighbourhood_attention(q, k, v, where);
      });
  fmt::print("worst against differences: dense {:.2e}, sparse {:.2e}\n", dense, sparse);
  // Central differences err by step^2 = 1e-10 times a third derivative, and by 1e-16 / step.
  EXPECT_LT(dense, 1e-7);
  EXPECT_LT(sparse, 1e-7);
}

TEST(GroupingAttention, HalfTypesGiveHalfPrecision) {
  const Case wide = make_case(2, 2, 6, 30, 8, at::kFloat);
  const Case half{wide.q.to(at::kBFloat16), wide.k.to(at::kBFloat16), wide.v.to(at::kBFloat16),
                  wide.dout.to(at::kBFloat16)};
  const Case rounded{half.q.to(at::kFloat), half.k.to(at::kFloat), half.v.to(at::kFloat),
                     half.dout.to(at::kFloat)};
  const auto streamed = [](const auto& q, const auto& k, const auto& v) {
    return grouping_attention(q, k, v, 1);
  };
  const Outcome mine = outcome(half, streamed);
  EXPECT_EQ(mine[0].scalar_type(), at::kBFloat16);
  const double most = worst(mine, outcome(rounded, streamed));
  fmt::print("bf16 in and out, against fp32 of the same numbers: {:.2e}\n", most);
  EXPECT_LT(most, 1.2e-2);  // results and the kept output are rounded to 8 bits: 2^-8 = 4e-3 each
}

TEST(GroupingAttention, RefusesShapesThatDoNotFit) {
  const Case given = make_case(1, 2, 3, 4, 4, at::kFloat);
  EXPECT_THROW(grouping_attention(given.q, given.k, given.v.narrow(2, 0, 3), 100), core::Error);
  EXPECT_THROW(plain_grouping_attention(given.q.narrow(2, 0, 0), given.k, given.v), core::Error);
}

TEST(NeighbourhoodAttention, IsTheFormulaWithTheOtherCellsMasked) {
  struct Grid {
    std::vector<int64_t> cells, groups;
    int64_t stride, width;
  };
  const std::vector<Grid> grids{{{6, 7}, {6, 7}, 1, 3},       {{6, 7}, {2, 3}, 3, 3},
                                {{8, 5}, {4, 3}, 2, 5},       {{2, 9}, {1, 5}, 2, 3},
                                {{4, 5, 6}, {2, 3, 3}, 2, 3}, {{1, 1}, {1, 1}, 3, 3}};
  for (const auto& [type, allowed] : {std::pair{at::kDouble, 1e-12}, std::pair{at::kFloat, 1e-5}}) {
    double most = 0;
    for (const Grid& grid : grids) {
      const Neighbourhood where =
          make_neighbourhood(grid.cells, grid.groups, grid.stride, grid.width);
      const Case given = make_case(2, 2, where.groups(), where.cells(), 4, type);
      const Outcome reference = outcome(given, [&](const auto& q, const auto& k, const auto& v) {
        return plain_neighbourhood_attention(q, k, v, where);
      });
      const Outcome mine = outcome(given, [&](const auto& q, const auto& k, const auto& v) {
        return neighbourhood_attention(q, k, v, where);
      });
      if (where.cells() > 1) most = std::max(most, worst(mine, reference));
    }
    fmt::print("worst relative difference, {} bytes a value: {:.2e}\n", at::elementSize(type),
               most);
    EXPECT_LT(most, allowed);  // as for the dense form
  }
}

TEST(Neighbourhood, WindowsMoveInwardAtBorders) {
  const Neighbourhood where = make_neighbourhood({5}, {3}, 2, 3);
  const std::vector<std::vector<int64_t>> expected{{0, 1, 2}, {1, 2, 3}, {2, 3, 4}};
  for (int64_t g = 0; g < 3; ++g)
    for (int64_t w = 0; w < 3; ++w) EXPECT_EQ(where.cells_GW[g][w].item<int64_t>(), expected[g][w]);
  // Cell 2 is seen by all three groups: in places 2, 4 and 6; cell 0 by the first alone.
  EXPECT_EQ(where.seen_LM.size(1), 3);
  EXPECT_EQ(where.seen_LM[2][2].item<int64_t>(), 6);
  EXPECT_EQ(where.seen_LM[0][0].item<int64_t>(), 0);
  EXPECT_EQ(where.seen_LM[0][1].item<int64_t>(), 9);
}

TEST(Neighbourhood, WidestWindowIsTheDenseForm) {
  const Neighbourhood where = make_neighbourhood({4, 3}, {2, 2}, 2, 9);
  const Case given = make_case(1, 2, 4, 12, 4, at::kDouble);
  const at::Tensor sparse = neighbourhood_attention(given.q, given.k, given.v, where);
  const at::Tensor dense = plain_grouping_attention(given.q, given.k, given.v);
  EXPECT_LT((sparse - dense).abs().max().item<double>(), 1e-12);
}

/// Counts what tensors hold while it lives.
class CountingAllocator : public c10::Allocator {
 public:
  CountingAllocator() : before_(c10::GetCPUAllocator()) { c10::SetCPUAllocator(this, 100); }
  ~CountingAllocator() override { c10::SetCPUAllocator(before_, 100); }
  c10::DataPtr allocate(size_t bytes) override {
    constexpr size_t kAlignment = 64;
    const size_t room = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    void* data = std::aligned_alloc(kAlignment, room + kAlignment);
    if (!data) throw std::bad_alloc();
    *static_cast<size_t*>(data) = room;
    now_ += static_cast<int64_t>(room);
    most_ = std::max(most_.load(), now_.load());
    return {static_cast<char*>(data) + kAlignment, data, &release, c10::Device(c10::kCPU)};
  }
  void copy_data(void* to, const void* from, std::size_t count) const override {
    default_copy_data(to, from, count);
  }
  static void begin() {
    most_ = now_.load();
    base_ = now_.load();
  }
  static int64_t peak() { return most_ - base_; }

 private:
  static void release(void* data) {
    now_ -= static_cast<int64_t>(*static_cast<size_t*>(data));
    std::free(data);
  }
  c10::Allocator* before_;
  static std::atomic<int64_t> now_, most_, base_;
};
std::atomic<int64_t> CountingAllocator::now_{0}, CountingAllocator::most_{0},
    CountingAllocator::base_{0};

int64_t peak_bytes(int64_t side, int64_t workspace) {
  const int64_t groups = (side - 1) / 3 + 1;
  const Case given = make_case(1, 2, groups * groups, side * side, 16, at::kFloat);
  CountingAllocator::begin();
  outcome(given, [&](const auto& q, const auto& k, const auto& v) {
    return workspace > 0 ? grouping_attention(q, k, v, workspace)
                         : plain_grouping_attention(q, k, v);
  });
  return CountingAllocator::peak();
}

TEST(GroupingAttention, MemoryGrowsWithCellsNotWithMaps) {
  static CountingAllocator* const counting =
      new CountingAllocator;  // what it gave may outlive the test
  ASSERT_EQ(c10::GetCPUAllocator(), counting);
  constexpr int64_t kWorkspace = int64_t{1} << 20;
  const int64_t small = peak_bytes(64, kWorkspace), large = peak_bytes(128, kWorkspace);
  const int64_t stored = peak_bytes(64, 0);
  fmt::print(
      "peak of forward and backward, 2 heads of 16, workspace 1 MiB: 64^2 {:.2f} MiB, 128^2 {:.2f} "
      "MiB; maps "
      "stored 64^2 {:.1f} MiB\n",
      static_cast<double>(small) / 1048576, static_cast<double>(large) / 1048576,
      static_cast<double>(stored) / 1048576);
  // Four times the cells, sixteen times the maps.
  EXPECT_LT(large - kWorkspace, 4.2 * static_cast<double>(small - kWorkspace));
  EXPECT_LT(small, stored / 5);
}

}  // namespace
}  // namespace vitrail::ops

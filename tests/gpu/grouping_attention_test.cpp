// Streamed grouping attention on a GPU: the formula's numbers, and memory that grows with cells. Larger grids, up to
// VITRAIL_GROUPING_SIDE (default 128; 512 takes minutes), are only measured.

#include "vitrail/ops/grouping_attention.h"

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <gtest/gtest.h>

#include "vitrail/ops/neighbourhood_attention.h"
#include "vitrail/ops/random.h"
#include "vitrail/parallel/device.h"

namespace vitrail::ops {
namespace {

const at::Device kGpu(at::kCUDA, 0);
constexpr double kGib = 1073741824.0;
constexpr int64_t kWorkspace = int64_t{256} << 20;

/// The same numbers whatever the device.
at::Tensor random(at::IntArrayRef shape, uint16_t layer, at::ScalarType type) {
  int64_t count = 1;
  for (const int64_t side : shape) count *= side;
  const at::Tensor values =
      uniform({17, core::Stream::test, 0, layer}, at::arange(1, at::kLong), count).view(shape);
  return ((values - 0.5) * 2.0).to(kGpu).to(type);
}

using Outcome = std::array<at::Tensor, 4>;

template <class Attend>
Outcome outcome(int64_t B, int64_t N, int64_t G, int64_t L, int64_t E, at::ScalarType type,
                const Attend& attend) {
  const at::Tensor q = random({B, N, G, E}, 1, type).set_requires_grad(true);
  const at::Tensor k = random({B, N, L, E}, 2, type).set_requires_grad(true);
  const at::Tensor v = random({B, N, L, E}, 3, type).set_requires_grad(true);
  const at::Tensor out = attend(q, k, v);
  out.backward(random({B, N, G, E}, 4, type));
  return {out.detach(), q.grad(), k.grad(), v.grad()};
}

double worst(const Outcome& mine, const Outcome& reference) {
  double most = 0;
  for (size_t i = 0; i < mine.size(); ++i) {
    const at::Tensor a = mine[i].to(at::kDouble), b = reference[i].to(at::kDouble);
    most = std::max(most, (a - b).abs().max().item<double>() / b.abs().max().item<double>());
  }
  return most;
}

TEST(GpuGroupingAttention, StreamedIsTheFormula) {
  for (const auto& [type, allowed] : {std::pair{at::kDouble, 1e-12}, std::pair{at::kFloat, 1e-5},
                                      std::pair{at::kBFloat16, 3e-2}}) {
    double most = 0;
    for (const int64_t workspace : {int64_t{1}, int64_t{1} << 20, int64_t{1} << 30}) {
      const Outcome streamed =
          outcome(2, 4, 30, 500, 16, type, [&](const auto& q, const auto& k, const auto& v) {
            return grouping_attention(q, k, v, workspace);
          });
      const Outcome stored =
          outcome(2, 4, 30, 500, 16, type, [](const auto& q, const auto& k, const auto& v) {
            return plain_grouping_attention(q, k, v);
          });
      most = std::max(most, worst(streamed, stored));
    }
    std::printf("grouping attention on the GPU, %s: worst %.2e (allowed %.0e)\n",
                c10::toString(type), most, allowed);
    // Sums of 500 terms in another order; bf16: maps and operands are rounded to 8 bits, where the formula keeps fp32.
    EXPECT_LE(most, allowed);
  }
}

TEST(GpuGroupingAttention, SparseIsTheMaskedFormula) {
  const Neighbourhood host = make_neighbourhood({20, 25}, {7, 9}, 3, 3);
  const Neighbourhood where{host.cells_GW.to(kGpu), host.seen_LM.to(kGpu)};
  const Outcome mine =
      outcome(2, 4, 63, 500, 16, at::kFloat, [&](const auto& q, const auto& k, const auto& v) {
        return neighbourhood_attention(q, k, v, where);
      });
  const Outcome masked =
      outcome(2, 4, 63, 500, 16, at::kFloat, [&](const auto& q, const auto& k, const auto& v) {
        return plain_neighbourhood_attention(q, k, v, where);
      });
  const double most = worst(mine, masked);
  std::printf("sparse on the GPU: worst %.2e\n", most);
  EXPECT_LE(most, 1e-5);
}

TEST(GpuGroupingAttention, MemoryGrowsWithCellsNotWithMaps) {
  constexpr int64_t kBatch = 4, kHeads = 16, kHeadWidth = 16;
  const char* given = std::getenv("VITRAIL_GROUPING_SIDE");
  const int64_t last = given ? std::atoll(given) : 128;
  for (int64_t side = 64; side <= last; side *= 2) {
    const int64_t L = side * side, G = ((side - 1) / 3 + 1) * ((side - 1) / 3 + 1);
    const auto measure = [&](auto&& attend) {
      parallel::reset_peak_memory(kGpu);
      const auto start = std::chrono::steady_clock::now();
      const Outcome found = outcome(kBatch, kHeads, G, L, kHeadWidth, at::kBFloat16, attend);
      parallel::synchronize(kGpu);
      const double seconds =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      return std::pair{static_cast<double>(parallel::peak_memory_bytes(kGpu)) / kGib, seconds};
    };
    const auto [peak, seconds] = measure([](const auto& q, const auto& k, const auto& v) {
      return grouping_attention(q, k, v, kWorkspace);
    });
    const double map = static_cast<double>(kBatch * kHeads * G * L) * 4 / kGib;
    std::printf(
        "%lld^2, batch 4, 16 heads of 16, bf16: forward and backward peak %.2f GiB, %.2f s; one "
        "stored map %.2f GiB",
        static_cast<long long>(side), peak, seconds, map);
    if (side <= 128) {
      const double stored = measure([](const auto& q, const auto& k, const auto& v) {
                              return plain_grouping_attention(q, k, v);
                            }).first;
      std::printf(", stored form %.2f GiB", stored);
    }
    std::printf("\n");
    // q, k, v, their gradients and copies: some thirty values of 4 bytes for each cell, and two and a half workspaces.
    const double cells = static_cast<double>(kBatch * kHeads * (L + G) * kHeadWidth) * 4 / kGib;
    EXPECT_LT(peak, 30 * cells + 1.0);
  }
}

}  // namespace
}  // namespace vitrail::ops

// Every CUDA kernel against its CPU twin.

#include <cmath>
#include <cstdio>
#include <limits>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "tests/kernels/arena_data.h"
#include "tests/kernels/ulp.h"
#include "vitrail/kernels/bf16.h"
#include "vitrail/kernels/flat.h"
#include "vitrail/kernels/optimizer.h"
#include "vitrail/kernels/philox.h"
#include "vitrail/parallel/device.h"

namespace vitrail::kernels {
namespace {

using testing::ArenaData;
using testing::ulp_distance;

const at::Device kGpu(at::kCUDA, 0);
constexpr int64_t kCounts[] = {1, 3, 4, 31, 32, 33, 1000, 100'003};

void* stream() { return parallel::current_stream(kGpu); }

template <class T>
at::Tensor upload(std::vector<T>& values, at::ScalarType dtype) {
  return at::from_blob(values.data(), {static_cast<int64_t>(values.size())},
                       at::TensorOptions().dtype(dtype))
      .to(kGpu);
}
template <class T>
void download(std::vector<T>& values, const at::Tensor& tensor) {
  const at::Tensor host = tensor.to(at::kCPU);
  std::copy_n(static_cast<const T*>(host.data_ptr()), values.size(), values.data());
}

at::Tensor device_scalar(float value) {
  std::vector<float> values{value};
  return upload(values, at::kFloat);
}

/// Runs `update` on a copy of `data` on the GPU and reads it back.
template <class Update>
void on_gpu(ArenaData& data, bool ema, bool bf16, Update&& update) {
  const at::Tensor master = upload(data.master, at::kFloat),
                   gradient = upload(data.gradient, at::kFloat),
                   first = upload(data.first, at::kFloat), second = upload(data.second, at::kFloat),
                   average = upload(data.ema, at::kFloat), decay = upload(data.decay, at::kByte),
                   weights = upload(data.weights, at::kShort);
  Arena arena = data.arena(ema, bf16);
  arena.master = master.data_ptr<float>();
  arena.gradient = gradient.data_ptr<float>();
  arena.decay = decay.data_ptr<uint8_t>();
  arena.first = first.data_ptr<float>();
  arena.second = second.data_ptr<float>();
  if (ema) arena.ema = average.data_ptr<float>();
  if (bf16) arena.weights_bf16 = static_cast<uint16_t*>(weights.data_ptr());
  update(arena);
  download(data.master, master);
  download(data.first, first);
  download(data.second, second);
  download(data.ema, average);
  download(data.weights, weights);
}

int64_t worst(const ArenaData& a, const ArenaData& b) {
  int64_t most = 0;
  for (size_t i = 0; i < a.master.size(); ++i)
    most = std::max({most, ulp_distance(a.master[i], b.master[i]),
                     ulp_distance(a.first[i], b.first[i]), ulp_distance(a.second[i], b.second[i]),
                     ulp_distance(a.ema[i], b.ema[i]),
                     static_cast<int64_t>(std::abs(int{a.weights[i]} - int{b.weights[i]}))});
  return most;
}

// The kernel rounds every operation as the plain loop does; 2 ulp is what is promised.
constexpr int64_t kMostUlp = 2;

TEST(GpuAdamw, AgreesWithThePlainLoop) {
  const AdamwStep step{
      .learning_rate = 1e-2, .weight_decay = 0.1, .ema_decay = 0.99, .update_count = 3};
  int64_t most = 0;
  for (const int64_t count : kCounts)
    for (const bool ema : {false, true})
      for (const bool bf16 : {false, true}) {
        ArenaData plain(count), gpu(count);
        const float scale = 0.7f;
        adamw_plain(plain.arena(ema, bf16), step, &scale);
        const at::Tensor device_scale = device_scalar(scale);
        on_gpu(gpu, ema, bf16, [&](const Arena& arena) {
          adamw(arena, step, device_scale.data_ptr<float>(), stream());
        });
        most = std::max(most, worst(plain, gpu));
      }
  std::printf("worst difference %lld ulp (allowed %lld)\n", static_cast<long long>(most),
              static_cast<long long>(kMostUlp));
  EXPECT_LE(most, kMostUlp);
}

TEST(GpuSgd, AgreesWithThePlainLoop) {
  const SgdStep step{.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.05, .ema_decay = 0.9};
  int64_t most = 0;
  for (const int64_t count : kCounts)
    for (const bool both : {false, true}) {
      ArenaData plain(count), gpu(count);
      const float scale = 0.7f;
      sgd_plain(plain.arena(both, both), step, &scale);
      const at::Tensor device_scale = device_scalar(scale);
      on_gpu(gpu, both, both, [&](const Arena& arena) {
        sgd(arena, step, device_scale.data_ptr<float>(), stream());
      });
      most = std::max(most, worst(plain, gpu));
    }
  std::printf("worst difference %lld ulp (allowed %lld)\n", static_cast<long long>(most),
              static_cast<long long>(kMostUlp));
  EXPECT_LE(most, kMostUlp);
}

TEST(GpuAdamw, AScaleOfZeroLeavesEverythingAsItIs) {
  ArenaData before(1001), after(1001);
  const at::Tensor scale = device_scalar(0.0f);
  on_gpu(after, true, true,
         [&](const Arena& arena) { adamw(arena, {}, scale.data_ptr<float>(), stream()); });
  EXPECT_EQ(worst(before, after), 0);
}

TEST(GpuPhilox, GivesTheBitsOfTheCpu) {
  const core::DrawKey key{.seed = 99, .stream = core::Stream::dropout, .step = 12, .layer = 7};
  std::vector<int64_t> ids{0, 5, (int64_t{1} << 40) + 3, 77, 78};
  const auto batch = static_cast<int64_t>(ids.size());
  const at::Tensor device_ids = upload(ids, at::kLong);
  for (const int64_t per_sample : {1, 2, 3, 4, 5, 1023, 50'000}) {
    std::vector<float> expected(batch * per_sample), found(batch * per_sample);
    philox_uniform_cpu(expected.data(), ids.data(), batch, per_sample, key);
    const at::Tensor out =
        at::empty({batch * per_sample}, at::TensorOptions().device(kGpu).dtype(at::kFloat));
    philox_uniform(out.data_ptr<float>(), device_ids.data_ptr<int64_t>(), batch, per_sample, key,
                   stream());
    download(found, out);
    EXPECT_EQ(found, expected) << per_sample;
  }
}

TEST(GpuSumSquares, AgreesWithTheCpuAndRepeatsItsBits) {
  const auto f64 = at::TensorOptions().device(kGpu).dtype(at::kDouble);
  const at::Tensor partials = at::zeros({kSumPartials}, f64), sum = at::zeros({}, f64);
  double worst_relative = 0;
  for (const int64_t count : {1, 3, 33, 100'003, 5'000'000}) {
    ArenaData data(count);
    const double expected = sum_squares_cpu(data.gradient.data(), count);
    const at::Tensor x = upload(data.gradient, at::kFloat);
    const auto run = [&] {
      sum_squares(x.data_ptr<float>(), count, partials.data_ptr<double>(), sum.data_ptr<double>(),
                  stream());
      return sum.item().toDouble();
    };
    const double once = run();
    EXPECT_EQ(run(), once);
    worst_relative = std::max(worst_relative, std::abs(once - expected) / expected);
  }
  // fp32 within a thread (a few additions), fp64 beyond.
  std::printf("worst relative difference %.2g (allowed 1e-6)\n", worst_relative);
  EXPECT_LE(worst_relative, 1e-6);
}

TEST(GpuSumSquares, CountsWhatItsGroupsFlagSays) {
  const auto f64 = at::TensorOptions().device(kGpu).dtype(at::kDouble);
  const at::Tensor partials = at::zeros({kSumPartials}, f64), sum = at::zeros({}, f64);
  double worst_relative = 0;
  for (const int64_t count : {3, 128, 129, 1000, 100'003, 5'000'000}) {
    ArenaData data(count);
    data.decay[0] = 1;  // of every count something counts
    const double expected = sum_squares_cpu(data.gradient.data(), count, data.decay.data());
    const at::Tensor x = upload(data.gradient, at::kFloat), flags = upload(data.decay, at::kByte);
    sum_squares(x.data_ptr<float>(), count, partials.data_ptr<double>(), sum.data_ptr<double>(),
                stream(), flags.data_ptr<uint8_t>());
    worst_relative =
        std::max(worst_relative, std::abs(sum.item().toDouble() - expected) / expected);
  }
  // fp32 within a thread (a few additions), fp64 beyond.
  std::printf("worst relative difference %.2g (allowed 1e-6)\n", worst_relative);
  EXPECT_LE(worst_relative, 1e-6);
}

TEST(GpuClipScale, AgreesWithTheCpu) {
  const auto f64 = at::TensorOptions().device(kGpu).dtype(at::kDouble);
  const at::Tensor norm = device_scalar(-1), scale = device_scalar(-1);
  for (const double value : {0.0, 9.0, 1e30, std::numeric_limits<double>::infinity(),
                             std::numeric_limits<double>::quiet_NaN()})
    for (const float most : {0.0f, 1.0f, 5.0f}) {
      float expected_norm = 0, expected_scale = 0;
      clip_scale_cpu(&value, most, &expected_norm, &expected_scale);
      const at::Tensor sum = at::ones({}, f64) * value;
      clip_scale(sum.data_ptr<double>(), most, norm.data_ptr<float>(), scale.data_ptr<float>(),
                 stream());
      EXPECT_EQ(ulp_distance(norm.item().toFloat(), expected_norm), 0) << value;
      EXPECT_EQ(scale.item().toFloat(), expected_scale) << value << " " << most;
    }
}

TEST(GpuFlat, AddsAndCastsAsTheCpu) {
  for (const int64_t count : kCounts) {
    ArenaData data(count);
    std::vector<uint16_t> part(count), cast(count), found(count);
    for (int64_t i = 0; i < count; ++i) part[i] = to_bf16(data.first[i]);
    const at::Tensor sum = upload(data.master, at::kFloat), device_part = upload(part, at::kShort);
    const at::Tensor source = upload(data.ema, at::kFloat), out = upload(cast, at::kShort);
    add_bf16(sum.data_ptr<float>(), static_cast<uint16_t*>(device_part.data_ptr()), count,
             stream());
    cast_bf16(static_cast<uint16_t*>(out.data_ptr()), source.data_ptr<float>(), count, stream());
    add_bf16_cpu(data.master.data(), part.data(), 0, count);
    cast_bf16_cpu(cast.data(), data.ema.data(), 0, count);
    std::vector<float> found_sum(count);
    download(found_sum, sum);
    EXPECT_EQ(found_sum, data.master) << count;
    download(found, out);
    EXPECT_EQ(found, cast) << count;
  }
}

}  // namespace
}  // namespace vitrail::kernels

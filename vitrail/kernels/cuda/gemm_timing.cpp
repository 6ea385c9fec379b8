// Timing of a product's algorithms against one another. At its power cap a GPU's clock follows the load, so they run in
// turns, hot, and on random values: zeros draw less power and run faster.

#include <algorithm>
#include <chrono>
#include <limits>
#include <random>

#include "vitrail/core/error.h"
#include "vitrail/kernels/bf16.h"
#include "vitrail/kernels/cuda/gemm_plan.h"
#include "vitrail/kernels/fp8.h"

namespace vitrail::kernels {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr int kRoundsAtOnce = 4;
constexpr double kBehind = 1.25;  // times the best: no longer timed

class DeviceMemory {
 public:
  explicit DeviceMemory(int64_t bytes) {
    check_cuda(cudaMalloc(&data_, static_cast<size_t>(std::max<int64_t>(bytes, 16))),
               "operands for timing a product");
  }
  ~DeviceMemory() { cudaFree(data_); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  char* data() const { return static_cast<char*>(data_); }

 private:
  void* data_ = nullptr;
};

/// bf16 values of a normal distribution; as pairs they are sound fp32 values too.
const std::vector<uint16_t>& random_values() {
  static const std::vector<uint16_t> values = [] {
    std::vector<uint16_t> drawn(1 << 20);
    std::mt19937 engine(7);
    std::normal_distribution<float> normal;
    for (uint16_t& value : drawn) value = to_bf16(normal(engine));
    return drawn;
  }();
  return values;
}

/// The same values in 8 bits, 64 times as large: about what quantisation makes of them.
const std::vector<uint16_t>& random_codes(GemmType type) {
  const auto made = [](Fp8 format) {
    std::vector<uint16_t> codes;
    const auto code = [&](uint16_t x) { return to_fp8(format, 64 * from_bf16(x)); };
    const std::vector<uint16_t>& values = random_values();
    for (size_t i = 0; i + 1 < values.size(); i += 2)
      codes.push_back(static_cast<uint16_t>(code(values[i]) | code(values[i + 1]) << 8));
    return codes;
  };
  static const std::vector<uint16_t> e4m3 = made(Fp8::e4m3), e5m2 = made(Fp8::e5m2);
  return type == GemmType::e4m3 ? e4m3 : e5m2;
}

const std::vector<uint16_t>& random_values(GemmType type) {
  return type == GemmType::bf16 ? random_values() : random_codes(type);
}

void fill(const DeviceMemory& memory, int64_t bytes, cudaStream_t stream,
          GemmType type = GemmType::bf16) {
  const std::vector<uint16_t>& values = random_values(type);
  int64_t done = std::min<int64_t>(bytes, static_cast<int64_t>(2 * values.size()));
  check_cuda(cudaMemcpyAsync(memory.data(), values.data(), static_cast<size_t>(done),
                             cudaMemcpyHostToDevice, stream),
             "filling operands");
  while (done < bytes) {
    const int64_t part = std::min(done, bytes - done);
    check_cuda(cudaMemcpyAsync(memory.data() + done, memory.data(), static_cast<size_t>(part),
                               cudaMemcpyDeviceToDevice, stream),
               "filling operands");
    done += part;
  }
}

/// Operands of one product in memory of their own.
struct Operands {
  DeviceMemory a, b, a_scales, b_scales, bias, c, d;
  GemmOperands view;

  Operands(const GemmShape& shape, cudaStream_t stream)
      : a(in_bytes(shape) * shape.m * shape.k),
        b(in_bytes(shape) * shape.k * shape.n),
        a_scales(4 * shape.m),
        b_scales(4 * shape.n),
        bias(2 * shape.n),
        c(shape.adds ? out_bytes(shape) : 0),
        d(out_bytes(shape)) {
    fill(a, in_bytes(shape) * shape.m * shape.k, stream, shape.a_type);
    fill(b, in_bytes(shape) * shape.k * shape.n, stream, shape.b_type);
    fill(a_scales, 4 * shape.m, stream);
    fill(b_scales, 4 * shape.n, stream);
    fill(bias, 2 * shape.n, stream);
    if (shape.adds) fill(c, out_bytes(shape), stream);
    const auto bits = [](const DeviceMemory& m) { return reinterpret_cast<uint16_t*>(m.data()); };
    // A sum is not taken into D itself, where it would grow from call to call.
    view = {.a = bits(a), .b = bits(b), .bias = bits(bias), .c = c.data(), .d = d.data()};
    view.a8 = reinterpret_cast<const uint8_t*>(a.data());
    view.b8 = reinterpret_cast<const uint8_t*>(b.data());
    view.a_scales = reinterpret_cast<const float*>(a_scales.data());
    view.b_scales = reinterpret_cast<const float*>(b_scales.data());
  }
  static int64_t in_bytes(const GemmShape& s) { return s.is_fp8() ? 1 : 2; }
  static int64_t out_bytes(const GemmShape& s) { return s.m * s.n * (s.is_f32 ? 4 : 2); }
};

class Stopwatch {
 public:
  Stopwatch() {
    check_cuda(cudaEventCreate(&begin_), "an event");
    check_cuda(cudaEventCreate(&end_), "an event");
  }
  ~Stopwatch() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  void begin(cudaStream_t stream) const { check_cuda(cudaEventRecord(begin_, stream), "an event"); }
  void end(cudaStream_t stream) const { check_cuda(cudaEventRecord(end_, stream), "an event"); }
  double ms() const {
    float value = 0;
    check_cuda(cudaEventElapsedTime(&value, begin_, end_), "reading a time");
    return value;
  }

 private:
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

double median(std::vector<double> times) {
  if (times.empty()) return kNever;
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return *middle;
}

/// The algorithms of one product, taking turns.
class Race {
 public:
  Race(const LtContext& context, const GemmShape& shape, const std::vector<LtAlgorithm>& algorithms,
       cudaStream_t stream)
      : context_(context),
        shape_(shape),
        product_(shape),
        algorithms_(algorithms),
        stream_(stream),
        operands_(shape, stream),
        is_in_(algorithms.size(), true),
        times_(algorithms.size()),
        watches_(algorithms.size() * kRoundsAtOnce) {}

  void run_rounds() {
    std::vector<size_t> order;
    for (int round = 0; round < kRoundsAtOnce; ++round)
      for (size_t i = 0; i < algorithms_.size(); ++i) {
        if (!is_in_[i]) continue;
        const Stopwatch& watch = watches_[order.size()];
        watch.begin(stream_);
        is_in_[i] = start(context_, product_, shape_, operands_.view, algorithms_[i].value,
                          stream_) == CUBLAS_STATUS_SUCCESS;
        watch.end(stream_);
        if (is_in_[i]) order.push_back(i);
      }
    check_cuda(cudaStreamSynchronize(stream_), "timing a product");
    for (size_t j = 0; j < order.size(); ++j) times_[order[j]].push_back(watches_[j].ms());
  }

  /// Leaves those far behind the best out of the rest and forgets all times so far.
  void settle() {
    const std::vector<double> so_far = medians();
    const double best = *std::min_element(so_far.begin(), so_far.end());
    for (size_t i = 0; i < times_.size(); ++i) {
      is_in_[i] = is_in_[i] && so_far[i] <= kBehind * best;
      times_[i].clear();
    }
  }

  std::vector<double> medians() const {
    std::vector<double> all;
    for (const auto& one : times_) all.push_back(median(one));
    return all;
  }

 private:
  const LtContext& context_;
  GemmShape shape_;
  LtProduct product_;
  const std::vector<LtAlgorithm>& algorithms_;
  cudaStream_t stream_;
  Operands operands_;
  std::vector<bool> is_in_;
  std::vector<std::vector<double>> times_;
  std::vector<Stopwatch> watches_;
};

}  // namespace

Timed time_algorithms(const LtContext& context, const GemmShape& shape,
                      const std::vector<LtAlgorithm>& algorithms, double seconds,
                      cudaStream_t stream) {
  if (algorithms.empty()) return {};
  Race race(context, shape, algorithms, stream);
  const auto run_for = [&race](double limit) {
    const auto begin = std::chrono::steady_clock::now();
    const std::chrono::duration<double> length(limit);
    do race.run_rounds();
    while (std::chrono::steady_clock::now() - begin < length);
  };
  run_for(seconds / 3);  // warms up; a clock that settles later moves all alike
  race.settle();
  run_for(seconds * 2 / 3);
  Timed result{0, race.medians()};
  result.best =
      static_cast<size_t>(std::min_element(result.ms.begin(), result.ms.end()) - result.ms.begin());
  return result;
}

}  // namespace vitrail::kernels

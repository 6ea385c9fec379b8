// The same body on device buffers, one GPU a rank. Launched by tests.cmake as `mpirun -n N
// test_nccl N`; fails when it was not launched with N ranks or a rank finds no GPU of its own. Rank
// 0 prints.

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "collective_body.h"
#include "vitrail/comm/launch.h"
#include "vitrail/core/error.h"

namespace vitrail::comm {
namespace {

std::unique_ptr<Communicator> host, device;

void require(cudaError_t error) {
  if (error != cudaSuccess) throw core::Error(cudaGetErrorString(error));
}

class DevicePlace final : public test::Place {
 public:
  DevicePlace() { require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~DevicePlace() override {
    clear();
    cudaStreamDestroy(stream_);
  }
  void* make(const std::vector<char>& bytes) override {
    void* data = nullptr;
    require(cudaMalloc(&data, bytes.size() + 1));
    blocks_.push_back(data);
    require(cudaMemcpyAsync(data, bytes.data(), bytes.size(), cudaMemcpyHostToDevice, stream_));
    require(cudaStreamSynchronize(stream_));
    return data;
  }
  std::vector<char> read(const void* data, size_t size) override {
    std::vector<char> bytes(size);
    if (size > 0)
      require(cudaMemcpyAsync(bytes.data(), data, size, cudaMemcpyDeviceToHost, stream_));
    require(cudaStreamSynchronize(stream_));
    return bytes;
  }
  void clear() override {
    cudaStreamSynchronize(stream_);
    for (void* block : blocks_) cudaFree(block);
    blocks_.clear();
  }
  Stream stream() override { return stream_; }
  // NCCL adds in the order of its ring and rounds after every addition: up to size - 1 half units
  // of the largest partial sum, which is below 8 per rank here; an average multiplies by 1/size
  // before it adds.
  double tolerance(core::DType dtype) const override {
    const double unit = dtype == core::DType::bf16  ? 0x1p-8
                        : dtype == core::DType::f16 ? 0x1p-11
                        : dtype == core::DType::f32 ? 0x1p-24
                                                    : 0x1p-53;
    return unit * 8 * device->size() * device->size();
  }

 private:
  cudaStream_t stream_ = nullptr;
  std::vector<void*> blocks_;
};

TEST(Nccl, AgreesWithPlainLoopsOnTheDevice) {
  DevicePlace place;
  test::Body body(*device, *host, place);
  body.run_all();
  std::printf("worst difference / allowed on rank %d: %.3g\n", device->rank(), body.worst());
}

TEST(Nccl, TwoRanksOnOneGpuAreRefused) {
  try {
    device_communicator(*host, 0);
    FAIL() << "accepted";
  } catch (const core::CommError& error) {
    EXPECT_NE(std::string(error.what()).find("ranks 0 and 1 use one GPU"), std::string::npos)
        << error.what();
  }
}

TEST(Nccl, FlightRecordKeepsWhatWasCalled) {
  device->barrier();
  EXPECT_NE(device->flight_record().find("all_reduce 1 x i32"), std::string::npos)
      << device->flight_record();
}

TEST(Nccl, AGroupOfOneIsAGroup) {
  const auto self = self_communicator();
  const auto alone = device_communicator(*self, device->rank());
  DevicePlace place;
  test::Body(*alone, *self, place).run_all();
}

void start(const std::string& collective, void* in, void* out, cudaStream_t stream) {
  constexpr int64_t kCount = 1 << 20;
  const int64_t whole = kCount * device->size();
  const Buffer small{in, kCount, core::DType::f32}, large{out, whole, core::DType::f32};
  if (collective == "all_reduce") device->all_reduce(small, Reduce::sum, stream).wait();
  if (collective == "all_gather") device->all_gather(small, large, stream).wait();
  if (collective == "reduce_scatter")
    device->reduce_scatter(large, small, Reduce::sum, stream).wait();
}

/// What a training step does: queue, wait for the stream, queue again.
int miss_a_rank(const std::string& how, const std::string& collective) {
  void *in = nullptr, *out = nullptr;
  const auto bytes = static_cast<size_t>(device->size()) * (size_t{4} << 20);
  require(cudaMalloc(&in, bytes));
  require(cudaMalloc(&out, bytes));
  cudaStream_t stream = nullptr;
  require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  start(collective, in, out, stream);
  require(cudaStreamSynchronize(stream));
  host->barrier();
  if (device->rank() == device->size() - 1) {
    if (how == "kill") ::kill(::getpid(), SIGKILL);
    while (true) std::this_thread::sleep_for(std::chrono::seconds(1));
  }
  try {
    start(collective, in, out, stream);
    cudaStreamSynchronize(stream);
    start(collective, in, out, stream);
    host->barrier();
  } catch (const core::CommError& error) {
    const std::string text = error.what();
    std::fprintf(stderr, "[rank %d] %s\n", host->rank(), text.substr(0, text.find('\n')).c_str());
    std::fflush(stderr);
    host->abort();
    return 5;
  }
  return 0;
}

int run(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const Launch launch = detect_launch();
  const int wanted = argc > 1 ? std::atoi(argv[1]) : 2;
  int gpus = 0;
  const bool has_gpu = cudaGetDeviceCount(&gpus) == cudaSuccess && launch.local_rank < gpus;
  if (launch.size != wanted || !has_gpu) {
    std::fprintf(stderr,
                 "test_nccl needs mpirun -n %d and a GPU a rank but runs as %s with %d GPUs\n",
                 wanted, launch.describe().c_str(), gpus);
    return 1;
  }
  require(cudaSetDevice(launch.local_rank));
  host = world_communicator(launch);
  device = device_communicator(*host, launch.local_rank);
  if (argc > 3) return miss_a_rank(argv[2], argv[3]);
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  if (launch.rank != 0) delete listeners.Release(listeners.default_result_printer());
  const bool passed = RUN_ALL_TESTS() == 0;
  const bool all_passed = all_agree(*host, passed);
  if (!passed) std::fprintf(stderr, "rank %d: failed\n", launch.rank);
  device.reset();
  host.reset();
  return all_passed ? 0 : 1;
}

}  // namespace
}  // namespace vitrail::comm

int main(int argc, char** argv) {
  try {
    return vitrail::comm::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    if (vitrail::comm::host) vitrail::comm::host->abort();
    return 1;
  }
}

// The host body on MPI ranks, and what happens to the others when one fails. Launched by
// tests.cmake as
//   mpirun -n N test_comm_mpi N [throw | exit | abort | mismatch | watchdog]
// Rank 0 prints; the process fails when it was not launched with N ranks.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include <gtest/gtest.h>

#include "collective_body.h"
#include "vitrail/comm/launch.h"
#include "vitrail/core/error.h"

namespace vitrail::comm {
namespace {

std::unique_ptr<Communicator> world;

TEST(Mpi, AgreesWithPlainLoops) { test::run_body_on_host(*world); }

// 2^31 + 10 bytes: more than an MPI count holds. Only with 2 ranks, which then need 4 GiB.
TEST(Mpi, MessagesMayBeLargerThanTwoGiB) {
  if (world->size() != 2) return;
  const int64_t count = (int64_t{1} << 31) + 10;
  std::vector<uint8_t> values(static_cast<size_t>(count),
                              static_cast<uint8_t>(world->rank() == 0 ? 7 : 0));
  const Buffer whole{values.data(), count, core::DType::u8};
  if (world->rank() == 0) {
    values.back() = 9;
    world->send(whole, 1).wait();
  } else {
    world->receive(whole, 0).wait();
    EXPECT_EQ(values.back(), 9);
    EXPECT_EQ(std::count(values.begin(), values.end(), 7), count - 1);
  }
}

TEST(Mpi, WorksStartedEarlyOverlapWithTheCaller) {
  if (world->rank() == world->size() - 1)
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
  std::vector<float> values(1'000'000, 1.0f);
  const auto start = std::chrono::steady_clock::now();
  Work work = world->all_reduce({values.data(), 1'000'000, core::DType::f32}, Reduce::sum);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(300));
  work.wait();
  EXPECT_EQ(values[999'999], static_cast<float>(world->size()));
}

/// One rank goes wrong while the others wait for it; the job must end at once, with a failure.
int fail_on_purpose(const char* how) {
  const int last = world->size() - 1;
  std::vector<float> values(1000);
  if (world->rank() == last) {
    if (std::strcmp(how, "throw") == 0) throw core::DataError("[data] thrown on purpose");
    if (std::strcmp(how, "exit") == 0) std::exit(3);
    if (std::strcmp(how, "abort") == 0) world->abort(4);
    if (std::strcmp(how, "watchdog") == 0) std::this_thread::sleep_for(std::chrono::seconds(30));
  }
  const int64_t count = std::strcmp(how, "mismatch") == 0 && world->rank() == last ? 999 : 1000;
  try {
    world->all_reduce({values.data(), count, core::DType::f32}, Reduce::sum).wait();
  } catch (const core::CommError& error) {
    std::fprintf(stderr, "%s\n", error.what());
    world->abort();
  }
  return 0;  // nobody may come here
}

int run(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const Launch launch = detect_launch();
  const int wanted = argc > 1 ? std::atoi(argv[1]) : 0;
  if (launch.size != wanted) {
    std::fprintf(stderr, "test_comm_mpi needs mpirun -n %d but runs as %s\n", wanted,
                 launch.describe().c_str());
    return 1;
  }
  world = world_communicator(launch);
  if (world->backend() != (wanted == 1 ? "self" : "mpi")) return 1;
  if (argc > 2) {
    try {
      return fail_on_purpose(argv[2]);
    } catch (const core::DataError&) {
      // A rank that dies by an exception: its world group goes while the stack unwinds.
      struct Unwinding {
        ~Unwinding() { world.reset(); }
      };
      const Unwinding unwinding;
      throw;
    }
  }
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  if (launch.rank != 0) delete listeners.Release(listeners.default_result_printer());
  const bool passed = RUN_ALL_TESTS() == 0;
  const bool all_passed = all_agree(*world, passed);
  if (!passed) std::fprintf(stderr, "rank %d: failed\n", launch.rank);
  world.reset();
  return all_passed ? 0 : 1;
}

}  // namespace
}  // namespace vitrail::comm

int main(int argc, char** argv) {
  try {
    return vitrail::comm::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 3;
  }
}

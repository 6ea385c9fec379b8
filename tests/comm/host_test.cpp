// Host groups: self, threads, and TCP between forked processes.

#include <chrono>
#include <limits>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "collective_body.h"
#include "vitrail/comm/half.h"
#include "vitrail/comm/launch.h"
#include "vitrail/core/error.h"

namespace vitrail::comm {
namespace {

using core::CommError;
using core::DType;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

double seconds_of(const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

TEST(Collectives, SelfAgreesWithPlainLoops) { test::run_body_on_host(*self_communicator()); }

class ThreadGroup : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, ThreadGroup, testing::Values(1, 2, 3, 5, 8));
TEST_P(ThreadGroup, AgreesWithPlainLoops) { run_thread_group(GetParam(), test::run_body_on_host); }

TEST(Collectives, LargeAllReduceIsCutIntoPiecesWithTheSameBits) {
  // 3 x 16 MiB and a remainder.
  const int64_t count = 3 * 4 * 1024 * 1024 + 12345;
  run_thread_group(3, [&](Communicator& group) {
    std::vector<float> values(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i)
      values[static_cast<size_t>(i)] =
          static_cast<float>(test::element(DType::f32, group.rank(), i));
    group.all_reduce({values.data(), count, DType::f32}, Reduce::sum).wait();
    for (int64_t i = 0; i < count; i += 997)
      ASSERT_EQ(values[static_cast<size_t>(i)],
                static_cast<float>(test::reduce_as<float>(DType::f32, Reduce::sum, 3, i)))
          << i;
  });
}

TEST(Collectives, EmptyBuffersAreValid) {
  run_thread_group(3, [](Communicator& group) {
    const Buffer nothing{nullptr, 0, DType::f32};
    group.all_reduce(nothing, Reduce::sum).wait();
    group.all_gather(nothing, nothing).wait();
    group.reduce_scatter(nothing, nothing, Reduce::max).wait();
    group.broadcast(nothing, 1).wait();
    group.all_to_all(nothing, nothing).wait();
    group.send_receive(nothing, (group.rank() + 1) % 3, nothing, (group.rank() + 2) % 3).wait();
  });
}

TEST(Collectives, IntegerSumsWrapAndNanSurvivesMax) {
  run_thread_group(3, [](Communicator& group) {
    uint8_t byte = 200;
    group.all_reduce({&byte, 1, DType::u8}, Reduce::sum).wait();
    EXPECT_EQ(byte, 600 % 256);
    int32_t word = std::numeric_limits<int32_t>::max();
    group.all_reduce({&word, 1, DType::i32}, Reduce::sum).wait();
    EXPECT_EQ(word, std::numeric_limits<int32_t>::max() - 2);
    for (int broken = 0; broken < 3; ++broken) {
      double value = group.rank() == broken ? std::nan("") : group.rank();
      EXPECT_TRUE(std::isnan(max(group, value))) << broken;
    }
  });
}

TEST(Collectives, WorkMayBeMovedAndItsDestructorWaits) {
  run_thread_group(2, [](Communicator& group) {
    std::vector<float> values(100'000, 1.0f);
    { const Work work = group.all_reduce({values.data(), 100'000, DType::f32}, Reduce::sum); }
    EXPECT_EQ(values.back(), 2.0f);
    Work first = group.all_reduce({values.data(), 100'000, DType::f32}, Reduce::sum);
    std::vector<float> others(10, 1.0f);
    first = group.all_reduce({others.data(), 10, DType::f32}, Reduce::sum);
    EXPECT_EQ(values.back(), 4.0f);
    first.wait();
    first.wait();
    EXPECT_EQ(others.back(), 2.0f);
  });
}

TEST(Collectives, OverlapWithTheCaller) {
  // Rank 1 comes 200 ms late; rank 0 must get its Work at once.
  run_thread_group(2, [](Communicator& group) {
    if (group.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(200));
    std::vector<float> values(1'000'000, 1.0f);
    Work work;
    const double started = seconds_of([&] {
      work = group.all_reduce({values.data(), 1'000'000, DType::f32}, Reduce::sum);
    });
    EXPECT_LT(started, 0.1);
    work.wait();
    EXPECT_EQ(values[777], 2.0f);
  });
}

TEST(Helpers, SumMaxAgreeAndStrings) {
  run_thread_group(3, [](Communicator& group) {
    const int rank = group.rank();
    EXPECT_EQ(sum(group, rank + 0.5), 4.5);
    EXPECT_EQ(max(group, -rank), 0.0);
    EXPECT_TRUE(all_agree(group, true));
    EXPECT_FALSE(all_agree(group, rank != 2));
    const std::string long_one(1000, 'x');
    EXPECT_THAT(gather_strings(group, rank == 1   ? ""
                                      : rank == 2 ? long_one
                                                  : std::string("a\0b", 3)),
                testing::ElementsAre(std::string("a\0b", 3), "", long_one));
  });
}

// --- misuse ---

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const CommError& error) {
    return error.what();
  }
  return "nothing thrown";
}

TEST(Mismatch, OfCountsIsNamedOnEveryRank) {
  run_thread_group(3, [](Communicator& group) {
    std::vector<float> values(8);
    const int64_t count = group.rank() == 1 ? 7 : 8;
    const std::string message = message_of([&] {
      group.all_reduce({values.data(), count, DType::f32}, Reduce::sum).wait();
    });
    EXPECT_THAT(message, AllOf(HasSubstr("all_reduce (sum) of 7 x f32"),
                               HasSubstr("all_reduce (sum) of 8 x f32"), HasSubstr("rank 1"),
                               HasSubstr("group world")));
    EXPECT_THAT(group.flight_record(), HasSubstr("#0 all_reduce"));
    EXPECT_THAT(group.flight_record(), HasSubstr("failed"));
    EXPECT_THROW(group.barrier(), CommError) << "a failed group stays failed";
  });
}

TEST(Mismatch, OfOperationTypeRootAndCollective) {
  const auto run = [](const std::function<void(Communicator&, Buffer, bool)>& call) {
    std::string message;
    run_thread_group(2, [&](Communicator& group) {
      std::vector<double> values(600);
      const std::string mine = message_of([&] {
        call(group, {values.data(), 600, DType::f32}, group.rank() == 0);
      });
      if (group.rank() == 0) message = mine;
    });
    return message;
  };
  EXPECT_THAT(run([](Communicator& group, Buffer buffer, bool first) {
                group.all_reduce(buffer, first ? Reduce::max : Reduce::average).wait();
              }),
              AllOf(HasSubstr("all_reduce (max)"), HasSubstr("all_reduce (average)")));
  EXPECT_THAT(run([](Communicator& group, Buffer buffer, bool first) {
                group.broadcast({buffer.data, 600, first ? DType::f32 : DType::f64}, 0).wait();
              }),
              AllOf(HasSubstr("600 x f32"), HasSubstr("600 x f64")));
  EXPECT_THAT(run([](Communicator& group, Buffer buffer, bool first) {
                group.broadcast(buffer, first ? 0 : 1).wait();
              }),
              AllOf(HasSubstr("broadcast from rank 0"), HasSubstr("broadcast from rank 1")));
  EXPECT_THAT(run([](Communicator& group, Buffer buffer, bool first) {
                if (first)
                  group.barrier();
                else
                  group.all_reduce(buffer, Reduce::sum).wait();
              }),
              AllOf(HasSubstr("calls barrier"), HasSubstr("all_reduce (sum) of 600 x f32")));
  EXPECT_THAT(run([](Communicator& group, Buffer buffer, bool first) {
                if (first)
                  group.receive({buffer.data, 500, DType::f32}, 1).wait();
                else
                  group.send(buffer, 0).wait();
              }),
              AllOf(HasSubstr("receive"), HasSubstr("500 x f32"), HasSubstr("send of 600 x f32")));
}

TEST(Misuse, IsRefusedBeforeAnythingMoves) {
  const auto group = self_communicator();
  run_thread_group(2, [](Communicator& pair) {
    std::vector<float> values(8);
    const Buffer four{values.data(), 4, DType::f32}, eight{values.data(), 8, DType::f32};
    EXPECT_THAT([&] { pair.all_gather(four, four); },
                ThrowsMessage<CommError>(HasSubstr("2 ranks x 4 elements but holds 4")));
    EXPECT_THAT([&] { pair.reduce_scatter(four, four, Reduce::sum); },
                ThrowsMessage<CommError>(HasSubstr("reduce_scatter")));
    EXPECT_THAT([&] { pair.all_to_all(eight, eight); },
                ThrowsMessage<CommError>(HasSubstr("same memory")));
    EXPECT_THAT([&] { pair.broadcast(eight, 2); },
                ThrowsMessage<CommError>(HasSubstr("0 ... 1 but is 2")));
    EXPECT_THAT([&] { pair.send(eight, pair.rank()); },
                ThrowsMessage<CommError>(HasSubstr("own peer")));
    EXPECT_THAT([&] { pair.split(-1, 0); }, ThrowsMessage<CommError>(HasSubstr("color")));
    EXPECT_THAT(
        [&] {
          pair.all_reduce({values.data(), 2, DType::i64}, Reduce::average);
        },
        ThrowsMessage<CommError>(HasSubstr("average needs a floating-point type but got i64")));
    EXPECT_THAT(
        [&] {
          pair.all_reduce({values.data(), 2, DType::boolean}, Reduce::max);
        },
        ThrowsMessage<CommError>(HasSubstr("but got bool")));
    EXPECT_THAT(
        [&] {
          pair.all_reduce({nullptr, 2, DType::f32}, Reduce::max);
        },
        ThrowsMessage<CommError>(HasSubstr("memory behind it")));
    pair.barrier();  // nothing above broke the group
  });
}

// --- ranks that do not come ---

TEST(Abort, WakesAllThatWaitAndLaterCallsThrow) {
  const double seconds = seconds_of([] {
    run_thread_group(4, [](Communicator& group) {
      const auto half = group.split(group.rank() / 2, 0);
      if (group.rank() == 3) {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        group.abort();
      } else {
        float value = 0;
        Communicator& waiting = group.rank() == 2 ? *half : group;  // one waits in a smaller group
        EXPECT_THROW(waiting.all_reduce({&value, 1, DType::f32}, Reduce::sum).wait(), CommError)
            << group.rank();
      }
      EXPECT_THROW(group.barrier(), CommError);
      EXPECT_THROW(half->barrier(), CommError);
    });
  });
  EXPECT_LT(seconds, 5);
}

TEST(Abort, OfARankThatThrowsReachesTheOthersAndItsErrorWins) {
  const double seconds = seconds_of([] {
    EXPECT_THAT(([] {
                  run_thread_group(3, [](Communicator& group) {
                    if (group.rank() == 1) throw core::DataError("[data] broken");
                    std::vector<float> values(100'000);
                    group.all_reduce({values.data(), 100'000, DType::f32}, Reduce::sum).wait();
                  });
                }),
                ThrowsMessage<core::DataError>("[data] broken"));
  });
  EXPECT_LT(seconds, 5);
}

TEST(Abort, WorkThatAnExceptionDestroysDoesNotWaitForItsPeer) {
  const auto start = std::chrono::steady_clock::now();
  const auto body = [](Communicator& group) {
    if (group.rank() == 1) return group.barrier();
    float received = 0;
    const Work work = group.receive({&received, 1, core::DType::f32}, 1);
    throw core::DataError("broken file");
  };
  EXPECT_ANY_THROW(run_thread_group(2, body));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(Abort, OfARankThatLeavesIsNoticed) {
  EXPECT_THAT(
      ([] {
        run_thread_group(3, [](Communicator& group) {
          if (group.rank() != 1) group.barrier();
        });
      }),
      ThrowsMessage<CommError>(AllOf(HasSubstr("rank 1 has left"), HasSubstr("barrier #0"))));
}

TEST(Watchdog, NamesTheCollectiveTheMissingRankAndTheRecord) {
  setenv("VITRAIL_COMM_TIMEOUT_S", "0.5", 1);
  std::string message;
  run_thread_group(3, [&](Communicator& group) {
    group.barrier();
    if (group.rank() == 2) std::this_thread::sleep_for(std::chrono::milliseconds(900));
    std::vector<float> values(500);
    const std::string mine = message_of([&] {
      group.all_reduce({values.data(), 500, DType::f32}, Reduce::sum).wait();
    });
    if (group.rank() == 0) message = mine;
  });
  unsetenv("VITRAIL_COMM_TIMEOUT_S");
  EXPECT_THAT(message, AllOf(HasSubstr("rank 0 waited 0.5 s"), HasSubstr("for rank 2, which"),
                             HasSubstr("in all_reduce #1 of 500 x f32 on group world"),
                             HasSubstr("#0 barrier"), HasSubstr("running")));
}

TEST(Watchdog, RefusesATimeoutThatIsNoNumber) {
  setenv("VITRAIL_COMM_TIMEOUT_S", "soon", 1);
  EXPECT_THAT([] { run_thread_group(2, [](Communicator&) {}); },
              ThrowsMessage<CommError>(HasSubstr("'soon'")));
  unsetenv("VITRAIL_COMM_TIMEOUT_S");
}

TEST(FlightRecord, KeepsTheLast64) {
  run_thread_group(2, [](Communicator& group) {
    for (int i = 0; i < 70; ++i) group.barrier();
    const std::string record = group.flight_record();
    EXPECT_EQ(std::count(record.begin(), record.end(), '\n'), 64);
    EXPECT_THAT(record, testing::StartsWith("#6 barrier"));
    EXPECT_THAT(record, HasSubstr("#69 barrier 0 x f32: done"));
  });
}

// --- conversions ---

TEST(Half, RoundTripsEveryBf16AndF16) {
  for (int bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float brain = from_bf16(half), small = from_f16(half);
    if (std::isnan(brain))
      EXPECT_TRUE(std::isnan(from_bf16(to_bf16(brain))));
    else
      EXPECT_EQ(to_bf16(brain), half);
    if (std::isnan(small))
      EXPECT_TRUE(std::isnan(from_f16(to_f16(small))));
    else
      EXPECT_EQ(to_f16(small), half) << bits;
  }
}

TEST(Half, RoundsToNearestEven) {
  for (int i = 0; i < 65535; ++i) {
    const auto low = static_cast<uint16_t>(i);
    if ((i & 0x7FFF) >= 0x7BFF) continue;  // the next one up is infinite or NaN
    const float a = from_f16(low), b = from_f16(static_cast<uint16_t>(i + 1));
    const float middle = a + (b - a) / 2;
    EXPECT_EQ(to_f16(middle) & 1, 0) << i;
    EXPECT_EQ(to_f16(std::nextafter(middle, a)), low);
    EXPECT_EQ(to_f16(std::nextafter(middle, b)), i + 1);
  }
  EXPECT_EQ(to_f16(65519.0f), 0x7BFF);
  EXPECT_EQ(to_f16(65520.0f), 0x7C00);
  EXPECT_EQ(to_bf16(1.00390625f), 0x3F80);  // 1 + 2^-8, the middle between 1 and the next
  EXPECT_EQ(to_bf16(1.01171875f), 0x3F82);
}

}  // namespace
}  // namespace vitrail::comm

// The TCP group: processes on loopback, strangers at the door, ranks that do not come.

#include <chrono>
#include <thread>

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "collective_body.h"
#include "vitrail/comm/rendezvous.h"
#include "vitrail/comm/socket.h"
#include "vitrail/core/error.h"

namespace vitrail::comm {
namespace {

using core::CommError;
using testing::AllOf;
using testing::HasSubstr;

int free_port() { return listen_at("127.0.0.1", 0).port; }

Deadline soon(double seconds) {
  return {std::chrono::steady_clock::now() +
              std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000)),
          nullptr};
}

/// Runs body(rank) in `size` processes; returns their exit codes. A process whose checks failed
/// returns 1.
std::vector<int> run_processes(int size, const std::function<void(int)>& body) {
  std::vector<pid_t> children;
  for (int rank = 0; rank < size; ++rank) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(120);
      int code = 0;
      try {
        body(rank);
      } catch (const std::exception& error) {
        std::fprintf(stderr, "rank %d: %s\n", rank, error.what());
        code = 2;
      }
      _exit(code != 0 ? code : testing::Test::HasFailure() ? 1 : 0);
    }
    children.push_back(child);
  }
  std::vector<int> codes;
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    codes.push_back(WIFEXITED(status) ? WEXITSTATUS(status) : -1);
  }
  return codes;
}

class TcpGroup : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, TcpGroup, testing::Values(2, 3, 4));

TEST_P(TcpGroup, AgreesWithPlainLoops) {
  const Rendezvous meeting{"127.0.0.1", free_port(), "test"};
  const std::vector<int> codes = run_processes(GetParam(), [&](int rank) {
    const auto world = tcp_communicator(rank, GetParam(), meeting);
    EXPECT_EQ(world->backend(), "tcp");
    test::run_body_on_host(*world);
  });
  EXPECT_THAT(codes, testing::Each(0));
}

TEST(Tcp, LargeMessagesPassBothWaysAtOnce) {
  const Rendezvous meeting{"localhost", free_port(), "test"};
  const std::vector<int> codes = run_processes(2, [&](int rank) {
    const auto world = tcp_communicator(rank, 2, meeting);
    std::vector<double> values(20'000'000, 1.0 + rank),
        other(values.size());  // 160 MB, far past any socket buffer
    const int64_t count = static_cast<int64_t>(values.size());
    world
        ->send_receive({values.data(), count, core::DType::f64}, 1 - rank,
                       {other.data(), count, core::DType::f64}, 1 - rank)
        .wait();
    EXPECT_EQ(other.front(), 2.0 - rank);
    EXPECT_EQ(other.back(), 2.0 - rank);
  });
  EXPECT_THAT(codes, testing::Each(0));
}

TEST(Tcp, ARankThatDiesWakesTheOthers) {
  const auto start = std::chrono::steady_clock::now();
  const Rendezvous meeting{"127.0.0.1", free_port(), "test"};
  const std::vector<int> codes = run_processes(3, [&](int rank) {
    const auto world = tcp_communicator(rank, 3, meeting);
    world->barrier();
    if (rank == 2) _exit(9);
    try {
      world->barrier();
      ADD_FAILURE() << "passed a barrier without rank 2";
    } catch (const CommError& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr("lost rank"), HasSubstr("barrier #1")));
    }
  });
  EXPECT_THAT(codes, testing::ElementsAre(0, 0, 9));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(Tcp, AbortWakesRanksThatWaitInOtherGroups) {
  const Rendezvous meeting{"127.0.0.1", free_port(), "test"};
  const std::vector<int> codes = run_processes(4, [&](int rank) {
    const auto world = tcp_communicator(rank, 4, meeting);
    const auto half = world->split(rank / 2, 0);
    if (rank == 3) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      world->abort();
      EXPECT_THROW(half->barrier(), CommError);
      std::this_thread::sleep_for(std::chrono::milliseconds(500));
      return;
    }
    Communicator& waiting = rank == 2 ? *half : *world;
    EXPECT_THROW(waiting.barrier(), CommError);
  });
  EXPECT_THAT(codes, testing::Each(0));
}

TEST(Tcp, AMissingRankIsNamed) {
  setenv("VITRAIL_COMM_TIMEOUT_S", "1", 1);
  try {
    tcp_communicator(0, 3, {"127.0.0.1", free_port(), "test"});
    ADD_FAILURE() << "met nobody and went on";
  } catch (const CommError& error) {
    EXPECT_THAT(error.what(), HasSubstr("but rank 1, 2 did not come in time"));
  }
  try {
    tcp_communicator(1, 2, {"127.0.0.1", free_port(), "test"});
    ADD_FAILURE() << "met nobody and went on";
  } catch (const CommError& error) {
    EXPECT_THAT(error.what(), HasSubstr("rank 1 cannot reach rank 0 at 127.0.0.1"));
  }
  unsetenv("VITRAIL_COMM_TIMEOUT_S");
}

TEST(Tcp, AnotherTokenIsTurnedAwayOnBothSides) {
  setenv("VITRAIL_COMM_TIMEOUT_S", "2", 1);
  const int port = free_port();
  const std::vector<int> codes = run_processes(2, [&](int rank) {
    try {
      tcp_communicator(rank, 2, {"127.0.0.1", port, rank == 0 ? "mine" : "yours"});
      ADD_FAILURE() << "accepted";
    } catch (const CommError& error) {
      EXPECT_THAT(error.what(), HasSubstr("another job token"));
    }
  });
  unsetenv("VITRAIL_COMM_TIMEOUT_S");
  EXPECT_THAT(codes, testing::Each(0));
}

TEST(Tcp, AnotherRankCountIsTurnedAway) {
  setenv("VITRAIL_COMM_TIMEOUT_S", "2", 1);
  const int port = free_port();
  const std::vector<int> codes = run_processes(2, [&](int rank) {
    EXPECT_THROW(tcp_communicator(rank, rank == 0 ? 2 : 3, {"127.0.0.1", port, "test"}), CommError);
  });
  unsetenv("VITRAIL_COMM_TIMEOUT_S");
  EXPECT_THAT(codes, testing::Each(0));
}

TEST(Tcp, StrangersAtTheDoorDoNotDisturb) {
  const int port = free_port();
  const std::vector<int> codes = run_processes(3, [&](int rank) {
    if (rank == 2) {  // a browser, garbage, a caller that hangs up
      std::string reason;
      const Socket browser = connect_to("127.0.0.1", port, soon(20), reason);
      const std::string request(4000, 'G');
      browser.write(request.data(), request.size(), soon(2));
      { const Socket silent = connect_to("127.0.0.1", port, soon(20), reason); }
      return;
    }
    if (rank == 1) std::this_thread::sleep_for(std::chrono::milliseconds(500));
    const auto world = tcp_communicator(rank, 2, {"127.0.0.1", port, "test"});
    EXPECT_EQ(sum(*world, 1.0), 2.0);
  });
  EXPECT_THAT(codes, testing::Each(0));
}

TEST(Tcp, AnOccupiedPortIsNamed) {
  const Listener occupied = listen_at("127.0.0.1", 0);
  try {
    tcp_communicator(0, 2, {"127.0.0.1", occupied.port, "test"});
    ADD_FAILURE() << "listens twice";
  } catch (const CommError& error) {
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr("cannot listen on port"), HasSubstr("choose a free MASTER_PORT")));
  }
}

// The whole way: variables as torchrun sets them, in three processes.
TEST(Tcp, TorchrunVariablesMakeAWorld) {
  const std::string port = std::to_string(free_port());
  const std::vector<int> codes = run_processes(3, [&](int rank) {
    for (const char* variable : {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"})
      unsetenv(variable);
    setenv("RANK", std::to_string(rank).c_str(), 1);
    setenv("WORLD_SIZE", "3", 1);
    setenv("LOCAL_RANK", std::to_string(rank).c_str(), 1);
    setenv("LOCAL_WORLD_SIZE", "3", 1);
    setenv("MASTER_ADDR", "localhost", 1);
    setenv("MASTER_PORT", port.c_str(), 1);
    const auto world = world_communicator(detect_launch());
    EXPECT_EQ(world->backend(), "tcp");
    EXPECT_EQ(sum(*world, rank), 3.0);
  });
  EXPECT_THAT(codes, testing::Each(0));
}

}  // namespace
}  // namespace vitrail::comm

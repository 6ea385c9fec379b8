// One collective that the last of several ranks does not take part in. Launched by failures_test.py as
//   test_comm_failures COLLECTIVE exit | kill | stall
// Every other rank must print one line that names rank and collective, and return 5.

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

#include "vitrail/comm/launch.h"
#include "vitrail/core/error.h"

namespace vitrail::comm {
namespace {

constexpr int64_t kCount = 6000;  // more than travels on a card

struct Buffers {
  explicit Buffers(int ranks) : one(kCount), many(static_cast<size_t>(ranks) * kCount) {}
  std::vector<float> one, many;
  Buffer small() { return {one.data(), kCount, core::DType::f32}; }
  Buffer large() { return {many.data(), static_cast<int64_t>(many.size()), core::DType::f32}; }
};

void all_to_all(Communicator& world, Buffers& b) {
  std::vector<float> out(b.many.size());
  world.all_to_all(b.large(), {out.data(), static_cast<int64_t>(out.size()), core::DType::f32})
      .wait();
}

/// The last rank is the one that fails; of the others only its partners of a transfer wait for it, and the rest for them.
void ring(Communicator& world, Buffers& b) {
  const int next = (world.rank() + 1) % world.size(), last = world.size() - 1;
  std::vector<float> out(static_cast<size_t>(kCount));
  const int from = (world.rank() + last) % world.size();
  world.send_receive(b.small(), next, {out.data(), kCount, core::DType::f32}, from).wait();
}

const std::map<std::string, std::function<void(Communicator&, Buffers&)>> kCollectives{
    {"all_reduce",
     [](Communicator& world, Buffers& b) { world.all_reduce(b.large(), Reduce::sum).wait(); }},
    {"all_gather",
     [](Communicator& world, Buffers& b) { world.all_gather(b.small(), b.large()).wait(); }},
    {"reduce_scatter",
     [](Communicator& world, Buffers& b) {
       world.reduce_scatter(b.large(), b.small(), Reduce::sum).wait();
     }},
    {"broadcast",
     [](Communicator& world, Buffers& b) { world.broadcast(b.large(), world.size() - 1).wait(); }},
    {"all_to_all", all_to_all},
    {"send",
     [](Communicator& world, Buffers& b) {
       const int last = world.size() - 1;
       for (int i = 0; i < 100; ++i) world.send(b.large(), last).wait();
     }},
    {"receive",
     [](Communicator& world, Buffers& b) { world.receive(b.small(), world.size() - 1).wait(); }},
    {"send_receive", ring},
    {"barrier", [](Communicator& world, Buffers&) { world.barrier(); }},
    {"split", [](Communicator& world, Buffers&) { world.split(world.rank() % 2, 0); }}};

[[noreturn]] void stall() {
  while (true) std::this_thread::sleep_for(std::chrono::seconds(1));
}

void fail(const std::string& how) {
  if (how == "exit") std::_Exit(3);
  if (how == "kill") ::kill(::getpid(), SIGKILL);
  stall();
}

int run(const std::string& collective, const std::string& how) {
  const Launch launch = detect_launch();
  const auto world = world_communicator(launch);
  Buffers buffers(world->size());
  world->barrier();  // everybody is there
  if (world->rank() == world->size() - 1) fail(how);
  try {
    kCollectives.at(collective)(*world, buffers);
    // A ring whose partners are both alive: the others are heard of in the next collective.
    world->barrier();
  } catch (const core::CommError& error) {
    const std::string text = error.what();
    std::fprintf(stderr, "[rank %d] %s\n", world->rank(), text.substr(0, text.find('\n')).c_str());
    std::fflush(stderr);
    world->abort();
    return 5;
  }
  return 0;
}

/// Ranks that are threads: one returns (exit) or stalls.
int run_threads(const std::string& collective, const std::string& how) {
  constexpr int kRanks = 4;
  std::vector<int> codes(kRanks, 5);
  try {
    run_thread_group(kRanks, [&](Communicator& world) {
      Buffers buffers(kRanks);
      world.barrier();
      if (world.rank() == kRanks - 1) {
        if (how == "stall") std::this_thread::sleep_for(std::chrono::seconds(4));
        return;
      }
      try {
        kCollectives.at(collective)(world, buffers);
        world.barrier();
        codes[static_cast<size_t>(world.rank())] = 0;
      } catch (const core::CommError& error) {
        const std::string text = error.what();
        std::fprintf(stderr, "[rank %d] %s\n", world.rank(),
                     text.substr(0, text.find('\n')).c_str());
      }
    });
  } catch (const core::CommError&) {
  }
  for (int rank = 0; rank + 1 < kRanks; ++rank)
    if (codes[static_cast<size_t>(rank)] == 0) return 1;
  return 5;
}

}  // namespace
}  // namespace vitrail::comm

int main(int argc, char** argv) {
  using namespace vitrail::comm;
  if (argc < 3 || kCollectives.count(argv[1]) == 0) return 1;
  try {
    return argc > 3 ? run_threads(argv[1], argv[2]) : run(argv[1], argv[2]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

#include "emulator.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "fiber.h"
#include "static_shared.h"
#include "vitrail/core/error.h"

namespace emulation {

Position position;

namespace {

constexpr unsigned kMostThreads = 1024, kLanes = 32;
constexpr size_t kFence = 4096;  // bytes around dynamic shared memory that must stay as they are
constexpr unsigned char kFenceByte = 0xA5;

struct Copy {
  void* to;
  const void* from;
  int bytes;
};

struct Thread {
  enum State { ready, at_block, at_named, at_warp, at_phase, finished };

  Fiber fiber;
  State state = ready;
  Index index;
  Place place;  // where it waits
  // at_named
  int barrier = 0;
  // at_phase
  const void* phase = nullptr;
  // at_warp
  const char* operation = nullptr;
  uint32_t mask = 0;
  void* operand = nullptr;

  std::vector<Copy> copies;         // begun and not waited for
  std::vector<size_t> group_sizes;  // of the committed groups among them, oldest first
  size_t open = 0;                  // copies after the last group
  Products products;
};

/// A barrier in shared memory.
struct Phase {
  int arrivals = 0, missing = 0, parity = 0;  // parity of the running phase
  std::vector<Copy> copies;                   // that report to the running phase
};

struct Block {
  Extent extent;
  const std::function<void()>* body = nullptr;
  unsigned threads = 0;
  std::vector<Thread> thread;
  std::deque<unsigned> queue;  // ready to run
  unsigned running = 0, at_barrier = 0, finished = 0;
  std::map<int, unsigned> at_named;
  std::map<const void*, Phase> phases;
  std::array<uint32_t, kMostThreads / kLanes> at_warp = {};  // lanes that wait, of each warp
  Fiber scheduler;
  std::string error;
  std::vector<unsigned char> shared;
  unsigned char* dynamic = nullptr;
  std::mt19937_64 random;
  bool in_use = false;
};

Block block;
Order order;

std::string text(const Index& index) {
  return fmt::format("({},{},{})", index.x, index.y, index.z);
}

std::string text(const Place& place) {
  const char* const slash = std::strrchr(place.file_name(), '/');
  return fmt::format("{}:{}", slash ? slash + 1 : place.file_name(), place.line());
}

Thread& self() { return block.thread[block.running]; }

void to_scheduler() { Fiber::change(self().fiber, block.scheduler); }

void make_ready(unsigned i) {
  block.thread[i].state = Thread::ready;
  block.queue.push_back(i);
}

void thread_main() {
  (*block.body)();
  self().state = Thread::finished;
  ++block.finished;
  to_scheduler();
  std::abort();  // a finished thread is never run again
}

/// In order the first warp, or the last, runs ahead of the others as far as barriers let it: what it overwrites before they
/// read it shows.
unsigned take_next() {
  const auto begin = block.queue.begin(), end = block.queue.end();
  auto pick = begin;
  if (order.kind == Order::shuffled)
    pick += static_cast<std::ptrdiff_t>(block.random() % block.queue.size());
  else if (order.kind == Order::ascending)
    pick = std::min_element(begin, end);
  else
    pick = std::max_element(begin, end);
  std::swap(*pick, block.queue.front());
  const unsigned next = block.queue.front();
  block.queue.pop_front();
  return next;
}

std::string describe(const Thread& thread) {
  const std::string who = fmt::format("thread {}", text(thread.index));
  if (thread.state == Thread::finished) return who + " has ended";
  if (thread.state == Thread::at_warp)
    return fmt::format("{} is at {} of {}", who, thread.operation, text(thread.place));
  return fmt::format("{} is at the barrier of {}", who, text(thread.place));
}

/// Why no thread can run although some have not ended.
std::string deadlock() {
  for (unsigned i = 0; i < block.threads; ++i) {
    const Thread& waiting = block.thread[i];
    if (waiting.state != Thread::at_warp) continue;
    const unsigned warp = i / kLanes * kLanes;
    for (unsigned lane = 0; lane < kLanes; ++lane) {
      if (!(waiting.mask >> lane & 1)) continue;
      if (warp + lane >= block.threads)
        return fmt::format("{} but lane {} of its mask does not exist", describe(waiting), lane);
      const Thread& other = block.thread[warp + lane];
      if (other.state != Thread::at_warp)
        return fmt::format("{} and waits for lane {}, but {}", describe(waiting), lane,
                           describe(other));
    }
  }
  const auto at = [](auto wanted) {
    return std::find_if(block.thread.begin(), block.thread.begin() + block.threads, wanted);
  };
  const auto in_phase = at([](const Thread& t) { return t.state == Thread::at_phase; });
  if (in_phase != block.thread.begin() + block.threads)
    return fmt::format("{} and the phase does not end", describe(*in_phase));
  const auto waiting = at(
      [](const Thread& t) { return t.state == Thread::at_block || t.state == Thread::at_named; });
  const auto other = at([&](const Thread& t) { return t.state != waiting->state; });
  if (other == block.thread.begin() + block.threads)
    return fmt::format("{} and too few threads come there", describe(*waiting));
  return fmt::format("{} and waits for all threads, but {}", describe(*waiting), describe(*other));
}

void prepare_block() {
  // No two blocks see each other's shared memory, nor zeros nobody wrote.
  const std::span<unsigned char> fixed = static_shared();
  std::memset(fixed.data(), kPoison, fixed.size());
  block.shared.assign(block.extent.shared_bytes + 2 * kFence + 128, kFenceByte);
  const auto start = reinterpret_cast<uintptr_t>(block.shared.data()) + kFence;
  block.dynamic = block.shared.data() + kFence + (128 - start % 128) % 128;
  std::memset(block.dynamic, kPoison, block.extent.shared_bytes);

  block.at_barrier = block.finished = 0;
  block.at_named.clear();
  block.phases.clear();
  block.at_warp.fill(0);
  block.queue.clear();
  const Index size = block.extent.threads;
  for (unsigned i = 0; i < block.threads; ++i) {
    Thread& thread = block.thread[i];
    thread.index = {i % size.x, i / size.x % size.y, i / size.x / size.y};
    thread.state = Thread::ready;
    thread.copies.clear();
    thread.group_sizes.clear();
    thread.open = 0;
    thread.products = {};
    thread.fiber.prepare(i, thread_main);
    block.queue.push_back(i);
  }
}

void check_fences() {
  const unsigned char* const end = block.dynamic + block.extent.shared_bytes;
  const auto intact = [](const unsigned char* from, const unsigned char* to) {
    return std::all_of(from, to, [](unsigned char byte) { return byte == kFenceByte; });
  };
  VT_CHECK(intact(block.shared.data(), block.dynamic) &&
               intact(end, block.shared.data() + block.shared.size()),
           "[emulation] block {} wrote outside its {} bytes of dynamic shared memory",
           text(position.block), block.extent.shared_bytes);
}

void run_block() {
  prepare_block();
  while (block.finished < block.threads) {
    if (block.queue.empty()) block.error = deadlock();
    if (block.error.empty()) {
      block.running = take_next();
      position.thread = self().index;
      Fiber::change(block.scheduler, self().fiber);
    }
    VT_CHECK(block.error.empty(), "[emulation] block {}: {}", text(position.block), block.error);
  }
  check_fences();
}

bool is_same_place(const Place& a, const Place& b) {
  return a.line() == b.line() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

void wait(Thread::State state, const Place& place) {
  self().state = state;
  self().place = place;
  to_scheduler();
}

}  // namespace

void set_order(Order wanted) { order = wanted; }

void in_every_order(int shuffles, const std::function<void()>& work) {
  const Order before = order;
  for (int i = -2; i < shuffles; ++i) {
    order = i == -2   ? Order{Order::ascending}
            : i == -1 ? Order{Order::descending}
                      : Order{Order::shuffled, static_cast<uint64_t>(i) + 1};
    work();
  }
  order = before;
}

void run_grid(const Extent& extent, const std::function<void()>& thread_body) {
  VT_CHECK(!block.in_use, "[emulation] one launch at a time");
  const auto [bx, by, bz] = extent.blocks;
  const auto [tx, ty, tz] = extent.threads;
  const uint64_t threads = uint64_t{tx} * ty * tz;
  VT_CHECK(bx >= 1 && bx < 1u << 31 && by >= 1 && by < 65536 && bz >= 1 && bz < 65536,
           "[emulation] a grid must be 1 to (2^31-1, 65535, 65535) blocks but got {}",
           text(extent.blocks));
  VT_CHECK(threads >= 1 && threads <= kMostThreads && tz <= 64,
           "[emulation] a block must have 1 to {} threads but got {}", kMostThreads,
           text(extent.threads));
  VT_CHECK(extent.shared_bytes <= kMostSharedBytes,
           "[emulation] dynamic shared memory must be at most {} bytes but got {}",
           kMostSharedBytes, extent.shared_bytes);
  struct Use {
    Use() { block.in_use = true; }
    ~Use() { block.in_use = false; }
  } use;
  block.extent = extent;
  block.body = &thread_body;
  block.threads = static_cast<unsigned>(threads);
  if (block.thread.size() < threads) block.thread.resize(threads);
  block.error.clear();
  block.random.seed(order.seed);
  position.block_size = extent.threads;
  position.grid_size = extent.blocks;
  for (unsigned z = 0; z < bz; ++z)
    for (unsigned y = 0; y < by; ++y)
      for (unsigned x = 0; x < bx; ++x) {
        position.block = {x, y, z};
        run_block();
      }
}

void fail(std::string what, const Place& place) {
  block.error = fmt::format("thread {} at {}: {}", text(self().index), text(place), what);
  std::string().swap(what);  // this stack is never unwound
  to_scheduler();
  std::abort();  // the launch has ended
}

void meet_block(const Place& place) {
  for (unsigned i = 0; i < block.threads && block.at_barrier > 0; ++i) {
    const Thread& other = block.thread[i];
    if (other.state != Thread::at_block) continue;
    if (!is_same_place(other.place, place))
      fail(fmt::format("a divergent barrier: {}", describe(other)), place);
    break;
  }
  if (++block.at_barrier < block.threads) return wait(Thread::at_block, place);
  block.at_barrier = 0;
  for (unsigned i = 0; i < block.threads; ++i)
    if (i != block.running) make_ready(i);
}

void meet_named(int id, int threads, const Place& place) {
  if (id < 1 || id > 15 || threads <= 0 || threads % 32 != 0)
    fail("barrier 1 to 15 of a multiple of 32 threads", place);
  self().barrier = id;
  if (++block.at_named[id] < static_cast<unsigned>(threads)) return wait(Thread::at_named, place);
  block.at_named[id] = 0;
  for (unsigned i = 0; i < block.threads; ++i)
    if (block.thread[i].state == Thread::at_named && block.thread[i].barrier == id) make_ready(i);
}

void meet_warp(const char* operation, uint32_t mask, void* operand, Action action,
               const Place& place) {
  Thread& me = self();
  const unsigned warp = block.running / kLanes * kLanes, lane = block.running % kLanes;
  if (!(mask >> lane & 1)) fail("a lane must be in the mask it passes", place);
  me.operation = operation;
  me.mask = mask;
  me.operand = operand;
  uint32_t& waiting = block.at_warp[block.running / kLanes];
  if (const uint32_t others = waiting & mask; others != 0) {
    // Those that wait for one another have been compared before.
    const Thread& other = block.thread[warp + static_cast<unsigned>(std::countr_zero(others))];
    if (other.mask != mask || std::strcmp(other.operation, operation) != 0 ||
        !is_same_place(other.place, place))
      fail(fmt::format("lanes of one warp meet at different operations: this is {}, {}", operation,
                       describe(other)),
           place);
  }
  waiting |= 1u << lane;
  if ((waiting & mask) != mask) return wait(Thread::at_warp, place);
  waiting &= ~mask;
  void* operands[kLanes] = {};
  for (unsigned i = 0; i < kLanes; ++i)
    if (mask >> i & 1) operands[i] = block.thread[warp + i].operand;
  action(operands, mask);
  for (unsigned i = 0; i < kLanes; ++i)
    if (i != lane && mask >> i & 1) make_ready(warp + i);
}

unsigned char* dynamic_shared_memory() { return block.dynamic; }

void check_shared(const void* pointer, size_t bytes, const Place& place) {
  const auto* const at = static_cast<const unsigned char*>(pointer);
  const auto fixed = static_shared();
  const bool inside =
      (at >= block.dynamic && at + bytes <= block.dynamic + block.extent.shared_bytes) ||
      (at >= fixed.data() && at + bytes <= fixed.data() + fixed.size());
  if (!inside) fail("an address must lie in the block's shared memory", place);
  if (reinterpret_cast<uintptr_t>(at) % 16 != 0) fail("an address must be 16-byte aligned", place);
}

void begin_copy(void* shared, const void* global, int bytes, const Place& place) {
  check_shared(shared, 16, place);
  if (bytes < 0 || bytes > 16) fail("a copy must be of 0 to 16 bytes", place);
  if (bytes > 0 && reinterpret_cast<uintptr_t>(global) % 16 != 0)
    fail("the source of a copy must be 16-byte aligned", place);
  // From now until the wait the bytes may be old, new or half of either.
  std::memset(shared, kPoison, 16);
  self().copies.push_back({shared, global, bytes});
  ++self().open;
}

void commit_copies() {
  self().group_sizes.push_back(self().open);
  self().open = 0;
}

void wait_copies(int pending) {
  Thread& me = self();
  size_t done = 0, groups = 0;
  while (me.group_sizes.size() - groups > static_cast<size_t>(pending))
    done += me.group_sizes[groups++];
  for (size_t i = 0; i < done; ++i) {
    const Copy& copy = me.copies[i];
    std::memset(copy.to, 0, 16);
    if (copy.bytes > 0) std::memcpy(copy.to, copy.from, static_cast<size_t>(copy.bytes));
  }
  me.copies.erase(me.copies.begin(), me.copies.begin() + static_cast<std::ptrdiff_t>(done));
  me.group_sizes.erase(me.group_sizes.begin(),
                       me.group_sizes.begin() + static_cast<std::ptrdiff_t>(groups));
}

namespace {

Phase& phase_of(const void* barrier, const Place& place) {
  const auto found = block.phases.find(barrier);
  if (found == block.phases.end()) fail("a barrier must be initialised before", place);
  return found->second;
}

/// Ends the phase if all have arrived and its copies, if any, have been asked for.
void end_phase(const void* barrier, Phase& phase) {
  const auto waits = [&](const Thread& t) {
    return t.state == Thread::at_phase && t.phase == barrier;
  };
  const auto threads_end = block.thread.begin() + block.threads;
  const bool is_awaited = std::any_of(block.thread.begin(), threads_end, waits);
  if (phase.missing > 0 || (!phase.copies.empty() && !is_awaited)) return;
  for (const Copy& copy : phase.copies)
    std::memcpy(copy.to, copy.from, static_cast<size_t>(copy.bytes));
  phase.copies.clear();
  phase.missing = phase.arrivals;
  phase.parity ^= 1;
  for (unsigned i = 0; i < block.threads; ++i)
    if (waits(block.thread[i])) make_ready(i);
}

}  // namespace

void init_phase(const void* barrier, int arrivals, const Place& place) {
  if (arrivals < 1) fail("a phase must have arrivals", place);
  block.phases[barrier] = {arrivals, arrivals, 0, {}};
}

void arrive_at_phase(const void* barrier, const Place& place) {
  Phase& phase = phase_of(barrier, place);
  if (--phase.missing < 0) fail("more arrivals than a phase has", place);
  end_phase(barrier, phase);
}

void wait_for_phase(const void* barrier, int parity, const Place& place) {
  Phase& phase = phase_of(barrier, place);
  self().phase = barrier;
  self().state = Thread::at_phase;  // so that copies know of it
  self().place = place;
  if (phase.parity == parity && phase.missing == 0) end_phase(barrier, phase);
  if (self().state == Thread::ready) {  // it has just ended: this thread is in the queue
    to_scheduler();
    return;
  }
  if (phase.parity != parity) {
    self().state = Thread::ready;
    return;
  }
  to_scheduler();
}

void copy_in_phase(const void* barrier, void* shared, const void* global, int bytes,
                   const Place& place) {
  Phase& phase = phase_of(barrier, place);
  if (bytes <= 0 || bytes % 16 != 0) fail("a bulk copy must be of a multiple of 16 bytes", place);
  if (reinterpret_cast<uintptr_t>(global) % 16 != 0)
    fail("the source of a copy must be 16-byte aligned", place);
  check_shared(shared, static_cast<size_t>(bytes), place);
  std::memset(shared, kPoison, static_cast<size_t>(bytes));
  phase.copies.push_back({shared, global, bytes});
  arrive_at_phase(barrier, place);
}

Products& products() { return self().products; }

}  // namespace emulation

#include "vitrail/parallel/nvme_state.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <future>
#include <mutex>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "vitrail/core/error.h"
#include "vitrail/core/thread_pool.h"
#include "vitrail/parallel/device.h"

namespace vitrail::parallel {
namespace {

constexpr int64_t kPage = 4096;  // what direct access asks of addresses, places and lengths
constexpr int64_t kPiece =
    8LL << 20;  // of one read or write: long enough for a disk, short enough to share
constexpr int kThreads = 4;
constexpr int kSlots = 3;  // read ahead, at work, written behind
constexpr double kGiB = 1073741824.0;

int64_t arena_bytes(const HostRange& unit) {
  return (unit.count * static_cast<int64_t>(sizeof(float)) + kPage - 1) / kPage * kPage;
}

std::string system_error() { return std::strerror(errno); }

/// Bytes over the time in which at least one of several threads was at it.
class Rate {
 public:
  void begin() {
    const std::lock_guard lock(mutex_);
    if (active_++ == 0) since_ = Clock::now();
  }
  void end(int64_t bytes) {
    const std::lock_guard lock(mutex_);
    bytes_ += bytes;
    if (--active_ == 0) seconds_ += std::chrono::duration<double>(Clock::now() - since_).count();
  }
  double gb_per_second() const {
    const std::lock_guard lock(mutex_);
    return seconds_ > 0 ? static_cast<double>(bytes_) / seconds_ * 1e-9 : 0.0;
  }

 private:
  using Clock = std::chrono::steady_clock;
  mutable std::mutex mutex_;
  int active_ = 0;
  int64_t bytes_ = 0;
  double seconds_ = 0;
  Clock::time_point since_;
};

/// A file of a fixed size that nobody else sees.
class ScratchFile {
 public:
  ScratchFile(const std::string& folder, int rank, int64_t bytes) : folder_(folder) {
    need_room(bytes);
    std::string path = fmt::format("{}/vitrail-optimizer-rank{}-XXXXXX", folder, rank);
    file_ = mkstemp(path.data());
    VT_CHECK(file_ >= 0, "[offload] parallel.offload_folder {} must be writable but: {}", folder,
             system_error());
    unlink(path.c_str());
    if (fallocate(file_, 0, 0, bytes) != 0) {
      const bool full = errno == ENOSPC;
      const std::string why = full ? "another rank or program has taken the room" : system_error();
      // A file system without this call grows the file as it is written.
      if (full || ftruncate(file_, bytes) != 0) {
        close(file_);
        core::fail("[offload] {} must have room for {:.2f} GiB but: {}", folder,
                   static_cast<double>(bytes) / kGiB, why);
      }
    }
    direct_ = fcntl(file_, F_SETFL, fcntl(file_, F_GETFL) | O_DIRECT) == 0;
  }
  ~ScratchFile() { close(file_); }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  bool is_direct() const { return direct_; }

  void read(std::byte* to, int64_t bytes, int64_t offset) {
    move("read", bytes, offset, [&](int64_t done) {
      return pread(file_, to + done, static_cast<size_t>(bytes - done), offset + done);
    });
  }
  void write(const std::byte* from, int64_t bytes, int64_t offset) {
    move("written", bytes, offset, [&](int64_t done) {
      return pwrite(file_, from + done, static_cast<size_t>(bytes - done), offset + done);
    });
  }

 private:
  void need_room(int64_t bytes) const {
    struct statvfs info {};
    VT_CHECK(statvfs(folder_.c_str(), &info) == 0,
             "[offload] parallel.offload_folder {} must be a folder on a local disk but: {}",
             folder_, system_error());
    const int64_t free = static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
    VT_CHECK(free >= bytes,
             "[offload] {} must have {} bytes free ({:.2f} GiB) for the optimizer state of this "
             "rank but has {} ({:.2f} GiB); choose another parallel.offload_folder or use more "
             "ranks",
             folder_, bytes, static_cast<double>(bytes) / kGiB, free,
             static_cast<double>(free) / kGiB);
  }

  template <class Step>
  void move(const char* what, int64_t bytes, int64_t offset, Step&& step) const {
    for (int64_t done = 0; done < bytes;) {
      const ssize_t moved = step(done);
      if (moved < 0 && errno == EINTR) continue;
      VT_CHECK(moved > 0, "[offload] {} bytes at {} of the file in {} must be {} but: {}", bytes,
               offset, folder_, what, moved == 0 ? "the file ends there" : system_error());
      done += moved;
    }
  }

  std::string folder_;
  int file_ = -1;
  bool direct_ = false;
};

}  // namespace

class NvmeState::Impl {
 public:
  Impl(const std::string& folder, int rank, std::vector<HostRange> units, int arenas)
      : units_(std::move(units)),
        arenas_(arenas),
        file_(folder, rank, NvmeState::file_bytes(units_, arenas)),
        pool_(kThreads) {
    int64_t largest = 0, place = 0;
    for (const HostRange& unit : units_) {
      places_.push_back(place);
      place += arenas_ * arena_bytes(unit);
      largest = std::max(largest, arenas_ * arena_bytes(unit));
    }
    for (Slot& slot : slots_) slot.memory = PinnedMemory(at::kCPU, largest);
  }
  ~Impl() {
    for (Slot& slot : slots_)
      for (std::future<void>& piece : slot.under_way) piece.wait();
  }

  void request(int unit) {
    Slot& slot = slot_of(unit);
    if (slot.unit == unit) return;
    wait(slot);
    slot.unit = unit;
    start(slot, read_,
          [this](std::byte* at, int64_t bytes, int64_t offset) { file_.read(at, bytes, offset); });
  }

  std::vector<float*> take(int unit) {
    request(unit);
    Slot& slot = slot_of(unit);
    wait(slot);
    std::vector<float*> arenas;
    for (int a = 0; a < arenas_; ++a)
      arenas.push_back(
          reinterpret_cast<float*>(slot.memory.data() + a * arena_bytes(units_[unit])));
    return arenas;
  }

  void give_back(int unit, bool changed) {
    if (!changed) return;
    start(slot_of(unit), written_,
          [this](std::byte* at, int64_t bytes, int64_t offset) { file_.write(at, bytes, offset); });
  }

  template <class Visit>
  void for_each_unit(int arena, bool changes, Visit&& visit) {
    const int count = static_cast<int>(units_.size());
    for (int u = 0; u < count; ++u) {
      if (u + 1 < count) request(u + 1);
      visit(units_[u], take(u)[arena]);
      give_back(u, changes);
    }
  }

  std::vector<HostRange> units_;
  int arenas_;
  ScratchFile file_;
  Rate read_, written_;

 private:
  struct Slot {
    PinnedMemory memory;
    int unit = -1;
    std::vector<std::future<void>> under_way;
  };

  Slot& slot_of(int unit) { return slots_[unit % kSlots]; }

  static void wait(Slot& slot) {
    for (std::future<void>& piece : slot.under_way) piece.get();
    slot.under_way.clear();
  }

  template <class Move>
  void start(Slot& slot, Rate& rate, Move move) {
    const int64_t bytes = arenas_ * arena_bytes(units_[slot.unit]), place = places_[slot.unit];
    for (int64_t first = 0; first < bytes; first += kPiece) {
      const int64_t count = std::min(kPiece, bytes - first);
      std::byte* memory = slot.memory.data() + first;
      slot.under_way.push_back(pool_.submit([&rate, move, memory, count, offset = place + first] {
        rate.begin();
        try {
          move(memory, count, offset);
        } catch (...) {
          rate.end(0);
          throw;
        }
        rate.end(count);
      }));
    }
  }

  std::vector<int64_t> places_;  // of units in the file
  std::array<Slot, kSlots> slots_;
  core::ThreadPool pool_;  // last: it ends before what its work uses
};

NvmeState::NvmeState(const std::string& folder, int rank, std::vector<HostRange> units, int arenas)
    : impl_(std::make_unique<Impl>(folder, rank, std::move(units), arenas)) {}
NvmeState::~NvmeState() = default;

void NvmeState::request(int unit) { impl_->request(unit); }
std::vector<float*> NvmeState::take(int unit) { return impl_->take(unit); }
void NvmeState::give_back(int unit, bool changed) { impl_->give_back(unit, changed); }

void NvmeState::read(int arena, float* values) {
  impl_->for_each_unit(arena, /*changes=*/false, [&](const HostRange& unit, const float* held) {
    std::copy_n(held, unit.count, values + unit.offset);
  });
}

void NvmeState::write(int arena, const float* values) {
  impl_->for_each_unit(arena, /*changes=*/true, [&](const HostRange& unit, float* held) {
    std::copy_n(values + unit.offset, unit.count, held);
  });
}

int64_t NvmeState::file_bytes() const { return file_bytes(impl_->units_, impl_->arenas_); }

int64_t NvmeState::file_bytes(const std::vector<HostRange>& units, int arenas) {
  int64_t bytes = 0;
  for (const HostRange& unit : units) bytes += arenas * arena_bytes(unit);
  return bytes;
}

std::string NvmeState::describe() const {
  return fmt::format("read {:.2f} GB/s, written {:.2f} GB/s, {}", impl_->read_.gb_per_second(),
                     impl_->written_.gb_per_second(),
                     impl_->file_.is_direct() ? "past the page cache" : "through the page cache");
}

}  // namespace vitrail::parallel

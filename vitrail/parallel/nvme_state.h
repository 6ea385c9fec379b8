#pragma once
/// Arenas of optimizer state in a file on a fast local disk, of which three units at a time are in memory.
///
/// Pattern   request(u + 1); take(u); change it; give_back(u): the next unit is read and the one before written while the
///           caller works. Reads and writes run on four threads in pieces; past the page cache where the file system
///           allows it.
/// Memory    host: three times the largest unit of all arenas.
/// File      one a rank, without a name once it is open: whatever happens it is gone when the process is. Units one after
///           another, each with its arenas one after another, each at a multiple of 4096 bytes. Nothing to recover: a
///           checkpoint holds the state.
/// Errors    Error naming the folder: not there, not writable, not enough room (with the bytes needed and free).
/// Paper     Rajbhandari et al. 2021, arXiv:2104.07857 (ZeRO-Infinity).

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace vitrail::parallel {

/// A run of elements of the kept arenas.
struct HostRange {
  int64_t offset = 0, count = 0;
};

class NvmeState {
 public:
  /// `arenas` fp32 values for each element of the units. All zero at first.
  NvmeState(const std::string& folder, int rank, std::vector<HostRange> units, int arenas);
  ~NvmeState();

  /// Starts to read a unit, after what its place in memory held has been written.
  void request(int unit);
  /// The arenas of a unit in memory; waits for its reading. Valid until give_back.
  std::vector<float*> take(int unit);
  /// Starts to write a unit; `changed` false: nothing to write.
  void give_back(int unit, bool changed);

  /// The whole arena, `values` in the place of elements [0, count) of the kept arenas; waits.
  void read(int arena, float* values);
  void write(int arena, const float* values);

  int64_t file_bytes() const;
  static int64_t file_bytes(const std::vector<HostRange>& units, int arenas);
  /// "read 3.21 GB/s, written 2.10 GB/s, past the page cache", since the start; wall time of pieces on the threads.
  std::string describe() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vitrail::parallel

#pragma once
/// Event files for TensorBoard.
///
/// Format   TFRecord frames (length, masked CRC-32C, payload, masked CRC-32C) around
/// tensorflow.Event messages. Errors   Error naming the file if it cannot be written. Threads  one
/// at a time.

#include <cstdint>
#include <string>
#include <string_view>

namespace vitrail::io {

/// One file "events.out.tfevents.<time>.<host>.<pid>" in a folder, made if missing. A second writer
/// of the same second gets a name of its own.
class TensorboardWriter {
 public:
  explicit TensorboardWriter(const std::string& folder);
  /// Writes what is left; an error then is dropped: call flush() to hear of it.
  ~TensorboardWriter();
  TensorboardWriter(const TensorboardWriter&) = delete;
  TensorboardWriter& operator=(const TensorboardWriter&) = delete;

  /// wall_time  seconds since 1970; 0 = now.
  void add_scalar(std::string_view tag, int64_t step, double value, double wall_time = 0.0);
  void add_image(std::string_view tag, int64_t step, std::string_view png, int width, int height,
                 int channels, double wall_time = 0.0);
  void add_text(std::string_view tag, int64_t step, std::string_view text, double wall_time = 0.0);

  /// Hands everything to the system, so that a TensorBoard that watches sees it.
  void flush();

  const std::string& path() const { return path_; }

 private:
  void add_value(std::string_view value, int64_t step, double wall_time);
  void add_record(std::string_view event);

  std::string path_;
  std::string pending_;
  int descriptor_ = -1;
};

}  // namespace vitrail::io

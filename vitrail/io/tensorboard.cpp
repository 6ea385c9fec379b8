#include "vitrail/io/tensorboard.h"

#include <bit>
#include <cerrno>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/checksum.h"
#include "vitrail/core/clock.h"
#include "vitrail/core/error.h"

namespace vitrail::io {
namespace {

constexpr size_t kFlushBytes = 1 << 16;

/// A Protocol Buffers message, field by field (https://protobuf.dev/programming-guides/encoding).
class Message {
 public:
  Message& varint(int field, uint64_t value) {
    tag(field, 0);
    raw_varint(value);
    return *this;
  }
  Message& fixed64(int field, double value) {
    tag(field, 1);
    little_endian(std::bit_cast<uint64_t>(value), 8);
    return *this;
  }
  Message& fixed32(int field, float value) {
    tag(field, 5);
    little_endian(std::bit_cast<uint32_t>(value), 4);
    return *this;
  }
  Message& bytes(int field, std::string_view value) {
    tag(field, 2);
    raw_varint(value.size());
    text_ += value;
    return *this;
  }
  Message& message(int field, const Message& value) { return bytes(field, value.text_); }

  std::string_view text() const { return text_; }

 private:
  void tag(int field, int wire_type) {
    raw_varint(static_cast<uint64_t>(field) << 3 | static_cast<uint64_t>(wire_type));
  }
  void raw_varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) text_ += static_cast<char>(value | 0x80);
    text_ += static_cast<char>(value);
  }
  void little_endian(uint64_t value, int count) {
    for (int i = 0; i < count; ++i) text_ += static_cast<char>(value >> (8 * i));
  }

  std::string text_;
};

// Field numbers of tensorflow/core/framework/summary.proto, tensor.proto and util/event.proto.
namespace event_field {
constexpr int wall_time = 1, step = 2, file_version = 3, summary = 5;
}
namespace summary_field {
constexpr int value = 1;
}
namespace value_field {
constexpr int tag = 1, simple_value = 2, image = 4, tensor = 8, metadata = 9;
}
namespace image_field {
constexpr int height = 1, width = 2, colorspace = 3, encoded = 4;
}
namespace tensor_field {
constexpr int dtype = 1, shape = 2, string_value = 8;
}

void append_fixed(std::string& text, uint64_t value, int count) {
  for (int i = 0; i < count; ++i) text += static_cast<char>(value >> (8 * i));
}

std::string host_name() {
  char name[256] = "";
  if (::gethostname(name, sizeof name - 1) != 0 || name[0] == '\0') return "localhost";
  return name;
}

/// One string as a rank-1 tensor, marked for TensorBoard's text page.
Message text_tensor(std::string_view text) {
  constexpr uint64_t kString = 7;
  Message dim, shape, tensor;
  dim.varint(1, 1);
  shape.message(2, dim);
  tensor.varint(tensor_field::dtype, kString)
      .message(tensor_field::shape, shape)
      .bytes(tensor_field::string_value, text);
  return tensor;
}

Message text_metadata() {
  Message plugin, metadata;
  plugin.bytes(1, "text");
  metadata.message(1, plugin);
  return metadata;
}

}  // namespace

TensorboardWriter::TensorboardWriter(const std::string& folder) {
  core::make_directories(folder);
  const std::string stem =
      fmt::format("{}/events.out.tfevents.{}.{}.{}", folder,
                  static_cast<int64_t>(core::unix_seconds()), host_name(), ::getpid());
  for (int attempt = 0; descriptor_ < 0; ++attempt) {
    path_ = attempt == 0 ? stem : fmt::format("{}.{}", stem, attempt);
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
    VT_CHECK(descriptor_ >= 0 || errno == EEXIST, "[tensorboard] {}: cannot be written: {}", path_,
             std::generic_category().message(errno));
  }
  Message version;
  version.fixed64(event_field::wall_time, core::unix_seconds())
      .bytes(event_field::file_version, "brain.Event:2");
  add_record(version.text());
}

TensorboardWriter::~TensorboardWriter() {
  try {
    flush();
  } catch (const core::Error&) {  // a destructor must not throw; flush() tells
  }
  ::close(descriptor_);
}

void TensorboardWriter::add_scalar(std::string_view tag, int64_t step, double value,
                                   double wall_time) {
  Message message;
  message.bytes(value_field::tag, tag)
      .fixed32(value_field::simple_value, static_cast<float>(value));
  add_value(message.text(), step, wall_time);
}

void TensorboardWriter::add_image(std::string_view tag, int64_t step, std::string_view png,
                                  int width, int height, int channels, double wall_time) {
  Message image, message;
  image.varint(image_field::height, static_cast<uint64_t>(height))
      .varint(image_field::width, static_cast<uint64_t>(width))
      .varint(image_field::colorspace, static_cast<uint64_t>(channels))
      .bytes(image_field::encoded, png);
  message.bytes(value_field::tag, tag).message(value_field::image, image);
  add_value(message.text(), step, wall_time);
}

void TensorboardWriter::add_text(std::string_view tag, int64_t step, std::string_view text,
                                 double wall_time) {
  Message message;
  message.bytes(value_field::tag, tag)
      .message(value_field::tensor, text_tensor(text))
      .message(value_field::metadata, text_metadata());
  add_value(message.text(), step, wall_time);
}

void TensorboardWriter::add_value(std::string_view value, int64_t step, double wall_time) {
  Message summary, event;
  summary.bytes(summary_field::value, value);
  event.fixed64(event_field::wall_time, wall_time != 0.0 ? wall_time : core::unix_seconds())
      .varint(event_field::step, static_cast<uint64_t>(step))
      .message(event_field::summary, summary);
  add_record(event.text());
}

void TensorboardWriter::add_record(std::string_view event) {
  const size_t start = pending_.size();
  append_fixed(pending_, event.size(), 8);
  append_fixed(pending_, core::masked_crc32c(pending_.data() + start, 8), 4);
  pending_ += event;
  append_fixed(pending_, core::masked_crc32c(event.data(), event.size()), 4);
  if (pending_.size() >= kFlushBytes) flush();
}

void TensorboardWriter::flush() {
  if (pending_.empty()) return;
  const std::string records = std::exchange(pending_, {});  // not written twice if this fails
  core::write_all(descriptor_, records, path_);
}

}  // namespace vitrail::io

#pragma once
/// safetensors files: a strict reader over a memory map, and a writer.
///
/// Format   docs/formats/safetensors.md. Nothing in a file is executed, and nothing is allocated by
/// what it claims. Errors   CheckpointError naming the file and, where there is one, the tensor.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vitrail/core/dtype.h"

namespace vitrail::core {
class MappedFile;
}

namespace vitrail::io {

using SafetensorsMetadata = std::map<std::string, std::string>;

/// Headers longer than this are refused (the limit of the reference implementation).
inline constexpr int64_t kMaxSafetensorsHeader = 100'000'000;

struct SafetensorsInfo {
  core::DType dtype = core::DType::f32;
  std::vector<int64_t> shape;  // empty = one value
  int64_t begin = 0, end = 0;  // bytes, counted from the start of the data part

  int64_t count() const { return (end - begin) / core::size_bytes(dtype); }
};

/// A checked file. Cheap to copy; copies share the map.
class SafetensorsFile {
 public:
  /// Maps the file and checks all of its header.
  static SafetensorsFile open(const std::string& path);

  /// The same for a file in memory, which must outlive the object; `name` is for messages.
  static SafetensorsFile parse(std::span<const std::byte> file, const std::string& name);

  /// In the order of their bytes.
  const std::vector<std::string>& names() const { return names_; }
  bool contains(std::string_view name) const;
  const SafetensorsInfo& info(std::string_view name) const;
  /// Row-major values, little-endian. The format does not promise alignment: copy, or test the
  /// address.
  std::span<const std::byte> bytes(std::string_view name) const;
  const SafetensorsMetadata& metadata() const { return metadata_; }
  const std::string& path() const { return name_; }
  /// Where the data part starts in the file.
  int64_t data_offset() const { return data_offset_; }

 private:
  std::string name_;
  std::shared_ptr<const core::MappedFile> map_;
  std::span<const std::byte> data_;
  int64_t data_offset_ = 0;
  std::map<std::string, SafetensorsInfo, std::less<>> tensors_;
  std::vector<std::string> names_;
  SafetensorsMetadata metadata_;
};

/// The name of a type in the file ("BF16").
std::string_view safetensors_dtype(core::DType dtype);

/// A tensor in row-major order; `data` may be null if it has no elements.
struct TensorToWrite {
  std::string name;
  core::DType dtype = core::DType::f32;
  std::vector<int64_t> shape;
  const void* data = nullptr;
};

/// Where everything goes, known before any data is.
struct SafetensorsLayout {
  struct Place {
    std::string name;
    int64_t offset = 0;  // from the start of the file
    int64_t bytes = 0;
  };
  std::string
      header;  // the file up to the first tensor: length word and JSON, a multiple of 8 bytes
  std::vector<Place> places;  // in the order of the file, without gaps
  int64_t file_bytes = 0;

  /// The tensors in the order given (`data` is not looked at). Readers that cast in place need wide
  /// types first. throws   CheckpointError for a name that is given twice, "__metadata__" or not
  /// UTF-8, a negative size, a header
  ///          over the limit.
  static SafetensorsLayout plan(std::span<const TensorToWrite> tensors,
                                const SafetensorsMetadata& metadata = {},
                                const std::string& path = "");
};

/// Writes a planned file piece by piece; each tensor's checksum is taken on the way.
/// Errors   Error naming the path if the system refuses (disk full); the unfinished file is left to
/// its owner.
class SafetensorsWriter {
 public:
  struct Written {
    std::string name;
    int64_t offset = 0;  // from the start of the file
    int64_t bytes = 0;
    uint32_t crc32c = 0;
  };

  /// Creates or empties `path` and writes the header.
  SafetensorsWriter(std::string path, SafetensorsLayout layout);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  /// The next bytes of tensor `name`: all of it or a part. Tensors come in the order of the layout.
  /// throws   CheckpointError if they come in another order or are too many.
  void append(std::string_view name, const void* data, int64_t bytes);

  /// Flushes to disk (unless sync is false) and closes; every tensor must be there.
  std::vector<Written> finish(bool sync = true);

  const SafetensorsLayout& layout() const { return layout_; }

 private:
  void skip_finished();

  std::string path_;
  SafetensorsLayout layout_;
  std::vector<Written> written_;
  size_t current_ = 0;
  int64_t filled_ = 0;
  int descriptor_ = -1;
};

/// The whole file, atomically (core/atomic_file.h). Wider types are placed first, else in the order
/// given, so that every tensor is aligned for readers that cast in place. Returns where each went,
/// in the order of the file.
std::vector<SafetensorsWriter::Written> write_safetensors(const std::string& path,
                                                          const std::vector<TensorToWrite>& tensors,
                                                          const SafetensorsMetadata& metadata = {});

}  // namespace vitrail::io

#pragma once
/// One source's samples behind one interface, and the registry of formats.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/batch.h"
#include "vitrail/data/pixels.h"

namespace vitrail::data {

/// What is known of a sample without decoding it.
struct SampleInfo {
  std::string path;
  int64_t label = -1;
};

/// What a file's header says.
struct Shape {
  std::vector<int64_t> sides;
  int64_t channels = 0;
  std::string detail = {};  // voxel size and orientation, where the format knows them
};

/// A sorted list of images or volumes, with a class or a mask each.
/// Threads  const functions are called from many threads at once; they use no thread pool of their
///          own.
class Reader {
 public:
  explicit Reader(int64_t channels) : channels_(channels) {}
  virtual ~Reader() = default;
  virtual int64_t size() const = 0;
  virtual SampleInfo describe(int64_t i) const = 0;
  /// throws DataError naming the file.
  virtual Pixels decode(int64_t i) const = 0;
  /// Reads as little of the file as the format allows. throws DataError naming the file.
  virtual Shape shape(int64_t i) const;
  /// True: every image has a mask.
  virtual bool has_masks() const { return false; }
  /// The classes of the image's pixels, of equal sides. Only with has_masks().
  /// throws   DataError naming the file: other sides than the image, a value that is no class.
  virtual Mask decode_mask(int64_t i) const;
  /// True when decoding takes long enough that what is decoded is worth keeping in memory.
  virtual bool is_costly() const { return false; }
  /// Class names in label order; empty when labels have no names.
  virtual std::vector<std::string> class_names() const { return {}; }

  /// Float [C, sides...], bytes in [0, 1], C as asked for by the model (grey <-> RGB), sides as
  /// stored; the mask if there is one.
  Sample read(int64_t i) const;

 private:
  int64_t channels_;
};

/// The reader of source.reader over source.root, narrowed to source.split: [start, end) as ratios
/// of its sorted list (of each stack's slices for image_stack); sample llround(start * size) is the
/// first, llround(end * size) is one past the last.
/// throws   DataError: missing root, no images, an empty class folder, an empty split. ConfigError:
///          a reader that does not fit model.image_size; a split outside 0 <= start < end <= 1.
std::unique_ptr<Reader> open_reader(const config::Source& source, const config::Model& model);

/// True for the models that learn a class per pixel: unetr, sap.
bool segments(const config::Model& model);

/// model.in_channels, or the number of source.variables.
/// throws   ConfigError: a variable that is not in model.variables, or twice.
int64_t channels_of(const config::Source& source, const config::Model& model);

/// source.name, or the reader's name when it is empty.
std::string source_name(const config::Source& source);

}  // namespace vitrail::data

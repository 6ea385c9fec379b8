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
  std::string path;  // of the file; a sample inside a file is "path#number" or "path#name"
  int64_t label = -1;
  std::vector<float> values = {};  // numbers to be learnt, of the whole image
};

/// A part of a file: `sides` pixels from `origin` on, one entry per axis of the file.
struct Box {
  std::vector<int64_t> origin, sides;
};

/// An object in an image: its corners in pixels, the high ones not included.
struct LabelledBox {
  float x0 = 0, y0 = 0, x1 = 0, y1 = 0;
  int64_t label = 0;
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
  /// True: every image has an image of real values to be learnt. Never together with has_masks().
  virtual bool has_value_images() const { return false; }
  /// Those values, floats [sides..., V] of the image's sides. Only with has_value_images().
  virtual Pixels decode_values(int64_t i) const;
  /// The objects of an image and the most that any image has; 0 = a source without boxes.
  virtual std::vector<LabelledBox> boxes(int64_t i) const;
  virtual int64_t max_boxes() const { return 0; }
  /// True: a part of a file is read without the rest, so that files may be larger than memory. What
  /// is asked for lies inside the file.
  virtual bool reads_boxes() const { return false; }
  virtual Pixels decode_box(int64_t i, const Box& box) const;
  virtual Mask decode_mask_box(int64_t i, const Box& box) const;
  virtual Pixels decode_values_box(int64_t i, const Box& box) const;
  /// Sides along which boxes are cheapest to read (chunks of the file); empty = no matter.
  virtual std::vector<int64_t> chunk_sides(int64_t i) const;
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

/// True for the models that learn a class per pixel: unetr and sap without a loss of values.
bool segments(const config::Model& model);

/// True for the models that learn real values: model.loss mse with vit (num_classes values a sample),
/// unetr or sap (num_classes values a pixel).
bool regresses(const config::Model& model);

/// model.in_channels, or the number of source.variables.
/// throws   ConfigError: a variable that is not in model.variables, or twice.
int64_t channels_of(const config::Source& source, const config::Model& model);

/// source.name, or the reader's name when it is empty.
std::string source_name(const config::Source& source);

}  // namespace vitrail::data

#pragma once
/// All sources of a recipe as one list with global sample indices.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/decoded.h"
#include "vitrail/data/reader.h"
#include "vitrail/data/transform.h"
#include "vitrail/data/windows.h"

namespace vitrail::data {

/// Source after source in the recipe's order; within a source the order of its windows, which is that
/// of the reader's sorted list.
///
/// Weights  training: a source of weight w != 1 fills llround(w * size) indices. Its samples are
///          dealt to them in a fixed shuffled order that goes on from one epoch to the next, so
///          that a share of a sorted list is not the same few classes each time, and over the
///          epochs every sample comes equally often.
/// Memory   files that give several samples, or that are slow to decode, are kept decoded up to
///          `cache_bytes` (see DecodedCache).
/// Threads  const and safe from many threads.
class SourceList {
 public:
  static constexpr int64_t kCacheBytes = int64_t{2} << 30;

  /// throws   see open_reader, Windows and Transform; DataError for class lists that do not fit
  ///          model.num_classes or each other; ConfigError for sources of different variables, and
  ///          for one without masks when the model segments.
  SourceList(const std::vector<config::Source>& sources, const config::Model& model, uint64_t seed,
             bool training, bool raw, int64_t cache_bytes = kCacheBytes);

  int64_t size() const { return size_; }
  int64_t source_of(int64_t index) const;
  const Reader& reader(int64_t source) const {
    return *entries_[static_cast<size_t>(source)].reader;
  }
  const std::vector<std::string>& class_names() const { return class_names_; }
  SampleInfo describe(int64_t epoch, int64_t index) const;

  /// Where the sample lies in its file. Reads a header where the file's sides are needed.
  Window window(int64_t epoch, int64_t index) const;
  /// Axes of a file; the largest over all sources.
  int64_t file_axes() const { return file_axes_; }

  int64_t channels() const { return entries_.front().transform.channels(); }
  /// Names of the channels that every source gives; empty = all of the model's.
  const std::vector<std::string>& variables() const { return variables_; }
  int64_t values_per_sample() const { return entries_.front().transform.values_per_sample(); }
  /// True: the label of a sample is a mask.
  bool has_masks() const { return has_masks_; }
  /// 1, or the pixels of a mask.
  int64_t values_per_label() const {
    return has_masks_ ? entries_.front().transform.pixels_per_sample() : 1;
  }
  /// Writes float [C, sides...] to `image` and values_per_label() numbers to `label`. throws
  /// DataError naming the file.
  void load(int64_t epoch, int64_t index, float* image, int64_t* label) const;

  const DecodedCache& cache() const { return cache_; }

 private:
  struct Entry {
    std::unique_ptr<Reader> reader;
    Windows windows;
    Transform transform;
    bool is_cached;
    int64_t first;  // global index of its first sample
    int64_t size;   // indices it fills
  };
  struct Item {
    const Entry* entry;
    int64_t source;
    int64_t i;  // in the source's windows
  };
  Item locate(int64_t epoch, int64_t index) const;
  void add(const config::Source& source, const config::Model& model, bool training, bool raw);
  void check_classes(const config::Source& source, const config::Model& model);
  std::shared_ptr<const Decoded> decoded(const Item& item, int64_t file,
                                         const std::string& path) const;

  bool has_masks_;
  std::vector<Entry> entries_;
  std::vector<std::string> variables_;
  int64_t file_axes_ = 0;
  mutable DecodedCache cache_;
  std::vector<std::string> class_names_;
  uint64_t seed_;
  int64_t size_ = 0;
};

}  // namespace vitrail::data

#pragma once
/// All sources of a recipe as one list with global sample indices.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/reader.h"
#include "vitrail/data/transform.h"

namespace vitrail::data {

/// Source after source in the recipe's order; within a source the reader's sorted order.
///
/// Weights  training: a source of weight w != 1 fills llround(w * size) indices. Its samples are
///          dealt to them in a fixed shuffled order that goes on from one epoch to the next, so
///          that a share of a sorted list is not the same few classes each time, and over the
///          epochs every sample comes equally often.
/// Threads  const and safe from many threads.
class SourceList {
 public:
  /// throws   see open_reader and Transform; DataError for class lists that do not fit
  ///          model.num_classes or each other.
  SourceList(const std::vector<config::Source>& sources, const config::Model& model, uint64_t seed,
             bool training, bool raw);

  int64_t size() const { return size_; }
  int64_t source_of(int64_t index) const;
  const Reader& reader(int64_t source) const {
    return *entries_[static_cast<size_t>(source)].reader;
  }
  const std::vector<std::string>& class_names() const { return class_names_; }
  SampleInfo describe(int64_t epoch, int64_t index) const;

  int64_t values_per_sample() const { return entries_.front().transform.values_per_sample(); }
  /// Writes float [C, sides...] to `out`; returns the label. throws DataError naming the file.
  int64_t load(int64_t epoch, int64_t index, float* out) const;

 private:
  struct Entry {
    std::unique_ptr<Reader> reader;
    Transform transform;
    int64_t first;  // global index of its first sample
    int64_t size;   // indices it fills
  };
  struct Item {
    const Entry* entry;
    int64_t i;  // in the reader's list
  };
  Item locate(int64_t epoch, int64_t index) const;
  void add(const config::Source& source, const config::Model& model, bool training, bool raw);
  void check_classes(const config::Source& source, const config::Model& model);

  std::vector<Entry> entries_;
  std::vector<std::string> class_names_;
  uint64_t seed_;
  int64_t size_ = 0;
};

}  // namespace vitrail::data

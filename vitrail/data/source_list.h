#pragma once
/// All sources of a recipe as one list with global sample indices.

#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/decoded.h"
#include "vitrail/data/reader.h"
#include "vitrail/data/transform.h"
#include "vitrail/data/windows.h"

namespace vitrail::data {

/// What a sample's label is, for all sources of a list.
enum class LabelKind {
  classes,  // an int64
  masks,    // int64 [S...], a class per pixel
  values,   // float [V]
  images,   // float [V, S...]
};

/// What was read for a sample, in memory of its own.
struct ReadSample {
  int64_t index = -1, source = 0;
  AugmentPlace place;
  SampleInfo info;
  Window window;  // in `file`
  std::shared_ptr<const Decoded> file;
  std::vector<LabelledBox> boxes;  // in pixels of `file`
};

/// Source after source in the recipe's order; within a source the order of its windows, which is that
/// of the reader's sorted list.
///
/// Weights  training: a source of weight w != 1 fills llround(w * size) indices. Its samples are
///          dealt to them in a fixed shuffled order that goes on from one epoch to the next, so
///          that a share of a sorted list is not the same few classes each time, and over the
///          epochs every sample comes equally often.
/// Boxes    of a reader that reads boxes only the window is read, unless source.normalize needs the
///          range of the whole file, which then must not be larger than cache_bytes (or 1 GiB).
/// Memory   other files that give several samples, or that are slow to decode, are kept decoded up to
///          `cache_bytes` (see DecodedCache).
/// Shapes   C channels of a source, S the staging sides (the same for all sources), V = num_classes
///          values to be learnt, M = max_boxes().
/// Threads  const and safe from many threads.
class SourceList {
 public:
  static constexpr int64_t kCacheBytes = int64_t{2} << 30;

  /// mixes_samples: samples of all sources share a batch.
  /// throws   see open_reader, Windows and Transform; DataError for class lists that do not fit
  ///          model.num_classes or each other; ConfigError for sources of different variables when
  ///          mixes_samples, and for one without what the model learns from (masks, values).
  SourceList(const std::vector<config::Source>& sources, const config::Model& model, uint64_t seed,
             bool training, bool raw, int64_t cache_bytes = kCacheBytes, bool mixes_samples = true);

  int64_t size() const { return size_; }
  int64_t sources() const { return static_cast<int64_t>(entries_.size()); }
  /// Samples of each source in an epoch.
  std::vector<int64_t> sizes() const;
  int64_t source_of(int64_t index) const;
  const Reader& reader(int64_t source) const { return *entry(source).reader; }
  const std::string& name(int64_t source) const { return entry(source).name; }
  const std::vector<std::string>& class_names() const { return class_names_; }
  SampleInfo describe(int64_t epoch, int64_t index) const;

  /// Where the sample lies in its file. Reads a header where the file's sides are needed.
  Window window(int64_t epoch, int64_t index) const;
  /// Axes of a file; the largest over all sources.
  int64_t file_axes() const { return file_axes_; }

  int64_t channels(int64_t source = 0) const { return entry(source).transform.channels(); }
  /// Names of the channels that a source gives; empty = all of the model's.
  const std::vector<std::string>& variables(int64_t source = 0) const {
    return entry(source).variables;
  }
  LabelKind label_kind() const { return label_kind_; }
  /// V; 0 for classes and masks.
  int64_t values() const { return values_; }
  int64_t max_boxes() const { return max_boxes_; }
  const std::vector<int64_t>& staging_sides() const { return staging_; }
  /// A row of Batch::pixel_range [C, 2] (data/leaves.h).
  const std::vector<float>& pixel_range(int64_t source) const { return entry(source).pixel_range; }
  /// Bytes of a row of Batch::augment_plan; -1 = no source has a plan.
  int64_t plan_bytes(int64_t source) const;

  /// Everything that takes time or may fail: files and their decoding.
  /// throws   DataError naming the file.
  ReadSample read(int64_t epoch, int64_t index) const;
  /// Writes what `out` asks for; `numbers` gets V values and may be null.
  void place(const ReadSample& sample, const Placed& out, int64_t* label, float* numbers) const;
  /// read() and place() of an image with a class (`label` one number) or a mask (`label` [S...]).
  void load(int64_t epoch, int64_t index, float* image, int64_t* label) const;
  /// After read() of this sample did not come back: others that wait for its file get `error`.
  void give_up(int64_t epoch, int64_t index, std::exception_ptr error) const;
  /// The file that a sample comes from, as (source, place in its reader).
  DecodedCache::Key file_of(int64_t epoch, int64_t index) const;
  /// True: the sample's file is only ever read whole, so that it is broken for all its samples alike.
  bool reads_whole(int64_t index) const { return !entry(source_of(index)).reads_boxes; }

  DecodedCache& cache() const { return cache_; }

 private:
  struct Entry {
    std::string name;
    std::vector<std::string> variables;
    std::unique_ptr<Reader> reader;
    Windows windows;
    Transform transform;
    std::vector<float> pixel_range;
    bool is_cached;
    bool reads_boxes;
    int64_t first;  // global index of its first sample
    int64_t size;   // indices it fills
  };
  struct Item {
    const Entry* entry;
    int64_t source;
    int64_t i;  // in the source's windows
  };
  /// What a header says of a file that is read in boxes.
  struct Grid {
    std::vector<int64_t> sides, chunk;
  };
  const Entry& entry(int64_t source) const { return entries_[static_cast<size_t>(source)]; }
  Item locate(int64_t epoch, int64_t index) const;
  void add(const config::Source& source, const config::Model& model, bool training, bool raw);
  void check_labels(const config::Source& source, const config::Model& model,
                    const Reader& reader) const;
  void check_classes(const config::Source& source, const config::Model& model);
  void agree_on_staging();
  Decoded decode(const Entry& entry, int64_t file, const std::string& path) const;
  Decoded decode(const Entry& entry, int64_t file, const std::string& path, const Box& box) const;
  void check_fits(const Item& item, int64_t file, const std::string& path) const;
  void read_whole(const Item& item, ReadSample& sample) const;
  void read_box(const Item& item, ReadSample& sample) const;
  Grid grid(const Item& item, int64_t file) const;

  LabelKind label_kind_;
  int64_t values_ = 0, max_boxes_ = 0;
  std::vector<Entry> entries_;
  std::vector<int64_t> staging_;
  int64_t file_axes_ = 0;
  mutable DecodedCache cache_;
  mutable std::mutex grids_mutex_;
  mutable std::map<DecodedCache::Key, Grid> grids_;
  std::vector<std::string> class_names_;
  uint64_t seed_;
  int64_t size_ = 0;
};

}  // namespace vitrail::data

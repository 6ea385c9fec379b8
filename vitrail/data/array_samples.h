#pragma once
/// A list of arrays, each a sample or, along an axis n, many; and boxes of them as numbers.

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/array_axes.h"
#include "vitrail/data/reader.h"
#include "vitrail/io/array.h"

namespace vitrail::data {

/// Files of one format, kept open while they are used: at most `max_open`, the last used ones.
/// Threads  any number; a file that several ask for at once is opened once.
class OpenArrays {
 public:
  OpenArrays(std::string format, std::string array, const config::Source& source, size_t max_open);

  std::shared_ptr<const io::ArrayFile> get(const std::string& path) const;

 private:
  struct Entry {
    std::once_flag once;
    std::shared_ptr<const io::ArrayFile> file;
    std::list<std::string>::iterator use;
  };
  std::shared_ptr<Entry> entry_of(const std::string& path) const;

  std::string format_, array_;
  config::Source source_;
  size_t max_open_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, std::shared_ptr<Entry>> entries_;
  mutable std::list<std::string> uses_;  // the last used in front
};

/// One sample and the file it lies in.
struct ArraySample {
  std::shared_ptr<const io::ArrayFile> file;
  ArrayAxes axes;
  int64_t number = 0;  // along the samples' axis
  std::string path;    // "file", or "file#number"

  std::vector<int64_t> sides() const;
  int64_t channels() const;
};

/// Where arrays are and how they are read.
struct ArrayPlace {
  std::string format, array;
  AxesRule rule;
};

class ArraySamples {
 public:
  /// Opens the first file, and all of them where the axes have samples, to count.
  /// throws   DataError: files of different axes.
  ArraySamples(std::vector<std::string> paths, ArrayPlace place, const config::Source& source);

  int64_t size() const { return first_.back(); }
  /// The samples lie along an axis n.
  bool has_samples_axis() const { return has_samples_; }
  int64_t file_of(int64_t i) const;
  std::string path(int64_t i) const;
  ArraySample at(int64_t i) const;

 private:
  std::vector<std::string> paths_;
  ArrayPlace place_;
  OpenArrays files_;
  bool has_samples_ = false;
  std::vector<int64_t> first_;  // first sample of each file, and their number
};

/// [sides..., channels]: bytes as they are (full scale 255), uint16 as floats of full scale 65535,
/// all else as floats of full scale 1. `channels` chooses and orders; empty = all.
/// Memory   the box and, where its values lie in another order or type, once more.
/// throws   DataError naming the file: values that are not finite, a channel that is not there, a
///          box of more than 2^32 values.
Pixels read_pixels(const ArraySample& sample, const Box& box, const std::vector<int64_t>& channels);

/// [sides..., channels] as floats of full scale 1, whatever their type; NaN may be among them.
Pixels read_values(const ArraySample& sample, const Box& box);

/// Whole numbers of the one channel. throws   DataError: other numbers, more channels.
Mask read_integers(const ArraySample& sample, const Box& box);

/// A whole array, row-major, as doubles; of at most 2^28 values.
std::vector<double> read_numbers(const io::ArrayFile& file, const std::string& path);

}  // namespace vitrail::data

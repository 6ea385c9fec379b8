#include "vitrail/data/inspect_values.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <mutex>

#include "vitrail/core/error.h"
#include "vitrail/core/thread_pool.h"
#include "vitrail/data/statistics_histogram.h"
#include "vitrail/data/value_range.h"

namespace vitrail::data {
namespace {

constexpr int64_t kBoxValues = int64_t{1} << 23;

/// Of the values of one channel.
struct ChannelSums {
  Moments moments;
  Histogram histogram;
  int64_t not_finite = 0;

  void merge(const ChannelSums& other) {
    moments.merge(other.moments);
    histogram.merge(other.histogram);
    not_finite += other.not_finite;
  }
};

using Channels = std::vector<ChannelSums>;

ChannelSums sums_of(const std::vector<uint8_t>& values, size_t c, size_t channels) {
  std::array<int64_t, 256> counts{};
  for (size_t i = c; i < values.size(); i += channels) ++counts[values[i]];
  ChannelSums sums;
  for (size_t v = 0; v < counts.size(); ++v) {
    if (counts[v] == 0) continue;
    sums.moments.add(static_cast<double>(v), counts[v]);
    sums.histogram.add(static_cast<float>(v), counts[v]);
  }
  return sums;
}

ChannelSums sums_of(const std::vector<float>& values, size_t c, size_t channels) {
  ChannelSums sums;
  std::vector<float> finite;
  finite.reserve(values.size() / channels);
  for (size_t i = c; i < values.size(); i += channels) {
    if (!std::isfinite(values[i])) {
      ++sums.not_finite;
      continue;
    }
    finite.push_back(values[i]);
    sums.histogram.add(values[i]);
  }
  sums.moments = moments_of(finite);
  return sums;
}

/// Adds the values of `raw` as the range makes them.
void add_normalized(const ChannelSums& raw, const ValueRange& range, size_t c, ChannelSums& sums) {
  Moments moments;
  for (const Histogram::Bin& bin : raw.histogram.bins()) {
    const float value = range.apply(bin.middle(), c);
    sums.histogram.add(value, bin.count);
    if (range.clips) moments.add(value, bin.count);
  }
  if (!range.clips)
    moments =
        raw.moments.scaled(static_cast<double>(range.low[c]), static_cast<double>(range.span[c]));
  sums.moments.merge(moments);
}

/// One part of a file that is read at once.
struct Part {
  int64_t file = 0, number = 0;  // in the list of files that are read; in the file
};

/// A file of which parts are being read.
struct OpenFile {
  std::vector<Box> boxes;      // empty = read as a whole
  std::vector<Channels> read;  // by number of the part
  std::map<int64_t, int64_t> mask_pixels;
  int64_t left = 1;  // parts that are not read yet
  int64_t pixels = 0;
  float full_scale = 0;
  std::string error;
};

/// Histograms that one thread at a time adds to; there are several, so that threads need not wait.
struct Shelf {
  std::mutex mutex;
  std::map<float, std::vector<Histogram>> raw;  // by full scale
  std::vector<Histogram> normalized;
};

std::vector<ChannelStatistics> statistics_of(const Channels& channels) {
  std::vector<ChannelStatistics> result;
  for (const ChannelSums& sums : channels) {
    const Moments& moments = sums.moments;
    if (moments.count == 0) return {};
    result.push_back({moments.mean, moments.std(), moments.min, moments.max,
                      sums.histogram.percentiles(stored_percents())});
  }
  return result;
}

class ValueReader {
 public:
  ValueReader(const Reader& reader, const config::Source& source, const config::Model& model,
              int64_t workers, int64_t max_samples)
      : reader_(reader),
        rule_(source),
        source_(source),
        channels_(channels_of(source, model)),
        threads_(static_cast<int>(std::clamp<int64_t>(workers, 1, 256))),
        files_(static_cast<size_t>(std::min(reader.size(), max_samples))),
        moments_(files_.size()),
        // A histogram takes up to 3 MiB.
        shelves_(static_cast<size_t>(
            std::clamp<int64_t>(64 / std::max<int64_t>(channels_, 1), 1, std::min(threads_, 8)))) {
    variables_ = source.variables.empty() ? model.variables : source.variables;
    if (static_cast<int64_t>(variables_.size()) != channels_) variables_.clear();
  }

  ValuesReport run(const Progress& progress) {
    const std::vector<Part> parts = plan();
    const auto n = static_cast<int64_t>(parts.size());
    const int64_t grain = reader_.is_costly() || reader_.reads_boxes() ? 1 : 16;
    core::parallel_for(threads_, 0, n, grain, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) read(parts[static_cast<size_t>(i)]);
      const std::lock_guard lock(mutex_);
      done_ += last - first;
      if (progress) progress(done_, n);
    });
    return finish();
  }

 private:
  /// Element i of the files that are read, in the reader's list.
  int64_t item_of(int64_t i) const {
    return i * reader_.size() / static_cast<int64_t>(files_.size());
  }
  std::string path_of(int64_t i) const { return reader_.describe(item_of(i)).path; }

  std::vector<Part> plan() {
    if (reader_.reads_boxes())
      core::parallel_for(threads_, 0, static_cast<int64_t>(files_.size()), 16,
                         [&](int64_t first, int64_t last) {
                           for (int64_t i = first; i < last; ++i) plan_boxes(i);
                         });
    std::vector<Part> parts;
    for (size_t i = 0; i < files_.size(); ++i) {
      files_[i].left = std::max<int64_t>(1, static_cast<int64_t>(files_[i].boxes.size()));
      files_[i].read.resize(static_cast<size_t>(files_[i].left));
      for (int64_t k = 0; k < files_[i].left; ++k) parts.push_back({static_cast<int64_t>(i), k});
    }
    return parts;
  }

  void plan_boxes(int64_t i) {
    try {
      const Shape shape = reader_.shape(item_of(i));
      const int64_t values = kBoxValues / std::max<int64_t>(shape.channels, 1);
      if (count(shape.sides) > values)
        files_[static_cast<size_t>(i)].boxes =
            boxes_of(shape.sides, reader_.chunk_sides(item_of(i)), values);
    } catch (const core::DataError&) {  // comes again when the file is read
    }
  }

  void read(const Part& part) {
    OpenFile& file = files_[static_cast<size_t>(part.file)];
    Channels sums;
    std::map<int64_t, int64_t> mask_pixels;
    float full_scale = 0;
    int64_t places = 0;
    std::string error;
    try {
      const Pixels pixels = to_channels(decode(part, file), channels_, path_of(part.file));
      full_scale = pixels.full_scale;
      places = count(pixels.sides);
      for (int64_t c = 0; c < channels_; ++c)
        sums.push_back(with_values(pixels, [&](const auto& values) {
          return sums_of(values, static_cast<size_t>(c), static_cast<size_t>(channels_));
        }));
      if (reader_.has_masks())
        for (const int32_t label : decode_mask(part, file).classes) ++mask_pixels[label];
    } catch (const core::DataError& exception) {
      error = exception.what();
    }
    {
      const std::lock_guard lock(mutex_);
      file.read[static_cast<size_t>(part.number)] = std::move(sums);
      for (const auto& [label, n] : mask_pixels) file.mask_pixels[label] += n;
      file.pixels += places;
      file.full_scale = std::max(file.full_scale, full_scale);
      if (file.error.empty()) file.error = error;
      if (--file.left > 0) return;
    }
    close(part.file, file);
  }

  Pixels decode(const Part& part, const OpenFile& file) const {
    const int64_t item = item_of(part.file);
    return file.boxes.empty()
               ? reader_.decode(item)
               : reader_.decode_box(item, file.boxes[static_cast<size_t>(part.number)]);
  }
  Mask decode_mask(const Part& part, const OpenFile& file) const {
    const int64_t item = item_of(part.file);
    return file.boxes.empty()
               ? reader_.decode_mask(item)
               : reader_.decode_mask_box(item, file.boxes[static_cast<size_t>(part.number)]);
  }

  /// All parts of the file are read: its moments are kept in the order of the files, its histograms
  /// go where there is room.
  void close(int64_t i, OpenFile& file) {
    if (!file.error.empty()) {
      file.read.clear();
      return;
    }
    Channels whole = std::move(file.read[0]);
    for (size_t k = 1; k < file.read.size(); ++k)
      for (size_t c = 0; c < whole.size(); ++c) whole[c].merge(file.read[k][c]);
    file.read.clear();
    Channels normalized(rule_.needs_whole_file() ? whole.size() : 0);
    for (size_t c = 0; c < normalized.size(); ++c)
      add_normalized(whole[c], range_of(whole), c, normalized[c]);
    FileMoments& kept = moments_[static_cast<size_t>(i)];
    for (const ChannelSums& sums : whole) {
      kept.raw.push_back(sums.moments);
      kept.not_finite += sums.not_finite;
    }
    for (const ChannelSums& sums : normalized) kept.normalized.push_back(sums.moments);
    put_on_a_shelf(static_cast<size_t>(i), file.full_scale, whole, normalized);
  }

  void put_on_a_shelf(size_t start, float full_scale, const Channels& whole,
                      const Channels& normalized) {
    Shelf* shelf = nullptr;
    for (size_t k = 0; k < shelves_.size() && shelf == nullptr; ++k) {
      Shelf& candidate = shelves_[(start + k) % shelves_.size()];
      if (candidate.mutex.try_lock()) shelf = &candidate;
    }
    if (shelf == nullptr) {
      shelf = &shelves_[start % shelves_.size()];
      shelf->mutex.lock();
    }
    const std::lock_guard lock(shelf->mutex, std::adopt_lock);
    std::vector<Histogram>& raw = shelf->raw[full_scale];
    raw.resize(whole.size());
    for (size_t c = 0; c < whole.size(); ++c) raw[c].merge(whole[c].histogram);
    shelf->normalized.resize(normalized.size());
    for (size_t c = 0; c < normalized.size(); ++c)
      shelf->normalized[c].merge(normalized[c].histogram);
  }

  /// Range of a file whose own values decide it, by its histogram.
  ValueRange range_of(const Channels& file) const {
    ValueRange range;
    range.clips = source_.normalize == "percentile";
    for (const ChannelSums& sums : file) {
      double low = sums.moments.min, high = sums.moments.max;
      if (range.clips && sums.moments.count > 0) {
        const auto [from, to] = percentile_range(source_);
        const std::array<double, 2> percents{from, to};
        const std::vector<double> ends = sums.histogram.percentiles(percents);
        low = ends[0];
        high = ends[1];
      }
      if (sums.moments.count == 0) low = high = 0;
      range.low.push_back(static_cast<float>(low));
      range.span.push_back(high > low ? static_cast<float>(high) - static_cast<float>(low) : 1.0f);
    }
    return range;
  }

  /// Range of all files of one full scale, where the file does not matter.
  ValueRange range_of(float full_scale) const {
    Pixels pixels;
    pixels.channels = channels_;
    pixels.full_scale = full_scale;
    return rule_.of(pixels);
  }

  ValuesReport finish() {
    ValuesReport report;
    SourceStatistics& statistics = report.statistics;
    const auto n = static_cast<size_t>(channels_);
    Channels raw(n), normalized(n);
    for (size_t i = 0; i < files_.size(); ++i) {
      const OpenFile& file = files_[i];
      if (!file.error.empty()) {
        report.broken[item_of(static_cast<int64_t>(i))] = file.error;
        continue;
      }
      ++statistics.files;
      for (const auto& [label, pixels] : file.mask_pixels) report.mask_pixels[label] += pixels;
      statistics.pixels += file.pixels;
      statistics.not_finite += moments_[i].not_finite;
      for (size_t c = 0; c < n; ++c) raw[c].moments.merge(moments_[i].raw[c]);
      for (size_t c = 0; c < moments_[i].normalized.size(); ++c)
        normalized[c].moments.merge(moments_[i].normalized[c]);
    }
    add_histograms(raw, normalized, statistics);
    statistics.raw = statistics_of(raw);
    statistics.normalized = statistics_of(normalized);
    for (const ChannelSums& sums : raw)
      statistics.percentile_error = std::max(statistics.percentile_error, sums.histogram.error());
    statistics.variables = variables_;
    statistics.normalize = source_.normalize.value;
    return report;
  }

  void add_histograms(Channels& raw, Channels& normalized, SourceStatistics& statistics) {
    std::map<float, Channels> by_scale;
    for (const Shelf& shelf : shelves_) {
      for (const auto& [scale, histograms] : shelf.raw) {
        Channels& sums = by_scale.try_emplace(scale, raw.size()).first->second;
        for (size_t c = 0; c < raw.size(); ++c) sums[c].histogram.merge(histograms[c]);
      }
      for (size_t c = 0; c < shelf.normalized.size(); ++c)
        normalized[c].histogram.merge(shelf.normalized[c]);
    }
    statistics.full_scale = by_scale.size() == 1 ? static_cast<double>(by_scale.begin()->first) : 0;
    if (!rule_.needs_whole_file()) moments_by_scale(by_scale);
    for (const auto& [scale, sums] : by_scale)
      for (size_t c = 0; c < raw.size(); ++c) {
        raw[c].histogram.merge(sums[c].histogram);
        if (!rule_.needs_whole_file()) add_normalized(sums[c], range_of(scale), c, normalized[c]);
      }
  }

  /// The moments of the files of each full scale, in the order of the files.
  void moments_by_scale(std::map<float, Channels>& by_scale) const {
    for (size_t i = 0; i < files_.size(); ++i) {
      if (!files_[i].error.empty()) continue;
      Channels& sums = by_scale.at(files_[i].full_scale);
      for (size_t c = 0; c < sums.size(); ++c) sums[c].moments.merge(moments_[i].raw[c]);
    }
  }

  /// One entry a channel.
  struct FileMoments {
    std::vector<Moments> raw, normalized;
    int64_t not_finite = 0;
  };

  const Reader& reader_;
  const RangeRule rule_;
  const config::Source& source_;
  const int64_t channels_;
  const int threads_;
  std::vector<std::string> variables_;
  std::vector<OpenFile> files_;
  std::vector<FileMoments> moments_;
  std::vector<Shelf> shelves_;
  std::mutex mutex_;
  int64_t done_ = 0;
};

}  // namespace

std::vector<Box> boxes_of(const std::vector<int64_t>& sides, const std::vector<int64_t>& chunk,
                          int64_t values) {
  std::vector<int64_t> box(sides.size(), 1);
  for (size_t axis = 0; axis < sides.size() && axis < chunk.size(); ++axis)
    box[axis] = std::clamp<int64_t>(chunk[axis], 1, std::max<int64_t>(sides[axis], 1));
  // Longer along the last axis first: neighbours in the file.
  for (size_t axis = sides.size(); axis-- > 0;)
    while (box[axis] < sides[axis] && count(box) <= values / 2)
      box[axis] = std::min(2 * box[axis], sides[axis]);
  std::vector<Box> boxes;
  Box next{std::vector<int64_t>(sides.size(), 0), box};
  while (true) {
    for (size_t axis = 0; axis < sides.size(); ++axis)
      next.sides[axis] = std::min(box[axis], sides[axis] - next.origin[axis]);
    boxes.push_back(next);
    size_t axis = sides.size();
    while (axis > 0 && next.origin[axis - 1] + box[axis - 1] >= sides[axis - 1])
      next.origin[--axis] = 0;
    if (axis == 0) return boxes;
    next.origin[axis - 1] += box[axis - 1];
  }
}

ValuesReport read_values(const Reader& reader, const config::Source& source,
                         const config::Model& model, int64_t workers, int64_t max_samples,
                         const Progress& progress) {
  return ValueReader(reader, source, model, workers, max_samples).run(progress);
}

}  // namespace vitrail::data

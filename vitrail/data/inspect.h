#pragma once
/// What a source holds, for `vitrail data inspect`.

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/inspect_values.h"
#include "vitrail/data/pixels.h"
#include "vitrail/data/reader.h"
#include "vitrail/data/statistics.h"

namespace vitrail::data {

struct SourceReport {
  std::string name, reader, root;
  int64_t files = 0;    // images or volumes
  int64_t samples = 0;  // files, or the windows of them in an epoch of training
  std::vector<std::string> class_names;
  std::map<int64_t, int64_t> labels;       // label -> files; -1 = none
  std::map<int64_t, int64_t> mask_pixels;  // class -> pixels of the decoded masks
  std::map<int64_t, int64_t> boxes;        // class -> boxes of all files
  int64_t max_boxes = 0;                   // of any file; 0 = a source without boxes
  std::vector<ChannelStatistics> targets;  // of the numbers to be learnt, without percentiles
  int64_t headers = 0;                     // files whose shape was read
  std::map<std::string, int64_t> shapes;   // "32 x 32, 3 channels" -> files
  SourceStatistics statistics;             // of the files that were decoded
  std::vector<SampleInfo> first;
  std::vector<std::string> broken;  // messages, in the order of the samples
};

/// Reads labels and boxes of all files, headers of up to 1000 and pixels (and masks) of up to
/// `max_samples`, both spread evenly over the list. Broken files are reported, not thrown.
/// throws as open_reader.
SourceReport inspect(const config::Source& source, const config::Model& model, int64_t workers,
                     int64_t max_samples, const Progress& progress = {});

/// For people; mean and std are printed in the form a recipe takes.
std::string to_text(const SourceReport& report);

/// For programs: {"data": [...], "eval": [...]}, by section of the recipe.
std::string to_json(const std::vector<std::pair<std::string, SourceReport>>& reports);

/// Up to 64 samples per source, spread evenly, in a grid of 64-pixel cells with a row of sources
/// one after another; of a volume the middle slice. With masks up to 32, each followed by itself
/// with the classes above 0 tinted; with boxes likewise, outlined in the colours of their classes.
/// Samples are cut as training cuts them, without augmentation. Broken ones are left black. RGB.
Pixels contact_sheet(const std::vector<config::Source>& sources, const config::Model& model);
/// The same as a PNG file.
void write_contact_sheet(const std::vector<config::Source>& sources, const config::Model& model,
                         const std::string& path);

}  // namespace vitrail::data

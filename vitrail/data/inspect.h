#pragma once
/// What a source holds, for `vitrail data inspect`.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/pixels.h"
#include "vitrail/data/reader.h"

namespace vitrail::data {

struct SourceReport {
  std::string name, reader, root;
  int64_t samples = 0;
  std::vector<std::string> class_names;
  std::map<int64_t, int64_t> labels;      // label -> samples; -1 = none
  int64_t headers = 0;                    // files whose shape was read
  std::map<std::string, int64_t> shapes;  // "32 x 32, 3 channels" -> files
  int64_t decoded = 0;                    // samples behind mean and std
  std::vector<double> mean, std;          // per model channel in [0, 1]; every pixel counts once
  std::vector<SampleInfo> first;
  std::vector<std::string> broken;  // messages, in the order of the samples
};

/// Reads headers of up to 1000 and pixels of up to `max_samples` samples, both spread evenly over
/// the list. Broken files are reported, not thrown. throws as open_reader.
SourceReport inspect(const config::Source& source, const config::Model& model, int64_t workers,
                     int64_t max_samples);

/// For people; mean and std are printed in the form a recipe takes.
std::string to_text(const SourceReport& report);

/// Up to 64 samples per source, spread evenly, in a grid of 64-pixel cells with a row of sources
/// one after another; of a volume the middle slice. Broken samples are left black. RGB.
Pixels contact_sheet(const std::vector<config::Source>& sources, const config::Model& model);
/// The same as a PNG file.
void write_contact_sheet(const std::vector<config::Source>& sources, const config::Model& model,
                         const std::string& path);

}  // namespace vitrail::data

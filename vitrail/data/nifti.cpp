#include "vitrail/io/nifti.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <system_error>

#include "vitrail/core/error.h"
#include "vitrail/data/class_folders.h"
#include "vitrail/data/files.h"
#include "vitrail/data/label_checks.h"
#include "vitrail/data/label_files.h"
#include "vitrail/data/nifti_files.h"
#include "vitrail/data/readers.h"

namespace vitrail::data {
namespace {

/// A classifier's volumes lie a class a folder.
bool has_classes(const config::Source& source, const config::Model& model) {
  std::error_code unknown;
  return (model.kind == "vit" || classifies(model)) && std::filesystem::is_directory(source.root, unknown) &&
         !list_folders(source.root).empty();
}

ClassFolders list_classes(const config::Source& source) {
  return list_class_folders(source.root, io::has_nifti_extension, "nifti", kNiftiKinds);
}

std::vector<std::string> list_class_names(const config::Source& source,
                                          const config::Model& model) {
  return has_classes(source, model) ? list_classes(source).names : std::vector<std::string>{};
}

std::vector<SampleInfo> list_samples(const config::Source& source, const config::Model& model) {
  if (has_classes(source, model)) return list_classes(source).samples;
  std::vector<SampleInfo> samples;
  for (std::string& path : list_files(source.root, io::has_nifti_extension, kNiftiKinds))
    samples.push_back({std::move(path), -1, {}});
  return samples;
}

class NiftiReader : public LabelledReader {
 public:
  NiftiReader(const config::Source& source, const config::Model& model)
      : LabelledReader(source, model),
        names_(list_class_names(source, model)),
        volumes_(list_samples(source, model)),
        drops_depth_(drops_depth(source, model)),
        reads_boxes_(std::all_of(volumes_.begin(), volumes_.end(), [](const SampleInfo& volume) {
          return io::is_plain_nifti(volume.path);
        })) {
    if (!source.label_maps.empty())
      set_labels(open_nifti_maps(source, model), source.label_maps.front(), source.root);
    else if (!source.labels.empty())
      set_labels(open_label_files(source, model, "nifti", false), source.labels, source.root);
  }

  int64_t size() const override { return static_cast<int64_t>(volumes_.size()); }
  SampleInfo describe(int64_t i) const override { return volumes_.at(static_cast<size_t>(i)); }
  std::vector<std::string> class_names() const override { return names_; }
  bool is_costly() const override { return true; }

  Shape shape(int64_t i) const override {
    const io::NiftiHeader header = io::read_nifti_header(volume(i));
    const auto [x, y, z] = header.geometry.voxel_size;
    return {nifti_sides(header, drops_depth_), header.channels,
            fmt::format("voxels {:.4g} x {:.4g} x {:.4g} (x, y, z), orientation {}", x, y, z,
                        header.geometry.orientation(header.sides))};
  }

  Pixels decode(int64_t i) const override {
    const io::NiftiHeader header = io::read_nifti_header(volume(i));
    return decode_box(i, whole_box(nifti_sides(header, drops_depth_)));
  }

  /// Packed files would be unpacked for every box.
  bool reads_boxes() const override { return reads_boxes_; }

  Pixels decode_box(int64_t i, const Box& box) const override {
    Pixels pixels = read_nifti_pixels(volume(i), box);
    const auto bad = std::find_if(pixels.floats.begin(), pixels.floats.end(),
                                  [](float value) { return !std::isfinite(value); });
    VT_REQUIRE(DataError, bad == pixels.floats.end(),
               "[data] {}: values must be finite but value {} is {}", volume(i),
               bad - pixels.floats.begin(), *bad);
    return pixels;
  }

 private:
  const std::string& volume(int64_t i) const { return volumes_.at(static_cast<size_t>(i)).path; }

  std::vector<std::string> names_;
  std::vector<SampleInfo> volumes_;
  bool drops_depth_, reads_boxes_;
};

}  // namespace

std::unique_ptr<Reader> open_nifti(const config::Source& source, const config::Model& model) {
  VT_REQUIRE(ConfigError, source.labels.empty() || source.label_maps.empty(),
             "[data] source '{}': labels and label_maps exclude each other", source_name(source));
  const auto maps = static_cast<int64_t>(source.label_maps.size());
  VT_REQUIRE(
      ConfigError, maps == 0 || maps < model.num_classes,
      "[data] source '{}': {} label_maps are {} classes with class 0 but model.num_classes is "
      "{}",
      source_name(source), maps, maps + 1, model.num_classes);
  return std::make_unique<NiftiReader>(source, model);
}

}  // namespace vitrail::data

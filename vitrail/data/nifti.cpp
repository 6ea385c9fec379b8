#include "vitrail/io/nifti.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <system_error>

#include "vitrail/core/error.h"
#include "vitrail/data/class_folders.h"
#include "vitrail/data/files.h"
#include "vitrail/data/mask_classes.h"
#include "vitrail/data/readers.h"

namespace vitrail::data {
namespace {

constexpr const char* kKinds = ".nii or .nii.gz";

std::vector<std::string> list_volumes(const std::string& root) {
  return list_files(root, io::has_nifti_extension, kKinds);
}

/// A classifier's volumes lie a class a folder.
bool has_classes(const config::Source& source, const config::Model& model) {
  std::error_code unknown;
  return model.kind == "vit" && std::filesystem::is_directory(source.root, unknown) &&
         !list_folders(source.root).empty();
}

ClassFolders list_classes(const config::Source& source) {
  return list_class_folders(source.root, io::has_nifti_extension, "nifti", kKinds);
}

std::vector<std::string> list_class_names(const config::Source& source,
                                          const config::Model& model) {
  return has_classes(source, model) ? list_classes(source).names : std::vector<std::string>{};
}

std::vector<SampleInfo> list_samples(const config::Source& source, const config::Model& model) {
  if (has_classes(source, model)) return list_classes(source).samples;
  std::vector<SampleInfo> samples;
  for (std::string& path : list_volumes(source.root)) samples.push_back({std::move(path), -1});
  return samples;
}

/// [C, voxels] -> [voxels, C].
std::vector<float> channel_last(std::vector<float> values, int64_t channels) {
  if (channels == 1) return values;
  std::vector<float> result(values.size());
  const size_t n = static_cast<size_t>(channels), voxels = values.size() / n;
  for (size_t c = 0; c < n; ++c)
    for (size_t v = 0; v < voxels; ++v) result[v * n + c] = values[c * voxels + v];
  return result;
}

class NiftiReader : public Reader {
 public:
  NiftiReader(const config::Source& source, const config::Model& model)
      : Reader(channels_of(source, model)),
        names_(list_class_names(source, model)),
        volumes_(list_samples(source, model)),
        classes_(source, model),
        // Files of one slice are images to a model of images.
        drops_depth_(model.image_size.size() == 2 && !source.slices) {
    if (!source.labels.empty()) {
      labels_ = list_volumes(source.labels);
      check_mask_count(labels_.size(), source.labels, volumes_.size(), source.root);
    }
    for (const std::string& root : source.label_maps) {
      maps_.push_back(list_volumes(root));
      check_mask_count(maps_.back().size(), root, volumes_.size(), source.root);
    }
  }

  int64_t size() const override { return static_cast<int64_t>(volumes_.size()); }
  SampleInfo describe(int64_t i) const override { return volumes_.at(static_cast<size_t>(i)); }
  std::vector<std::string> class_names() const override { return names_; }
  bool has_masks() const override { return !labels_.empty() || !maps_.empty(); }
  bool is_costly() const override { return true; }

  Shape shape(int64_t i) const override {
    const io::NiftiHeader header = io::read_nifti_header(volume(i));
    const auto [x, y, z] = header.geometry.voxel_size;
    return {sides_of(header), header.channels,
            fmt::format("voxels {:.4g} x {:.4g} x {:.4g} (x, y, z), orientation {}", x, y, z,
                        header.geometry.orientation(header.sides))};
  }

  Pixels decode(int64_t i) const override {
    io::NiftiVolume file = io::read_nifti(volume(i));
    const auto bad = std::find_if(file.values.begin(), file.values.end(),
                                  [](float value) { return !std::isfinite(value); });
    VT_REQUIRE(DataError, bad == file.values.end(),
               "[data] {}: values must be finite but value {} is {}", volume(i),
               bad - file.values.begin(), *bad);
    Pixels pixels;
    pixels.sides = sides_of(file.header);
    pixels.channels = file.header.channels;
    pixels.floats = channel_last(std::move(file.values), file.header.channels);
    pixels.full_scale = 1.0f;
    return pixels;
  }

  Mask decode_mask(int64_t i) const override {
    return labels_.empty() ? mask_of_maps(i) : mask_of_labels(i);
  }

 private:
  const std::string& volume(int64_t i) const { return volumes_.at(static_cast<size_t>(i)).path; }

  std::vector<int64_t> sides_of(const io::NiftiHeader& header) const {
    std::vector<int64_t> sides = header.sides;
    if (drops_depth_ && sides[0] == 1) sides.erase(sides.begin());
    return sides;
  }

  /// A file of one channel with the image's sides.
  io::NiftiVolume read_label(const std::string& path, const std::vector<int64_t>& sides,
                             int64_t i) const {
    io::NiftiVolume file = io::read_nifti(path);
    check_mask_sides(sides_of(file.header), path, sides, volume(i));
    VT_REQUIRE(DataError, file.header.channels == 1,
               "[data] {}: a mask must have one channel but has {}", path, file.header.channels);
    return file;
  }

  Mask mask_of_labels(int64_t i) const {
    const std::string& path = labels_[static_cast<size_t>(i)];
    const std::vector<int64_t> sides = shape(i).sides;
    return classes_.apply(read_label(path, sides, i).values, sides, path);
  }

  Mask mask_of_maps(int64_t i) const {
    const std::vector<int64_t> sides = shape(i).sides;
    const auto n = static_cast<size_t>(count(sides));
    Mask mask{sides, std::vector<int32_t>(n, 0)};
    std::vector<float> best(n, 0.0f);
    for (size_t k = 0; k < maps_.size(); ++k) {
      const io::NiftiVolume map = read_label(maps_[k][static_cast<size_t>(i)], sides, i);
      for (size_t v = 0; v < n; ++v) {
        const float value = map.values[v];
        if (!(value >= 0.5f) || value <= best[v]) continue;
        best[v] = value;
        mask.classes[v] = static_cast<int32_t>(k) + 1;
      }
    }
    return mask;
  }

  std::vector<std::string> names_;
  std::vector<SampleInfo> volumes_;
  std::vector<std::string> labels_;
  std::vector<std::vector<std::string>> maps_;
  MaskClasses classes_;
  bool drops_depth_;
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

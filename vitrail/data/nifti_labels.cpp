#include <algorithm>
#include <utility>

#include "vitrail/core/error.h"
#include "vitrail/data/files.h"
#include "vitrail/data/gather.h"
#include "vitrail/data/mask_classes.h"
#include "vitrail/data/nifti_files.h"

namespace vitrail::data {
namespace {

/// [C, voxels] -> [voxels, C].
std::vector<float> channel_last(std::vector<float> values, int64_t channels) {
  if (channels == 1) return values;
  std::vector<float> result(values.size());
  const size_t n = static_cast<size_t>(channels), voxels = values.size() / n;
  for (size_t c = 0; c < n; ++c)
    for (size_t v = 0; v < voxels; ++v) result[v * n + c] = values[c * voxels + v];
  return result;
}

std::vector<std::string> list_volumes(const std::string& root) {
  return list_files(root, io::has_nifti_extension, kNiftiKinds);
}

/// The one channel of a mask.
std::vector<float> read_channel(const std::string& path, const Box& box) {
  Pixels pixels = read_nifti_pixels(path, box);
  VT_REQUIRE(DataError, pixels.channels == 1, "[data] {}: a mask must have one channel but has {}",
             path, pixels.channels);
  return std::move(pixels.floats);
}

class NiftiLabels : public LabelFiles {
 public:
  NiftiLabels(const config::Source& source, const config::Model& model)
      : paths_(list_volumes(source.labels)),
        classes_(source, model),
        drops_depth_(drops_depth(source, model)) {}

  int64_t size() const override { return static_cast<int64_t>(paths_.size()); }
  std::string path(int64_t i) const override { return paths_.at(static_cast<size_t>(i)); }
  std::vector<int64_t> sides(int64_t i) const override {
    return nifti_sides(io::read_nifti_header(path(i)), drops_depth_);
  }
  Mask mask(int64_t i, const Box& box) const override {
    return classes_.apply(read_channel(path(i), box), box.sides, path(i));
  }
  Pixels values(int64_t i, const Box& box) const override {
    return read_nifti_pixels(path(i), box);
  }

 private:
  std::vector<std::string> paths_;
  MaskClasses classes_;
  bool drops_depth_;
};

class NiftiMaps : public LabelFiles {
 public:
  NiftiMaps(const config::Source& source, const config::Model& model)
      : drops_depth_(drops_depth(source, model)) {
    for (const std::string& root : source.label_maps) {
      maps_.push_back(list_volumes(root));
      check_mask_count(maps_.back().size(), root, maps_.front().size(), source.label_maps.front());
    }
  }

  int64_t size() const override { return static_cast<int64_t>(maps_.front().size()); }
  std::string path(int64_t i) const override { return maps_.front().at(static_cast<size_t>(i)); }
  std::vector<int64_t> sides(int64_t i) const override { return sides_of(path(i)); }

  Mask mask(int64_t i, const Box& box) const override {
    const auto n = static_cast<size_t>(count(box.sides));
    const std::vector<int64_t> sides = this->sides(i);
    Mask mask{box.sides, std::vector<int32_t>(n, 0)};
    std::vector<float> best(n, 0.0f);
    for (size_t k = 0; k < maps_.size(); ++k) {
      const std::string& map = maps_[k].at(static_cast<size_t>(i));
      check_mask_sides(sides_of(map), map, sides, path(i));
      const std::vector<float> values = read_channel(map, box);
      for (size_t v = 0; v < n; ++v) {
        if (!(values[v] >= 0.5f) || values[v] <= best[v]) continue;
        best[v] = values[v];
        mask.classes[v] = static_cast<int32_t>(k) + 1;
      }
    }
    return mask;
  }

  Pixels values(int64_t i, const Box&) const override {
    core::fail<core::DataError>(
        "[data] {}: probability maps are classes; give values to be learnt as labels", path(i));
  }

 private:
  std::vector<int64_t> sides_of(const std::string& path) const {
    return nifti_sides(io::read_nifti_header(path), drops_depth_);
  }

  std::vector<std::vector<std::string>> maps_;
  bool drops_depth_;
};

}  // namespace

bool drops_depth(const config::Source& source, const config::Model& model) {
  return model.image_size.size() == 2 && !source.slices;
}

std::vector<int64_t> nifti_sides(const io::NiftiHeader& header, bool drops_depth) {
  std::vector<int64_t> sides = header.sides;
  if (drops_depth && sides[0] == 1) sides.erase(sides.begin());
  return sides;
}

Pixels read_nifti_pixels(const std::string& path, const Box& box) {
  std::vector<int64_t> origin = box.origin, sides = box.sides;
  if (sides.size() == 2) {
    origin.insert(origin.begin(), 0);
    sides.insert(sides.begin(), 1);
  }
  io::NiftiVolume file = io::read_nifti_box(path, origin, sides);
  Pixels pixels;
  pixels.sides = box.sides;
  pixels.channels = file.header.channels;
  pixels.floats = channel_last(std::move(file.values), file.header.channels);
  pixels.full_scale = 1.0f;
  return pixels;
}

std::unique_ptr<LabelFiles> open_nifti_labels(const config::Source& source,
                                              const config::Model& model) {
  return std::make_unique<NiftiLabels>(source, model);
}

std::unique_ptr<LabelFiles> open_nifti_maps(const config::Source& source,
                                            const config::Model& model) {
  return std::make_unique<NiftiMaps>(source, model);
}

}  // namespace vitrail::data

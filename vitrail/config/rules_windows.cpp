// Rules of region, slices, tile, overlap and random_crop: which parts of files are samples.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/config/limits.h"
#include "vitrail/config/rules.h"

namespace vitrail::config {

namespace {

template <class T>
std::string listed(const std::vector<T>& values) {
  return fmt::format("[{}]", fmt::join(values, ", "));
}

void check_slices(const Source& source, const std::string& key, const Model& model,
                  RuleBook& rules) {
  if (!source.slices || !rules.within(key, *source.slices, 0, 2)) return;
  if (!reads_volumes(source))
    rules.add({key, key.substr(0, key.rfind('.')) + ".reader"},
              fmt::format("{} needs the reader image_stack, nifti, npy, raw, tiff, zarr or n5 but "
                          "it is {}",
                          key, source.reader.value));
  else if (model.image_size.size() != 2)
    rules.add({key, "model.image_size"},
              fmt::format("{} needs model.image_size [H, W] but it has {} sides", key,
                          model.image_size.size()));
}

void check_region(const Source& source, const std::string& key, const Model& model,
                  RuleBook& rules) {
  const std::vector<double>& region = source.region;
  if (region.empty()) return;
  const size_t axes = source.slices ? 3 : model.image_size.size();
  bool good = region.size() == 2 * axes;
  for (size_t i = 0; good && i < region.size(); i += 2)
    good = region[i] >= 0 && region[i] < region[i + 1] && region[i + 1] <= 1;
  if (!good)
    rules.add(
        {key},
        fmt::format("{} must be start and end of {} axes, {} numbers, with 0 <= start < end <= "
                    "1 but got {}",
                    key, axes, 2 * axes, listed(region)),
        {"model.image_size", key.substr(0, key.rfind('.')) + ".slices"});
}

/// Windows of other sides than model.image_size are resized to it.
void check_sides(const std::vector<int64_t>& sides, const std::string& key, const Model& model,
                 RuleBook& rules) {
  if (sides.empty()) return;
  if (sides.size() != model.image_size.size()) {
    rules.add({key, "model.image_size"},
              fmt::format("{} must have as many sides as model.image_size {} but got {}", key,
                          listed(model.image_size), listed(sides)));
    return;
  }
  for (size_t axis = 0; axis < sides.size(); ++axis)
    rules.within(fmt::format("{}[{}]", key, axis), sides[axis], 1, kMaxSide);
}

void check_overlap(const Source& source, const std::string& path, RuleBook& rules) {
  const std::string key = path + ".overlap";
  if (source.overlap.empty()) return;
  if (source.overlap.size() != source.tile.size()) {
    rules.add({key, path + ".tile"},
              fmt::format("{} must hold one ratio for each side of {}.tile but holds {} for {}",
                          key, path, source.overlap.size(), source.tile.size()));
    return;
  }
  for (size_t axis = 0; axis < source.overlap.size(); ++axis)
    if (source.overlap[axis] < 0 || source.overlap[axis] > kMaxOverlap)
      rules.add({fmt::format("{}[{}]", key, axis)},
                fmt::format("{}[{}] must be at least 0 and at most {} but got {}", key, axis,
                            kMaxOverlap, source.overlap[axis]));
}

void check_crop(const Source& source, const std::string& path, const Model& model,
                RuleBook& rules) {
  const std::string key = path + ".random_crop";
  check_sides(source.random_crop.size, key + ".size", model, rules);
  const int64_t per_epoch = source.random_crop.per_epoch;
  if (!rules.within(key + ".per_epoch", per_epoch, 0, kMaxCrops)) return;
  if (per_epoch == 0 && !source.random_crop.size.empty())
    rules.add({key + ".per_epoch", key + ".size"},
              fmt::format("{0}.per_epoch must be at least 1 with {0}.size but got 0", key));
  if (per_epoch > 0 && !source.tile.empty())
    rules.add(
        {key + ".per_epoch", path + ".tile"},
        fmt::format("{}.per_epoch and {}.tile exclude each other but got {} and {}; crops are "
                    "for training, tiles for evaluation",
                    key, path, per_epoch, listed(source.tile)));
}

}  // namespace

void check_windows(const Source& source, const std::string& path, const Model& model,
                   RuleBook& rules) {
  check_slices(source, path + ".slices", model, rules);
  check_region(source, path + ".region", model, rules);
  check_sides(source.tile, path + ".tile", model, rules);
  check_overlap(source, path, rules);
  check_crop(source, path, model, rules);
}

}  // namespace vitrail::config

#include <filesystem>
#include <functional>
#include <system_error>
#include <utility>

#include "vitrail/core/checked.h"
#include "vitrail/core/error.h"
#include "vitrail/data/files.h"
#include "vitrail/data/image_files.h"
#include "vitrail/data/label_files.h"
#include "vitrail/data/mask_classes.h"
#include "vitrail/data/readers.h"
#include "vitrail/data/split.h"
#include "vitrail/io/image.h"
#include "vitrail/io/tiff.h"

namespace vitrail::data {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSliceKinds = ".jpg, .jpeg, .png, .tif or .tiff";
constexpr int64_t kMaxBytes = int64_t{1} << 33;  // of one volume

bool is_slice(const std::string& path) {
  return io::has_image_extension(path) || io::has_tiff_extension(path);
}

/// The slices of one volume, in order.
struct Stack {
  std::string path;  // the folder or glob
  std::vector<std::string> slices;
};

/// Images in the folder itself are one volume; without any, each sub-folder that holds images is.
std::vector<Stack> stacks_of_folder(const std::string& folder) {
  std::vector<std::string> slices = list_folder(folder, is_slice);
  if (!slices.empty()) return {{folder, std::move(slices)}};
  std::vector<Stack> stacks;
  for (const std::string& path : list_folders(folder))
    if (slices = list_folder(path, is_slice); !slices.empty())
      stacks.push_back({path, std::move(slices)});
  return stacks;
}

/// `root`: a folder, or a glob of images (one volume) or of folders (one volume each).
std::vector<Stack> list_stacks(const std::string& root) {
  std::vector<Stack> stacks;
  Stack loose{root, {}};
  for (const std::string& path : expand_glob(root)) {
    std::error_code unknown;
    if (fs::is_directory(path, unknown))
      for (Stack& stack : stacks_of_folder(path)) stacks.push_back(std::move(stack));
    else if (is_slice(path))
      loose.slices.push_back(path);
  }
  if (!loose.slices.empty()) stacks.push_back(std::move(loose));
  VT_REQUIRE(
      DataError, !stacks.empty(),
      "[data] {}: holds no {} file; the reader image_stack wants a folder of slices, a folder "
      "of such folders, or a glob",
      root, kSliceKinds);
  return stacks;
}

void check_pairs(const std::vector<Stack>& masks, const config::Source& source,
                 const std::vector<Stack>& images) {
  check_mask_count(masks.size(), source.labels, images.size(), source.root);
  for (size_t i = 0; i < images.size(); ++i)
    check_mask_count(masks[i].slices.size(), masks[i].path, images[i].slices.size(),
                     images[i].path);
}

std::vector<int64_t> slice_sides(const Pixels& volume) {
  return {volume.sides.begin() + 1, volume.sides.end()};
}

void start_volume(Pixels& volume, const Pixels& slice, const Stack& stack) {
  const auto depth = static_cast<int64_t>(stack.slices.size());
  const int64_t pixels = core::checked_mul(count(slice.sides), slice.channels, "the pixels");
  const int64_t bytes = core::checked_mul(core::checked_mul(pixels, depth, "the pixels"),
                                          slice.is_float() ? 4 : 1, "the pixels of a volume");
  VT_REQUIRE(DataError, bytes <= kMaxBytes,
             "[data] {}: a volume must have at most {} bytes but would have {}", stack.path,
             kMaxBytes, bytes);
  volume.sides = {depth, slice.sides[0], slice.sides[1]};
  volume.channels = slice.channels;
  volume.full_scale = slice.full_scale;
  if (slice.is_float())
    volume.floats.reserve(static_cast<size_t>(pixels * depth));
  else
    volume.values.reserve(static_cast<size_t>(pixels * depth));
}

Pixels read_volume(const Stack& stack) {
  Pixels volume;
  for (const std::string& path : stack.slices) {
    const Pixels slice = read_image_pixels(path);
    if (volume.sides.empty()) start_volume(volume, slice, stack);
    VT_REQUIRE(
        DataError,
        slice.sides == slice_sides(volume) && slice.channels == volume.channels &&
            slice.full_scale == volume.full_scale,
        "[data] {}: slices of a volume must be equal but got {} x {} channel(s) of full scale {}, "
        "and {} x {} channel(s) of {} in {}",
        path, data::describe(slice.sides), slice.channels, slice.full_scale,
        data::describe(slice_sides(volume)), volume.channels, volume.full_scale,
        stack.slices.front());
    volume.values.insert(volume.values.end(), slice.values.begin(), slice.values.end());
    volume.floats.insert(volume.floats.end(), slice.floats.begin(), slice.floats.end());
  }
  return volume;
}

Shape stack_shape(const Stack& stack) {
  Shape shape = image_file_shape(stack.slices.front());
  shape.sides.insert(shape.sides.begin(), static_cast<int64_t>(stack.slices.size()));
  return shape;
}

void take_slices(const config::Source& source, std::vector<Stack>& stacks) {
  for (Stack& stack : stacks) {
    const SplitRange range =
        split_range(source, static_cast<int64_t>(stack.slices.size()), stack.path);
    stack.slices = std::vector<std::string>(stack.slices.begin() + range.first,
                                            stack.slices.begin() + range.last);
  }
}

/// Volumes of labels in the same form as the images.
class StackLabels : public LabelFiles {
 public:
  StackLabels(const config::Source& source, const config::Model& model, std::vector<Stack> stacks)
      : stacks_(std::move(stacks)), classes_(source, model) {}

  int64_t size() const override { return static_cast<int64_t>(stacks_.size()); }
  std::string path(int64_t i) const override { return stack(i).path; }
  std::vector<int64_t> sides(int64_t i) const override { return stack_shape(stack(i)).sides; }

  Mask mask(int64_t i, const Box& box) const override {
    const std::vector<int64_t> whole = sides(i);
    const std::vector<int64_t> slice_sides(whole.begin() + 1, whole.end());
    const Box slice_box{{box.origin.begin() + 1, box.origin.end()},
                        {box.sides.begin() + 1, box.sides.end()}};
    Mask volume{box.sides, {}};
    for (int64_t z = box.origin[0]; z < box.origin[0] + box.sides[0]; ++z) {
      const std::string& path = stack(i).slices[static_cast<size_t>(z)];
      Mask slice = classes_.apply(read_image_mask(path), path);
      check_mask_sides(slice.sides, path, slice_sides, stack(i).slices.front());
      slice = take_box(std::move(slice), slice_box);
      volume.classes.insert(volume.classes.end(), slice.classes.begin(), slice.classes.end());
    }
    return volume;
  }

  Pixels values(int64_t i, const Box& box) const override {
    Pixels volume = read_volume(stack(i));
    if (!volume.is_float()) volume.floats.assign(volume.values.begin(), volume.values.end());
    volume.values.clear();
    volume.full_scale = 1.0f;
    return take_box(std::move(volume), box);
  }

 private:
  const Stack& stack(int64_t i) const { return stacks_.at(static_cast<size_t>(i)); }

  std::vector<Stack> stacks_;
  MaskClasses classes_;
};

class ImageStack : public LabelledReader {
 public:
  ImageStack(const config::Source& source, const config::Model& model)
      : LabelledReader(source, model), images_(list_stacks(source.root)) {
    std::vector<Stack> labels;
    const bool are_stacks = label_format(source, "images") == "images";
    if (!source.labels.empty() && are_stacks) {
      labels = list_stacks(source.labels);
      check_pairs(labels, source, images_);
      take_slices(source, labels);
    }
    take_slices(source, images_);
    if (source.labels.empty()) return;
    VT_REQUIRE(ConfigError, are_stacks || source.split.empty(),
               "[data] source '{}': split takes slices out of stacks, which labels of {} do not "
               "have; use region instead",
               source_name(source), source.label_reader.value);
    set_labels(are_stacks ? std::make_unique<StackLabels>(source, model, std::move(labels))
                          : open_label_files(source, model, "images", false),
               source.labels, source.root);
  }

  int64_t size() const override { return static_cast<int64_t>(images_.size()); }
  SampleInfo describe(int64_t i) const override { return {image(i).path, -1, {}}; }
  bool is_costly() const override { return true; }
  Shape shape(int64_t i) const override { return stack_shape(image(i)); }
  Pixels decode(int64_t i) const override { return read_volume(image(i)); }

 private:
  const Stack& image(int64_t i) const { return images_.at(static_cast<size_t>(i)); }

  std::vector<Stack> images_;
};

}  // namespace

std::unique_ptr<Reader> open_image_stack(const config::Source& source, const config::Model& model) {
  VT_REQUIRE(ConfigError, model.image_size.size() == 3 || source.slices.has_value(),
             "[data] source '{}': the reader image_stack reads volumes of 3 sides but "
             "model.image_size has {}; set slices, or use the reader images",
             source_name(source), model.image_size.size());
  return std::make_unique<ImageStack>(source, model);
}

}  // namespace vitrail::data

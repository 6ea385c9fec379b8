#include <filesystem>
#include <functional>
#include <system_error>

#include "vitrail/core/checked.h"
#include "vitrail/core/error.h"
#include "vitrail/data/files.h"
#include "vitrail/data/image_files.h"
#include "vitrail/data/mask_classes.h"
#include "vitrail/data/readers.h"
#include "vitrail/data/split.h"
#include "vitrail/io/image.h"

namespace vitrail::data {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxValues = int64_t{1} << 33;  // of one volume, in bytes

/// The slices of one volume, in order.
struct Stack {
  std::string path;  // the folder or glob
  std::vector<std::string> slices;
};

/// Images in the folder itself are one volume; without any, each sub-folder that holds images is.
std::vector<Stack> stacks_of_folder(const std::string& folder) {
  std::vector<std::string> slices = list_folder(folder, io::has_image_extension);
  if (!slices.empty()) return {{folder, std::move(slices)}};
  std::vector<Stack> stacks;
  for (const std::string& path : list_folders(folder))
    if (slices = list_folder(path, io::has_image_extension); !slices.empty())
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
    else if (io::has_image_extension(path))
      loose.slices.push_back(path);
  }
  if (!loose.slices.empty()) stacks.push_back(std::move(loose));
  VT_REQUIRE(
      DataError, !stacks.empty(),
      "[data] {}: holds no {} file; the reader image_stack wants a folder of slices, a folder "
      "of such folders, or a glob",
      root, kImageKinds);
  return stacks;
}

void check_pairs(const std::vector<Stack>& masks, const config::Source& source,
                 const std::vector<Stack>& images) {
  check_mask_count(masks.size(), source.labels, images.size(), source.root);
  for (size_t i = 0; i < images.size(); ++i)
    check_mask_count(masks[i].slices.size(), masks[i].path, images[i].slices.size(),
                     images[i].path);
}

class ImageStack : public Reader {
 public:
  ImageStack(const config::Source& source, const config::Model& model)
      : Reader(model.in_channels), images_(list_stacks(source.root)), classes_(source, model) {
    if (!source.labels.empty()) {
      masks_ = list_stacks(source.labels);
      check_pairs(masks_, source, images_);
    }
    for (std::vector<Stack>* stacks : {&images_, &masks_})
      for (Stack& stack : *stacks) take_slices(source, stack);
  }

  int64_t size() const override { return static_cast<int64_t>(images_.size()); }
  SampleInfo describe(int64_t i) const override { return {image(i).path, -1}; }
  bool has_masks() const override { return !masks_.empty(); }
  bool is_costly() const override { return true; }

  Shape shape(int64_t i) const override {
    Shape shape = image_file_shape(image(i).slices.front());
    shape.sides.insert(shape.sides.begin(), static_cast<int64_t>(image(i).slices.size()));
    return shape;
  }

  Pixels decode(int64_t i) const override {
    Pixels volume;
    for (const std::string& path : image(i).slices) {
      const Pixels slice = read_image_pixels(path);
      if (volume.values.empty()) start(volume, slice, image(i));
      VT_REQUIRE(DataError, slice.sides == slice_sides(volume) && slice.channels == volume.channels,
                 "[data] {}: slices of a volume must be equal but got {} x {} channel(s), and {} x "
                 "{} channel(s) in {}",
                 path, data::describe(slice.sides), slice.channels,
                 data::describe(slice_sides(volume)), volume.channels, image(i).slices.front());
      volume.values.insert(volume.values.end(), slice.values.begin(), slice.values.end());
    }
    return volume;
  }

  Mask decode_mask(int64_t i) const override {
    const Stack& stack = masks_.at(static_cast<size_t>(i));
    const Shape whole = shape(i);
    const std::vector<int64_t> sides(whole.sides.begin() + 1, whole.sides.end());
    Mask volume{whole.sides, {}};
    for (size_t z = 0; z < stack.slices.size(); ++z) {
      const std::string& path = stack.slices[z];
      const Mask slice = classes_.apply(read_image_mask(path), path);
      check_mask_sides(slice.sides, path, sides, image(i).slices[z]);
      volume.classes.insert(volume.classes.end(), slice.classes.begin(), slice.classes.end());
    }
    return volume;
  }

 private:
  const Stack& image(int64_t i) const { return images_.at(static_cast<size_t>(i)); }

  static void take_slices(const config::Source& source, Stack& stack) {
    const SplitRange range =
        split_range(source, static_cast<int64_t>(stack.slices.size()), stack.path);
    stack.slices = std::vector<std::string>(stack.slices.begin() + range.first,
                                            stack.slices.begin() + range.last);
  }

  static std::vector<int64_t> slice_sides(const Pixels& volume) {
    return {volume.sides.begin() + 1, volume.sides.end()};
  }

  static void start(Pixels& volume, const Pixels& slice, const Stack& stack) {
    const auto depth = static_cast<int64_t>(stack.slices.size());
    const int64_t bytes = core::checked_mul(static_cast<int64_t>(slice.values.size()), depth,
                                            "the pixels of a volume");
    VT_REQUIRE(DataError, bytes <= kMaxValues,
               "[data] {}: a volume must have at most {} values but would have {}", stack.path,
               kMaxValues, bytes);
    volume.sides = {depth, slice.sides[0], slice.sides[1]};
    volume.channels = slice.channels;
    volume.values.reserve(static_cast<size_t>(bytes));
  }

  std::vector<Stack> images_, masks_;
  MaskClasses classes_;
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

#include "vitrail/train/predict_masks.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>
#include <span>

#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <ATen/ops/upsample_trilinear3d.h>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include "vitrail/data/leaves.h"
#include "vitrail/data/reader.h"
#include "vitrail/data/statistics.h"
#include "vitrail/data/transform.h"
#include "vitrail/io/image.h"
#include "vitrail/io/nifti.h"
#include "vitrail/io/zarr_writer.h"
#include "vitrail/train/sliding_window.h"
#include "vitrail/train/turns.h"

namespace vitrail::train {

namespace {

namespace fs = std::filesystem;

constexpr double kOverlap = 0.5;
constexpr int64_t kMostClasses = 256;  // of a mask of bytes

/// The recipe's source over other files: whole, without masks.
config::Source source_of(const config::Source& source, const std::string& input) {
  config::Source plain = source;
  plain.root = input;
  plain.labels.clear();
  plain.label_maps.clear();
  plain.label_array.clear();
  plain.label_reader.value = "same";
  plain.split.clear();
  plain.split_list.clear();
  plain.split_hash.reset();
  plain.split_part.value = "all";
  plain.region.clear();
  plain.tile.clear();
  plain.resize.clear();
  plain.augment.clear();
  plain.slices.reset();
  plain.random_crop = {};
  return plain;
}

/// The recipe's model for files of `sides`, as readers and transforms understand it.
config::Model model_of(const config::Model& model, std::vector<int64_t> sides) {
  config::Model whole = model;
  whole.image_size = std::move(sides);
  return whole;
}

/// Sides of the samples that training cuts out of files; empty: files are taken whole.
std::vector<int64_t> cut_sides(const config::Source& source, const config::Model& model) {
  if (!source.tile.empty() || source.random_crop.per_epoch == 0) return source.tile;
  return source.random_crop.size.empty() ? model.image_size : source.random_crop.size;
}

/// Sides that a file gets so that the model sees it at the scale of its training.
std::vector<int64_t> scaled_sides(const std::vector<int64_t>& sides, const config::Source& source,
                                  const config::Model& model) {
  const std::vector<int64_t> from = cut_sides(source, model);
  const std::vector<int64_t>& to = source.resize.empty() ? model.image_size : source.resize;
  std::vector<int64_t> scaled = sides;
  const bool slices = sides.size() > to.size();
  for (size_t axis = 0, k = 0; axis < sides.size(); ++axis) {
    if (slices && static_cast<int64_t>(axis) == source.slices.value_or(0)) continue;
    const auto side = static_cast<double>(from.empty() ? to[k] : sides[axis]);
    const double ratio =
        from.empty() ? 1.0 : static_cast<double>(to[k]) / static_cast<double>(from[k]);
    scaled[axis] = std::max<int64_t>(1, std::llround(side * ratio));
    ++k;
  }
  return scaled;
}

/// What pixels outside an image are after normalisation, as data::Transform pads.
std::vector<double> padding_of(const config::Source& source, int64_t channels) {
  const auto [mean, std] = data::normalize_values(source, channels);
  std::vector<double> padding;
  for (size_t c = 0; c < mean.size(); ++c) padding.push_back(-mean[c] / std[c]);
  return padding;
}

/// [C, sides...], normalised as in training, with these sides.
at::Tensor normalised(const config::Source& source, const config::Model& model, data::Pixels pixels,
                      const std::string& path, const std::vector<int64_t>& sides) {
  const data::Transform transform(source, model_of(model, sides), /*training=*/false,
                                  /*raw=*/false);
  std::vector<int64_t> shape{transform.channels()};
  shape.insert(shape.end(), sides.begin(), sides.end());
  at::Tensor image = at::empty(shape, at::kFloat);
  transform.apply(std::move(pixels), {}, path, image.mutable_data_ptr<float>());
  return image;
}

/// Probabilities [classes, ...] with other sides, linear between pixel centres.
at::Tensor resized(const at::Tensor& shares, at::IntArrayRef sides) {
  if (shares.sizes().slice(1) == sides) return shares;
  const at::Tensor batch = shares.unsqueeze(0);
  return (sides.size() == 2 ? at::upsample_bilinear2d(batch, sides, /*align_corners=*/false)
                            : at::upsample_trilinear3d(batch, sides, /*align_corners=*/false))
      .squeeze(0);
}

/// Segments images of the model's number of sides.
class Segmenter {
 public:
  Segmenter(models::Model& model, const config::Model& options, at::Device device,
            const SlidingWindow& window)
      : model_(model), options_(options), device_(device), window_(window) {}

  /// int64 [sides...], or float [V, sides...] of a model of values, of image [C, other sides...]; a
  /// volume under a 2-D model slice by slice.
  at::Tensor run(const at::Tensor& image, const std::vector<int64_t>& sides,
                 int64_t slice_axis) const {
    if (sides.size() == options_.image_size.size()) return one(image, sides);
    std::vector<int64_t> flat = sides;
    flat.erase(flat.begin() + slice_axis);
    std::vector<at::Tensor> slices;
    for (int64_t i = 0; i < image.size(slice_axis + 1); ++i)
      slices.push_back(one(image.select(slice_axis + 1, i), flat));
    return at::stack(slices, slice_axis + (of_values() ? 1 : 0));
  }
  bool of_values() const { return model_.task() == models::Task::regression; }

 private:
  at::Tensor one(const at::Tensor& image, at::IntArrayRef sides) const {
    const at::Tensor found = resized(segment(model_, options_, image, device_, window_), sides);
    return of_values() ? found : found.argmax(0);
  }

  models::Model& model_;
  const config::Model& options_;
  at::Device device_;
  SlidingWindow window_;
};

/// Class numbers, or the values that stand for them in the masks the model learned from.
at::Tensor mask_bytes(const at::Tensor& classes, const config::Source& source) {
  at::Tensor bytes = classes.to(at::kByte);
  const std::vector<int64_t>& values = source.label_values;
  const bool fit = !values.empty() && std::all_of(values.begin(), values.end(),
                                                  [](int64_t v) { return v >= 0 && v <= 255; });
  if (!fit) return bytes.contiguous();
  at::Tensor named = bytes.clone();
  for (size_t k = 0; k < values.size(); ++k)
    named.masked_fill_(classes.eq(static_cast<int64_t>(k)), values[k]);
  return named.contiguous();
}

void write_png(const fs::path& path, const at::Tensor& bytes_HW) {
  io::Image image;
  image.height = static_cast<int>(bytes_HW.size(0));
  image.width = static_cast<int>(bytes_HW.size(1));
  image.channels = 1;
  image.pixels.assign(bytes_HW.const_data_ptr<uint8_t>(),
                      bytes_HW.const_data_ptr<uint8_t>() + bytes_HW.numel());
  core::write_file_atomic(path.string(), io::encode_png(image));
}

/// "scan.nii.gz" -> "scan"
std::string stem(const std::string& path) {
  static const std::set<std::string> endings{".gz",  ".nii", ".zarr", ".n5",  ".npy",
                                             ".npz", ".raw", ".tif",  ".tiff"};
  fs::path trimmed = fs::path(path).lexically_normal();
  if (trimmed.filename().string().find_first_of("*?[") != std::string::npos)
    trimmed = trimmed.parent_path();  // a glob of slices is named by its folder
  fs::path name = trimmed.has_filename() ? trimmed.filename() : trimmed.parent_path().filename();
  while (name.has_extension() &&
         (endings.contains(name.extension().string()) || io::has_image_extension(name.string())))
    name = name.stem();
  return name.string();
}

constexpr const char* kAxes = "zyx";

bool reads_arrays(const std::string& reader) {
  return reader == "npy" || reader == "raw" || reader == "tiff" || reader == "zarr" ||
         reader == "n5";
}

std::string output_name(const std::string& folder, int64_t i, const std::string& path) {
  return (fs::path(folder) / fmt::format("{:05}-{}", i, stem(path))).string();
}

/// One value a pixel goes back into the space of a NIfTI file; everything else is a zarr array.
void write_values(const std::string& folder, int64_t i, const std::string& path,
                  const std::string& reader, const at::Tensor& values) {
  const std::string name = output_name(folder, i, path);
  const at::Tensor plain = values.contiguous();
  const auto* data = plain.const_data_ptr<float>();
  if (reader == "nifti" && plain.size(0) == 1)
    io::write_nifti(name + ".nii.gz", plain.sizes().slice(1).vec(),
                    std::span(data, static_cast<size_t>(plain.numel())),
                    io::read_nifti_header(path).geometry);
  else
    io::write_zarr(name + ".zarr", core::DType::f32, plain.sizes().vec(),
                   std::string("c") + (kAxes + 4 - plain.dim()), data);
}

void write_mask(const std::string& folder, int64_t i, const std::string& path,
                const std::string& reader, const at::Tensor& bytes) {
  const fs::path name = output_name(folder, i, path);
  if (reads_arrays(reader)) {
    io::write_zarr(name.string() + ".zarr", core::DType::u8, bytes.sizes().vec(),
                   kAxes + 3 - bytes.dim(), bytes.const_data_ptr());
  } else if (reader == "nifti") {
    const std::span<const uint8_t> values(bytes.const_data_ptr<uint8_t>(),
                                          static_cast<size_t>(bytes.numel()));
    io::write_nifti(name.string() + ".nii.gz", bytes.sizes().vec(), values,
                    io::read_nifti_header(path).geometry);
  } else if (bytes.dim() == 2) {
    write_png(name.string() + ".png", bytes);
  } else {
    core::make_directories(name.string());
    for (int64_t z = 0; z < bytes.size(0); ++z)
      write_png(name / fmt::format("{:04}.png", z), bytes[z].contiguous());
  }
}

/// The reader of the recipe's source, or of images where that one is not for files of pixels.
config::Source files_of(const config::Source& source, const std::string& input) {
  config::Source files = source_of(source, input);
  // Those that read something else than files of pixels.
  for (const char* reader :
       {"random", "image_folder", "image_list", "digits", "cifar", "idx", "coco", "voc", "tar"})
    if (files.reader == reader) files.reader.value = "images";
  return files;
}

void check_model(const config::Model& model, const config::Source& files) {
  const size_t axes = model.image_size.size();
  VT_REQUIRE(
      ConfigError, axes == 2 || !(files.reader == "images"),
      "[predict] the reader images reads 2 sides but model.image_size has {}; set the source's "
      "reader to nifti or image_stack",
      axes);
  VT_REQUIRE(ConfigError, model.num_classes <= kMostClasses,
             "[predict] a mask of bytes holds {} classes but model.num_classes is {}", kMostClasses,
             model.num_classes);
}

SlidingWindow window_of(const config::Recipe& recipe, const config::Source& source) {
  SlidingWindow window;
  window.seed = static_cast<uint64_t>(recipe.run.seed);
  window.overlap = kOverlap;
  if (!source.overlap.empty())
    window.overlap = *std::max_element(source.overlap.begin(), source.overlap.end());
  window.variables = source.variables;
  if (recipe.model.num_leaves() > 0)
    window.pixel_range = data::pixel_range_of(source, recipe.model);
  window.padding = padding_of(source, data::channels_of(source, recipe.model));
  return window;
}

}  // namespace

int64_t predict_masks(models::Model& model, const config::Recipe& recipe,
                      const config::Source& source, comm::Communicator& world,
                      const std::string& input, const std::string& output, at::Device device) {
  const config::Source files = files_of(source, input);
  check_model(recipe.model, files);
  const bool volumes = files.reader == "nifti" || files.reader == "image_stack" || source.slices;
  const size_t axes = volumes ? 3 : recipe.model.image_size.size();
  const auto reader =
      data::open_reader(files, model_of(recipe.model, std::vector<int64_t>(axes, 1)));
  const Segmenter segmenter(model, recipe.model, device, window_of(recipe, source));
  core::make_directories(output);
  in_turns(world, reader->size(), [&](int64_t i) -> std::string {
    const std::string path = reader->describe(i).path;
    data::Pixels pixels = reader->decode(i);
    const std::vector<int64_t> sides = pixels.sides;
    const at::Tensor image = normalised(files, recipe.model, std::move(pixels), path,
                                        scaled_sides(sides, source, recipe.model));
    const at::Tensor found = segmenter.run(image, sides, source.slices.value_or(0));
    if (segmenter.of_values())
      write_values(output, i, path, files.reader.value, found);
    else
      write_mask(output, i, path, files.reader.value, mask_bytes(found, source));
    return {};
  });
  return reader->size();
}

}  // namespace vitrail::train

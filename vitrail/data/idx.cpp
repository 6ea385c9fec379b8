#include "vitrail/io/idx.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <system_error>

#include "vitrail/core/error.h"
#include "vitrail/core/mapped_file.h"
#include "vitrail/data/files.h"
#include "vitrail/data/label_checks.h"
#include "vitrail/data/readers.h"
#include "vitrail/io/csv_gz.h"

namespace vitrail::data {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxUnpacked = int64_t{1} << 32;

std::string name_of(const std::string& path) { return fs::path(path).filename().string(); }

/// By MNIST's names: train-images-idx3-ubyte, with .gz or not.
bool holds_images(const std::string& path) {
  const std::string name = name_of(path);
  return name.find("images") != std::string::npos && name.find("idx3") != std::string::npos;
}

std::vector<std::string> list_images(const config::Source& source) {
  std::vector<std::string> files = list_files(source.root, holds_images, "*images*idx3*");
  std::error_code unknown;
  VT_REQUIRE(DataError, files.size() == 1 || !fs::is_directory(source.root, unknown),
             "[data] {}: must hold one file of images but holds {}; name one of them as root",
             source.root, files.size());
  return files;
}

/// train-images-idx3-ubyte -> train-labels-idx1-ubyte, packed or not; "" if there is none.
std::string usual_labels(const std::string& images) {
  std::string name = name_of(images);
  const size_t word = name.rfind("images"), axes = name.rfind("idx3");
  if (word == std::string::npos || axes == std::string::npos) return "";
  name.replace(axes, 4, "idx1").replace(word, 6, "labels");
  const std::string path = (fs::path(images).parent_path() / name).string();
  const std::string other = path.ends_with(".gz") ? path.substr(0, path.size() - 3) : path + ".gz";
  for (const std::string& candidate : {path, other}) {
    std::error_code unknown;
    if (fs::exists(candidate, unknown)) return candidate;
  }
  return "";
}

/// An IDX file that stays mapped, or unpacked in memory.
class Array {
 public:
  explicit Array(const std::string& path) : file_(path) {
    const std::span<const std::byte> bytes = file_.bytes();
    const bool is_packed =
        bytes.size() >= 2 && bytes[0] == std::byte{0x1F} && bytes[1] == std::byte{0x8B};
    if (is_packed) unpacked_ = io::inflate_gzip(bytes, path, kMaxUnpacked);
    array_ = io::parse_idx(is_packed ? std::as_bytes(std::span(unpacked_)) : bytes, path);
  }
  Array(const Array&) = delete;  // array_ points into unpacked_

  const io::IdxArray& operator*() const { return array_; }
  const io::IdxArray* operator->() const { return &array_; }
  const std::string& path() const { return file_.path(); }

 private:
  core::MappedFile file_;
  std::string unpacked_;
  io::IdxArray array_;
};

struct Part {
  std::unique_ptr<Array> images, labels;  // no labels: nullptr
  int64_t first = 0;                      // place in the list over all files
};

class Idx : public Reader {
 public:
  Idx(const config::Source& source, const config::Model& model) : Reader(model.in_channels) {
    const std::vector<std::string> images = list_images(source);
    std::vector<std::string> labels;
    if (!source.labels.empty()) {
      labels = list_files(
          source.labels, [](const std::string&) { return true; }, "IDX");
      VT_REQUIRE(
          DataError, labels.size() == images.size(),
          "[data] {}: expected one file of labels for each of the {} files of {} but found {}",
          source.labels, images.size(), source.root, labels.size());
    }
    for (size_t i = 0; i < images.size(); ++i)
      add(images[i], labels.empty() ? usual_labels(images[i]) : labels[i], model);
    VT_REQUIRE(DataError, size_ > 0, "[data] {}: holds no image", source.root);
  }

  int64_t size() const override { return size_; }

  SampleInfo describe(int64_t i) const override {
    const Part& part = part_of(i);
    return {path_of(part, i), part.labels ? label_of(part, i - part.first) : -1};
  }

  Shape shape(int64_t i) const override { return {sides_of(part_of(i)), 1}; }

  Pixels decode(int64_t i) const override {
    const Part& part = part_of(i);
    const io::IdxArray& array = **part.images;
    Pixels pixels;
    pixels.sides = sides_of(part);
    const int64_t n = count(pixels.sides), first = (i - part.first) * n;
    if (array.dtype == core::DType::u8) {
      const auto* bytes = reinterpret_cast<const uint8_t*>(array.values.data()) + first;
      pixels.values.assign(bytes, bytes + n);
      return pixels;
    }
    pixels.full_scale = 1;
    pixels.floats.reserve(static_cast<size_t>(n));
    for (int64_t p = 0; p < n; ++p) {
      const auto value = static_cast<float>(array.at(first + p));
      VT_REQUIRE(DataError, std::isfinite(value), "[data] {}: values must be finite but one is {}",
                 path_of(part, i), value);
      pixels.floats.push_back(value);
    }
    return pixels;
  }

 private:
  void add(const std::string& images, const std::string& labels, const config::Model& model) {
    Part part;
    part.images = std::make_unique<Array>(images);
    const std::vector<int64_t>& shape = (*part.images)->shape;
    VT_REQUIRE(
        DataError, shape.size() == 3 && count(shape) > 0,
        "[data] {}: must have three axes (images, rows, columns), none of length 0, but has {}",
        images, data::describe(shape));
    if (!labels.empty()) part.labels = std::make_unique<Array>(labels);
    VT_REQUIRE(
        DataError, part.labels || !classifies(model),
        "[data] {}: a classifier needs labels but no *labels*idx1* lies beside it; set labels",
        images);
    if (part.labels) check_labels(part, model);
    part.first = size_;
    size_ += shape[0];
    parts_.push_back(std::move(part));
  }

  static void check_labels(const Part& part, const config::Model& model) {
    const Array& labels = *part.labels;
    const int64_t images = (*part.images)->shape[0];
    VT_REQUIRE(DataError, labels->shape.size() == 1 && labels->shape[0] == images,
               "[data] {}: must have a label for each of the {} images of {} but its shape is {}",
               labels.path(), images, part.images->path(), data::describe(labels->shape));
    for (int64_t i = 0; i < images; ++i) {
      const double value = labels->at(i);
      const std::string where = fmt::format("{}#{}", labels.path(), i);
      VT_REQUIRE(DataError, std::abs(value) < (int64_t{1} << 31) && value == std::floor(value),
                 "[data] {}: a class must be a whole number but is {}", where, value);
      check_label(static_cast<int64_t>(value), model, where);
    }
  }

  const Part& part_of(int64_t i) const {
    const auto after =
        std::upper_bound(parts_.begin(), parts_.end(), i,
                         [](int64_t place, const Part& part) { return place < part.first; });
    return *std::prev(after);
  }
  static int64_t label_of(const Part& part, int64_t i) {
    return static_cast<int64_t>((*part.labels)->at(i));
  }
  static std::vector<int64_t> sides_of(const Part& part) {
    const std::vector<int64_t>& shape = (*part.images)->shape;
    return {shape[1], shape[2]};
  }
  static std::string path_of(const Part& part, int64_t i) {
    return fmt::format("{}#{}", part.images->path(), i - part.first);
  }

  std::vector<Part> parts_;
  int64_t size_ = 0;
};

}  // namespace

std::unique_ptr<Reader> open_idx(const config::Source& source, const config::Model& model) {
  require_two_sides(source, model);
  return std::make_unique<Idx>(source, model);
}

}  // namespace vitrail::data

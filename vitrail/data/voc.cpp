#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <string_view>
#include <system_error>
#include <unordered_map>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include "vitrail/core/log.h"
#include "vitrail/core/text.h"
#include "vitrail/data/annotated_boxes.h"
#include "vitrail/data/files.h"
#include "vitrail/data/image_files.h"
#include "vitrail/data/label_checks.h"
#include "vitrail/data/readers.h"
#include "vitrail/data/voc_annotation.h"
#include "vitrail/io/image.h"
#include "vitrail/io/xml.h"

namespace vitrail::data {
namespace {

namespace fs = std::filesystem;

bool is_xml(const std::string& path) { return fs::path(path).extension() == ".xml"; }

struct Layout {
  fs::path images, annotations;
};

/// JPEGImages and Annotations, or images and annotations side by side.
Layout layout_of(const config::Source& source) {
  const fs::path root = source.root;
  std::error_code unknown;
  VT_REQUIRE(DataError, fs::is_directory(root, unknown),
             "[data] {}: no such folder; set root of the source '{}'", source.root,
             source_name(source));
  const bool is_voc = fs::is_directory(root / "Annotations", unknown) &&
                      fs::is_directory(root / "JPEGImages", unknown);
  return is_voc ? Layout{root / "JPEGImages", root / "Annotations"} : Layout{root, root};
}

/// The path below `folder` without its extension: what an image and its annotation share.
std::string stem_of(const std::string& path, const fs::path& folder) {
  return fs::path(path).lexically_relative(folder).replace_extension().string();
}

/// Image files by stem.
std::unordered_map<std::string, std::string> list_images(const fs::path& folder) {
  std::unordered_map<std::string, std::string> images;
  for (std::string& path : collect_files(folder.string(), io::has_image_extension)) {
    const auto [entry, is_new] = images.try_emplace(stem_of(path, folder), path);
    VT_REQUIRE(DataError, is_new, "[data] {}: has the same annotation as {}; keep one of them",
               path, entry->second);
  }
  return images;
}

/// The file of stems that source.labels names; a bare word is one of ImageSets/Main.
std::string split_file(const config::Source& source) {
  std::error_code unknown;
  const fs::path inside = fs::path(source.root) / "ImageSets" / "Main" / (source.labels + ".txt");
  const bool is_word = source.labels.find('/') == std::string::npos;
  return is_word && fs::exists(inside, unknown) ? inside.string() : source.labels;
}

/// A stem a line.
std::set<std::string> read_split(const std::string& path) {
  constexpr int64_t kMaxBytes = 1 << 30;
  const std::string text = core::read_file(path, kMaxBytes);
  std::set<std::string> stems;
  int64_t number = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    ++number;
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.remove_suffix(1);
    if (line.empty()) continue;
    VT_REQUIRE(DataError, line.find_first_of(" \t") == std::string_view::npos,
               "[data] {}:{}: a line must be the name of one image but is '{}'; lists of single "
               "classes (name and 1, 0 or -1) are not read",
               path, number, core::printable(line));
    stems.emplace(line);
  }
  VT_REQUIRE(DataError, !stems.empty(), "[data] {}: names no image", path);
  return stems;
}

class Voc : public Reader {
 public:
  Voc(const config::Source& source, const config::Model& model)
      : Reader(model.in_channels), layout_(layout_of(source)) {
    std::vector<std::string> annotations = collect_files(layout_.annotations.string(), is_xml);
    std::sort(annotations.begin(), annotations.end(), natural_less);
    VT_REQUIRE(DataError, !annotations.empty(), "[data] {}: holds no .xml file",
               layout_.annotations.string());
    const auto images = list_images(layout_.images);
    std::set<std::string> split;
    const std::string list = source.labels.empty() ? "" : split_file(source);
    if (!list.empty()) split = read_split(list);
    // Classes are those of all annotations, so that every split has the same.
    for (const std::string& path : annotations) {
      const std::string stem = stem_of(path, layout_.annotations);
      const VocAnnotation annotation = read(path);
      const bool is_used = list.empty() || split.erase(stem) > 0;
      for (const VocObject& object : annotation.objects) classes_.try_emplace(object.name, 0);
      if (is_used) add(path, stem, annotation, images);
    }
    VT_REQUIRE(DataError, split.empty(), "[data] {}: names '{}', which has no annotation in {}",
               list, core::printable(split.empty() ? "" : *split.begin()),
               layout_.annotations.string());
    number_classes();
    log_left_out(source, images.size(), annotations.size());
  }

  int64_t size() const override { return static_cast<int64_t>(samples_.size()); }
  SampleInfo describe(int64_t i) const override { return {at(i).image, -1}; }
  int64_t max_boxes() const override { return max_boxes_; }

  std::vector<std::string> class_names() const override {
    std::vector<std::string> names;
    for (const auto& [name, label] : classes_) names.push_back(name);
    return names;
  }

  std::vector<LabelledBox> boxes(int64_t i) const override {
    const auto first = boxes_.begin() + at(i).first_box;
    return {first, first + at(i).num_boxes};
  }

  Pixels decode(int64_t i) const override {
    Pixels pixels = read_image_pixels(at(i).image);
    check_size(at(i), pixels.sides);
    return pixels;
  }

  Shape shape(int64_t i) const override {
    Shape shape = image_file_shape(at(i).image);
    check_size(at(i), shape.sides);
    return shape;
  }

 private:
  struct Item {
    std::string image, annotation;
    int64_t width = 0, height = 0;
    int64_t first_box = 0, num_boxes = 0;
  };

  static VocAnnotation read(const std::string& path) {
    return parse_voc(core::read_file(path, io::XmlLimits{}.max_bytes), path);
  }

  void add(const std::string& path, const std::string& stem, const VocAnnotation& annotation,
           const std::unordered_map<std::string, std::string>& images) {
    const auto image = images.find(stem);
    VT_REQUIRE(DataError, image != images.end(),
               "[data] {}: has no image {}.jpg, .jpeg or .png in {}", path, core::printable(stem),
               layout_.images.string());
    Item item{image->second, path, annotation.width, annotation.height,
              static_cast<int64_t>(boxes_.size())};
    if (item.width == 0) {
      const std::vector<int64_t> sides = image_file_shape(item.image).sides;
      item.height = sides[0];
      item.width = sides[1];
    }
    for (const VocObject& object : annotation.objects) {
      const auto class_entry = classes_.find(object.name);
      const LabelledBox box = box_inside(object.corners, item.width, item.height, 0);
      if (!has_extent(box)) {
        ++empty_;
        continue;
      }
      boxes_.push_back(box);
      box_classes_.push_back(&class_entry->second);
    }
    item.num_boxes = static_cast<int64_t>(boxes_.size()) - item.first_box;
    max_boxes_ = std::max(max_boxes_, item.num_boxes);
    samples_.push_back(std::move(item));
  }

  /// In the order of the names' bytes, which is known only after the last file.
  void number_classes() {
    int64_t label = 0;
    for (auto& [name, number] : classes_) number = label++;
    for (size_t i = 0; i < boxes_.size(); ++i) boxes_[i].label = *box_classes_[i];
    std::vector<const int64_t*>().swap(box_classes_);
  }

  void log_left_out(const config::Source& source, size_t images, size_t annotations) const {
    if (empty_ > 0)
      core::log_info("[data] {}: left out {} boxes without extent", source.root, empty_);
    if (images > annotations)
      core::log_info("[data] {}: left out {} images without an annotation", source.root,
                     images - annotations);
  }

  static void check_size(const Item& item, const std::vector<int64_t>& sides) {
    check_annotated_size(sides, item.image, item.width, item.height, item.annotation);
  }

  const Item& at(int64_t i) const { return samples_.at(static_cast<size_t>(i)); }

  Layout layout_;
  std::vector<Item> samples_;
  std::vector<LabelledBox> boxes_;  // sample after sample
  std::map<std::string, int64_t> classes_;
  std::vector<const int64_t*> box_classes_;  // into classes_, only while files are read
  int64_t max_boxes_ = 0, empty_ = 0;
};

}  // namespace

std::unique_ptr<Reader> open_voc(const config::Source& source, const config::Model& model) {
  require_two_sides(source, model);
  return std::make_unique<Voc>(source, model);
}

}  // namespace vitrail::data

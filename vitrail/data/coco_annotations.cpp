#include "vitrail/data/coco_annotations.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>

#include "vitrail/core/error.h"
#include "vitrail/core/text.h"
#include "vitrail/data/annotated_boxes.h"
#include "vitrail/data/files.h"
#include "vitrail/io/json_records.h"

namespace vitrail::data {
namespace {

using io::JsonRecord;
using io::JsonValue;

constexpr int64_t kMaxSide = 1 << 20;

struct Annotation {
  int64_t image_id = 0, category_id = 0, place = 0;
  double x = 0, y = 0, width = 0, height = 0;
};

class CocoParser {
 public:
  explicit CocoParser(const std::string& name) : name_(name) {}

  void take(const JsonRecord& record) {
    if (record.list == "images") take_image(record);
    if (record.list == "annotations") take_annotation(record);
    if (record.list == "categories") take_category(record);
    VT_REQUIRE(
        DataError, record.place < 0 || !record.list.empty(),
        "[data] {}: must be an object with 'images', 'annotations' and 'categories' but is a list",
        name_);
  }

  CocoAnnotations finish() {
    VT_REQUIRE(DataError, !result_.images.empty(), "[data] {}: 'images' lists no image", name_);
    sort_images();
    for (auto& [id, category] : categories_) {
      category.second = static_cast<int64_t>(result_.class_names.size());
      result_.class_names.push_back(std::move(category.first));
    }
    place_boxes();
    return std::move(result_);
  }

 private:
  template <class... Args>
  [[noreturn]] void refuse(const JsonRecord& record, fmt::format_string<Args...> format,
                           Args&&... args) const {
    core::fail<core::DataError>("[data] {}: {}: {}", name_, record.where(),
                                fmt::format(format, std::forward<Args>(args)...));
  }

  int64_t integer(const JsonRecord& record, const char* key) const {
    const JsonValue* value = record.find(key);
    if (value == nullptr || value->kind != JsonValue::Kind::integer)
      refuse(record, "'{}' must be a whole number", key);
    return value->integer;
  }

  std::string text(const JsonRecord& record, const char* key) const {
    const JsonValue* value = record.find(key);
    if (value == nullptr || value->kind != JsonValue::Kind::text || value->text.empty())
      refuse(record, "'{}' must be a text", key);
    for (const char letter : value->text)
      if (static_cast<unsigned char>(letter) < 0x20)
        refuse(record, "'{}' must not hold control characters but is '{}'", key,
               core::printable(value->text));
    return value->text;
  }

  void take_image(const JsonRecord& record) {
    CocoImage image;
    image.id = integer(record, "id");
    image.file = text(record, "file_name");
    image.width = integer(record, "width");
    image.height = integer(record, "height");
    const bool fits =
        std::min(image.width, image.height) >= 1 && std::max(image.width, image.height) <= kMaxSide;
    if (!fits)
      refuse(record, "width and height must be 1 to {} but are {} and {}", kMaxSide, image.width,
             image.height);
    if (!ids_.insert(image.id).second)
      refuse(record, "the id {} must be given once but is given twice", image.id);
    result_.images.push_back(std::move(image));
  }

  void take_annotation(const JsonRecord& record) {
    if (const JsonValue* crowd = record.find("iscrowd"); crowd != nullptr && crowd->integer != 0) {
      ++result_.crowds;
      return;
    }
    const JsonValue* box = record.find("bbox");
    if (box == nullptr || box->kind != JsonValue::Kind::numbers || box->numbers.size() != 4)
      refuse(record, "'bbox' must be four numbers: x, y, width, height");
    annotations_.push_back({integer(record, "image_id"), integer(record, "category_id"),
                            record.place, box->numbers[0], box->numbers[1], box->numbers[2],
                            box->numbers[3]});
  }

  void take_category(const JsonRecord& record) {
    const int64_t id = integer(record, "id");
    if (!categories_.emplace(id, std::pair(text(record, "name"), int64_t{0})).second)
      refuse(record, "the id {} must be given once but is given twice", id);
  }

  void sort_images() {
    std::stable_sort(
        result_.images.begin(), result_.images.end(),
        [](const CocoImage& a, const CocoImage& b) { return natural_less(a.file, b.file); });
    for (size_t i = 0; i < result_.images.size(); ++i)
      places_.emplace(result_.images[i].id, static_cast<int64_t>(i));
  }

  int64_t class_of(const Annotation& annotation) const {
    const auto category = categories_.find(annotation.category_id);
    VT_REQUIRE(DataError, category != categories_.end(),
               "[data] {}: annotations[{}]: the category {} is not among 'categories'", name_,
               annotation.place, annotation.category_id);
    return category->second.second;
  }

  void place_boxes() {
    std::vector<std::pair<int64_t, LabelledBox>> placed;  // by image
    for (const Annotation& annotation : annotations_) {
      const auto image = places_.find(annotation.image_id);
      VT_REQUIRE(DataError, image != places_.end(),
                 "[data] {}: annotations[{}]: the image {} is not among 'images'", name_,
                 annotation.place, annotation.image_id);
      const CocoImage& size = result_.images[static_cast<size_t>(image->second)];
      const LabelledBox box =
          box_inside({annotation.x, annotation.y, annotation.x + annotation.width,
                      annotation.y + annotation.height},
                     size.width, size.height, class_of(annotation));
      if (has_extent(box))
        placed.emplace_back(image->second, box);
      else
        ++result_.empty;
    }
    std::vector<Annotation>().swap(annotations_);
    std::stable_sort(placed.begin(), placed.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& [image, box] : placed) {
      CocoImage& owner = result_.images[static_cast<size_t>(image)];
      if (owner.num_boxes++ == 0) owner.first_box = static_cast<int64_t>(result_.boxes.size());
      result_.max_boxes = std::max(result_.max_boxes, owner.num_boxes);
      result_.boxes.push_back(box);
    }
  }

  const std::string& name_;
  CocoAnnotations result_;
  std::set<int64_t> ids_;
  std::vector<Annotation> annotations_;
  std::map<int64_t, std::pair<std::string, int64_t>> categories_;  // id -> name, class
  std::unordered_map<int64_t, int64_t> places_;                    // id -> place in images
};

}  // namespace

CocoAnnotations parse_coco(std::string_view text, const std::string& name) {
  CocoParser parser(name);
  io::parse_json_records(text, name, [&](const JsonRecord& record) { parser.take(record); });
  return parser.finish();
}

}  // namespace vitrail::data

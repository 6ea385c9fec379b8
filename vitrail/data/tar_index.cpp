#include "vitrail/data/tar_index.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "vitrail/core/error.h"
#include "vitrail/core/text.h"
#include "vitrail/io/json_records.h"
#include "vitrail/io/tar.h"

namespace vitrail::data {
namespace {

/// Key and kind of a member's name.
struct Name {
  std::string key, kind;

  explicit Name(std::string_view path) {
    while (path.starts_with("./")) path.remove_prefix(2);
    const size_t slash = path.rfind('/');
    const size_t last = slash == std::string_view::npos ? 0 : slash + 1;
    const size_t dot = std::min(path.find('.', last), path.size());
    key = path.substr(0, dot);
    kind = path.substr(std::min(dot + 1, path.size()));
    std::transform(kind.begin(), kind.end(), kind.begin(),
                   [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  }
};

/// Spans of the members that may tell a sample's class, in the order in which they are asked.
struct LabelSpans {
  TarSpan cls, cls_txt, json, txt;
};

class Indexer {
 public:
  Indexer(std::span<const std::byte> file, const std::string& name) : file_(file), name_(name) {}

  void take(const io::TarMember& member) {
    const Name name(member.name);
    const size_t last = name.key.rfind('/') + 1;  // 0 when there is no slash
    if (last == name.key.size()) return;          // ".hidden"
    TarSpan* span = place_of(name);
    if (span == nullptr) return;
    const std::string where = fmt::format("{}#{}", name_, core::printable(name.key));
    const bool is_plain = std::none_of(name.key.begin(), name.key.end(), [](char letter) {
      return static_cast<unsigned char>(letter) < 0x20 || letter == 0x7F;
    });
    VT_REQUIRE(DataError, is_plain, "[data] {}: a key must not hold control characters", where);
    VT_REQUIRE(DataError, span->offset == 0, "[data] {}: holds two members of the kind '{}'", where,
               core::printable(name.kind));
    if (member.size == 0 && name.kind == "txt") return;  // a caption of no words
    VT_REQUIRE(DataError, member.size > 0, "[data] {}: the member '{}' is empty", where,
               core::printable(name.kind));
    *span = {member.offset, member.size};
  }

  TarIndex finish() {
    TarIndex index;
    for (size_t i = 0; i < samples_.size(); ++i) {
      TarSample& sample = samples_[i];
      if (sample.image.size == 0) {
        ++index.without_image;
        continue;
      }
      sample.label = label_of(labels_[i], fmt::format("{}#{}", name_, sample.key));
      index.samples.push_back(std::move(sample));
    }
    VT_REQUIRE(DataError, !index.samples.empty(), "[data] {}: holds no .jpg, .jpeg or .png image",
               name_);
    return index;
  }

 private:
  /// Where a member of this name is kept; nullptr for kinds that are ignored.
  TarSpan* place_of(const Name& name) {
    static constexpr std::string_view kKinds[] = {"jpg", "jpeg",    "png",  "mask.png", "seg.png",
                                                  "cls", "cls.txt", "json", "txt"};
    const auto* kind = std::find(std::begin(kKinds), std::end(kKinds), name.kind);
    if (kind == std::end(kKinds)) return nullptr;
    const auto [entry, is_new] = places_.try_emplace(name.key, samples_.size());
    if (is_new) {
      samples_.push_back({name.key, {}, {}, -1});
      labels_.emplace_back();
    }
    TarSample& sample = samples_[entry->second];
    LabelSpans& labels = labels_[entry->second];
    switch (kind - std::begin(kKinds)) {
      case 3:
      case 4:
        return &sample.mask;
      case 5:
        return &labels.cls;
      case 6:
        return &labels.cls_txt;
      case 7:
        return &labels.json;
      case 8:
        return &labels.txt;
      default:
        return &sample.image;
    }
  }

  std::string_view text_of(const TarSpan& span) const {
    return {reinterpret_cast<const char*>(file_.data()) + span.offset,
            static_cast<size_t>(span.size)};
  }

  static std::optional<int64_t> whole(std::string_view text) {
    const size_t first = text.find_first_not_of(" \t\r\n"), last = text.find_last_not_of(" \t\r\n");
    if (first == std::string_view::npos) return std::nullopt;
    text = text.substr(first, last - first + 1);
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool fits = error == std::errc() && end == text.data() + text.size();
    return fits ? std::optional(value) : std::nullopt;
  }

  int64_t class_of(const TarSpan& span, const std::string& where) const {
    const std::optional<int64_t> value = whole(text_of(span));
    VT_REQUIRE(DataError, value.has_value(),
               "[data] {}: the class must be a whole number but is '{}'", where,
               core::printable(text_of(span)));
    return *value;
  }

  std::optional<int64_t> class_of_json(const TarSpan& span, const std::string& where) const {
    std::optional<int64_t> result;
    io::parse_json_records(text_of(span), where, [&](const io::JsonRecord& record) {
      const io::JsonValue* value = record.place < 0 ? record.find("label") : nullptr;
      if (value == nullptr) return;
      VT_REQUIRE(DataError, value->kind == io::JsonValue::Kind::integer,
                 "[data] {}: 'label' of the json member must be a whole number", where);
      result = value->integer;
    });
    return result;
  }

  int64_t label_of(const LabelSpans& labels, const std::string& where) const {
    std::optional<int64_t> found;
    if (labels.cls.size > 0)
      found = class_of(labels.cls, where);
    else if (labels.cls_txt.size > 0)
      found = class_of(labels.cls_txt, where);
    if (!found && labels.json.size > 0) found = class_of_json(labels.json, where);
    if (!found && labels.txt.size > 0) found = whole(text_of(labels.txt));  // else a caption
    if (!found) return -1;
    VT_REQUIRE(DataError, *found >= 0, "[data] {}: the class must be 0 or more but is {}", where,
               *found);
    return *found;
  }

  std::span<const std::byte> file_;
  const std::string& name_;
  std::vector<TarSample> samples_;
  std::vector<LabelSpans> labels_;
  std::unordered_map<std::string, size_t> places_;
};

}  // namespace

TarIndex index_tar(std::span<const std::byte> file, const std::string& name) {
  Indexer indexer(file, name);
  io::list_tar(file, name, [&](const io::TarMember& member) { indexer.take(member); });
  return indexer.finish();
}

}  // namespace vitrail::data

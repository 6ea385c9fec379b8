#include "vitrail/io/json_records.h"

#include <limits>

#include "vitrail/core/error.h"
#include "vitrail/core/text.h"
#include <nlohmann/json.hpp>

namespace vitrail::io {
namespace {

using Kind = JsonValue::Kind;

/// Turns the parser's events into records. Depth counts the open lists and objects.
class RecordHandler : public nlohmann::json_sax<nlohmann::json> {
 public:
  RecordHandler(const std::string& name, const std::function<void(const JsonRecord&)>& take,
                const JsonLimits& limits)
      : name_(name), take_(take), limits_(limits) {}

  bool null() override { return value({}); }
  bool boolean(bool is_true) override {
    JsonValue made;
    made.kind = Kind::boolean;
    made.integer = is_true;
    return value(std::move(made));
  }
  bool number_integer(number_integer_t number) override {
    JsonValue made;
    made.kind = Kind::integer;
    made.integer = number;
    made.number = static_cast<double>(number);
    return value(std::move(made));
  }
  bool number_unsigned(number_unsigned_t number) override {
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      return number_float(static_cast<double>(number), {});
    return number_integer(static_cast<int64_t>(number));
  }
  bool number_float(number_float_t number, const string_t&) override {
    JsonValue made;
    made.kind = Kind::number;
    made.number = number;
    return value(std::move(made));
  }
  bool string(string_t& text) override {
    JsonValue made;
    made.kind = Kind::text;
    made.text = std::move(text);
    return value(std::move(made));
  }
  bool binary(binary_t&) override { return false; }  // not in text

  bool key(string_t& key) override {
    if (JsonRecord* record = current()) {
      if (static_cast<int64_t>(record->fields.size()) >= limits_.max_fields)
        refuse(*record, "an object must have at most {} keys but has more", limits_.max_fields);
      for (const auto& [known, ignored] : record->fields)
        if (known == key)
          refuse(*record, "the key '{}' must appear once but is there twice", core::printable(key));
      record->fields.emplace_back(std::move(key), JsonValue{});
    }
    return true;
  }

  bool start_object(size_t) override {
    enter(Kind::other);
    if (is_list_depth()) {
      inner_.list = list_;
      inner_.place = place_++;
      inner_.fields.clear();
      inner_depth_ = depth_ + 1;
    }
    ++depth_;
    return true;
  }

  bool end_object() override {
    if (depth_ == inner_depth_) {
      take_(inner_);
      inner_depth_ = -1;
    }
    if (--depth_ == 0) take_(outer_);
    return true;
  }

  bool start_array(size_t) override {
    if (depth_ == 0) top_is_list_ = true;
    enter(Kind::numbers);
    if (depth_ == 1 && !top_is_list_) {
      list_ = outer_.fields.back().first;
      place_ = 0;
      in_list_ = true;
    }
    ++depth_;
    return true;
  }

  bool end_array() override {
    if (depth_ == collect_depth_) collect_depth_ = -1;
    --depth_;
    if (depth_ == 1 && !top_is_list_) in_list_ = false;
    return true;
  }

  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& error) override {
    std::string_view words = error.what();
    if (const size_t bracket = words.find("] "); bracket != std::string_view::npos)
      words.remove_prefix(bracket + 2);  // the library's own number of the error
    core::fail<core::DataError>("[data] {}: must be JSON but: {}", name_, core::printable(words));
  }

 private:
  template <class... Args>
  [[noreturn]] void refuse(const JsonRecord& record, fmt::format_string<Args...> format,
                           Args&&... args) {
    core::fail<core::DataError>("[data] {}: {}{}{}", name_, record.where(),
                                record.where().empty() ? "" : ": ",
                                fmt::format(format, std::forward<Args>(args)...));
  }

  /// The record whose keys and values come at this depth.
  JsonRecord* current() {
    if (depth_ == inner_depth_) return &inner_;
    return depth_ == 1 && !top_is_list_ ? &outer_ : nullptr;
  }

  /// True where an object that starts now is a record of a list.
  bool is_list_depth() const { return top_is_list_ ? depth_ == 1 : depth_ == 2 && in_list_; }

  bool value(JsonValue made) {
    if (depth_ == collect_depth_) {
      append(made);
    } else if (JsonRecord* record = current()) {
      record->fields.back().second = std::move(made);
    } else {
      check_place();
    }
    return true;
  }

  /// A list or object starts as a value; lists are taken for numbers until something else comes.
  void enter(Kind kind) {
    if (depth_ == collect_depth_) {
      stop_collecting();
    } else if (JsonRecord* record = current()) {
      JsonValue& field = record->fields.back().second;
      field.kind = kind;
      if (kind == Kind::numbers) {
        collected_ = &field;
        collect_depth_ = depth_ + 1;
      }
    } else if (kind == Kind::numbers) {
      check_place();
    }
  }

  void append(const JsonValue& made) {
    const bool fits = static_cast<int64_t>(collected_->numbers.size()) < limits_.max_numbers;
    if (made.is_number() && fits)
      collected_->numbers.push_back(made.number);
    else
      stop_collecting();
  }

  void stop_collecting() {
    collected_->kind = Kind::other;
    collected_->numbers.clear();
    collect_depth_ = -1;
  }

  void check_place() const {
    const bool is_entry = top_is_list_ && depth_ == 1;
    VT_REQUIRE(DataError, !is_entry, "[data] {}: [{}]: must be an object but is something else",
               name_, place_);
    VT_REQUIRE(DataError, depth_ > 0 || top_is_list_,
               "[data] {}: must hold a list or an object but holds a single value", name_);
  }

  const std::string& name_;
  const std::function<void(const JsonRecord&)>& take_;
  const JsonLimits& limits_;
  JsonRecord outer_, inner_;
  std::string list_;
  int64_t place_ = 0;
  int64_t depth_ = 0, inner_depth_ = -1, collect_depth_ = -1;
  bool top_is_list_ = false, in_list_ = false;
  JsonValue* collected_ = nullptr;
};

}  // namespace

const JsonValue* JsonRecord::find(std::string_view key) const {
  for (const auto& [known, value] : fields)
    if (known == key) return value.kind == Kind::null ? nullptr : &value;
  return nullptr;
}

std::string JsonRecord::where() const {
  return place < 0 ? "" : fmt::format("{}[{}]", core::printable(list), place);
}

void parse_json_records(std::string_view text, const std::string& name,
                        const std::function<void(const JsonRecord&)>& take,
                        const JsonLimits& limits) {
  RecordHandler handler(name, take, limits);
  nlohmann::json::sax_parse(text.begin(), text.end(), &handler);
}

}  // namespace vitrail::io

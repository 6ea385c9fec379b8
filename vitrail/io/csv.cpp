#include "vitrail/io/csv.h"

#include <algorithm>

#include "vitrail/core/error.h"

namespace vitrail::io {
namespace {

class CsvParser {
 public:
  CsvParser(std::string_view text, const std::string& name, char separator, const CsvLimits& limits)
      : text_(text), name_(name), separator_(separator), limits_(limits) {
    if (text_.starts_with("\xEF\xBB\xBF")) at_ = 3;
  }

  /// False at the end of the text.
  bool next(CsvRecord& record) {
    while (at_ < text_.size() && skip_blank_line()) {
    }
    if (at_ >= text_.size()) return false;
    record.line = line_;
    record.fields.clear();
    do {
      VT_REQUIRE(DataError, static_cast<int64_t>(record.fields.size()) < limits_.max_fields,
                 "[data] {}:{}: must have at most {} fields but has more", name_, line_,
                 limits_.max_fields);
      record.fields.push_back(at_ < text_.size() && text_[at_] == '"' ? quoted() : plain());
    } while (take_separator());
    take_line_end();
    return true;
  }

 private:
  /// Line ends are left to the caller.
  std::string plain() {
    const size_t start = at_;
    while (at_ < text_.size() && text_[at_] != separator_ && text_[at_] != '\n') {
      check(text_[at_]);
      ++at_;
    }
    size_t end = at_;
    const bool ends_line = at_ == text_.size() || text_[at_] == '\n';
    if (ends_line && end > start && text_[end - 1] == '\r') --end;
    check_length(end - start, line_);
    return std::string(text_.substr(start, end - start));
  }

  std::string quoted() {
    const int64_t opened = line_;
    std::string field;
    for (++at_;; ++at_) {
      VT_REQUIRE(DataError, at_ < text_.size(),
                 "[data] {}:{}: the quote that opens here is never closed", name_, opened);
      if (text_[at_] == '"') {
        if (at_ + 1 >= text_.size() || text_[at_ + 1] != '"') break;
        ++at_;  // a doubled quote is one
      }
      check(text_[at_]);
      if (text_[at_] == '\n') ++line_;
      field += text_[at_];
      check_length(field.size(), opened);
    }
    ++at_;
    if (at_ + 1 < text_.size() && text_[at_] == '\r' && text_[at_ + 1] == '\n') ++at_;
    if (at_ + 1 == text_.size() && text_[at_] == '\r') ++at_;
    VT_REQUIRE(DataError, at_ >= text_.size() || text_[at_] == separator_ || text_[at_] == '\n',
               "[data] {}:{}: a closing quote must be followed by '{}' or the end of the line",
               name_, line_, separator_);
    return field;
  }

  bool take_separator() {
    if (at_ >= text_.size() || text_[at_] != separator_) return false;
    ++at_;
    return true;
  }

  void take_line_end() {
    if (at_ < text_.size()) ++at_;
    ++line_;
  }

  bool skip_blank_line() {
    const size_t end = std::min(text_.find('\n', at_), text_.size());
    const std::string_view line = text_.substr(at_, end - at_);
    const bool is_blank =
        line.find_first_not_of(separator_ == '\t' ? " \r" : " \t\r") == std::string_view::npos;
    if (!is_blank) return false;
    at_ = end;
    take_line_end();
    return true;
  }

  void check(char letter) const {
    VT_REQUIRE(DataError, letter != '\0', "[data] {}:{}: must be text but holds a zero byte", name_,
               line_);
  }
  void check_length(size_t bytes, int64_t line) const {
    VT_REQUIRE(DataError, static_cast<int64_t>(bytes) <= limits_.max_field_bytes,
               "[data] {}:{}: a field must have at most {} bytes but this one has more; is a quote "
               "not closed?",
               name_, line, limits_.max_field_bytes);
  }

  std::string_view text_;
  const std::string& name_;
  char separator_;
  const CsvLimits& limits_;
  size_t at_ = 0;
  int64_t line_ = 1;
};

}  // namespace

void parse_csv_records(std::string_view text, const std::string& name, char separator,
                       const std::function<void(const CsvRecord&)>& take, const CsvLimits& limits) {
  CsvParser parser(text, name, separator, limits);
  for (CsvRecord record; parser.next(record);) take(record);
}

}  // namespace vitrail::io

#include "vitrail/io/npy_header.h"

#include <charconv>

#include "vitrail/core/error.h"
#include "vitrail/core/text.h"

namespace vitrail::io {
namespace {

/// Just enough of Python: a dictionary of strings, booleans and tuples of whole numbers.
class Parser {
 public:
  Parser(std::string_view text, const std::string& file) : rest_(text), file_(file) {}

  NpyHeader parse() {
    expect('{');
    while (!take('}')) {
      parse_entry();
      if (take('}')) break;
      expect(',');
    }
    skip_blanks();
    if (!rest_.empty()) refuse("nothing behind the dictionary");
    if (seen_ != 7) refuse("the keys descr, fortran_order and shape");
    return header_;
  }

 private:
  [[noreturn]] void refuse(std::string_view wanted) const {
    core::fail<core::DataError>("[data] {}: broken .npy header: expected {} but got '{}'", file_,
                                wanted, core::printable(rest_.substr(0, 40)));
  }

  void skip_blanks() {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\n'))
      rest_.remove_prefix(1);
  }

  bool take(char letter) {
    skip_blanks();
    if (!rest_.starts_with(letter)) return false;
    rest_.remove_prefix(1);
    return true;
  }

  bool take_word(std::string_view word) {
    skip_blanks();
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }

  void expect(char letter) {
    if (!take(letter)) refuse(fmt::format("'{}'", letter));
  }

  std::string_view string() {
    const char quote = take('\'') ? '\'' : '"';
    if (quote == '"') expect('"');
    const size_t end = rest_.find(quote);
    if (end == std::string_view::npos) refuse("the end of a string");
    const std::string_view value = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return value;
  }

  int64_t whole_number() {
    skip_blanks();
    int64_t value = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
    if (error != std::errc() || value < 0) refuse("a whole number that fits in 63 bits");
    rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
    take('L');  // Python 2 wrote 3L
    return value;
  }

  void tuple() {
    expect('(');
    while (!take(')')) {
      header_.shape.push_back(whole_number());
      if (take(')')) return;
      expect(',');
    }
  }

  void parse_entry() {
    const std::string_view key = string();
    expect(':');
    if (key == "descr") {
      once(1);
      header_.descr = string();
    } else if (key == "fortran_order") {
      once(2);
      header_.fortran_order = take_word("True");
      if (!header_.fortran_order && !take_word("False")) refuse("True or False");
    } else if (key == "shape") {
      once(4);
      tuple();
    } else {
      refuse(fmt::format("a known key before '{}'", core::printable(key)));
    }
  }

  void once(int bit) {
    if ((seen_ & bit) != 0) refuse("every key once");
    seen_ |= bit;
  }

  std::string_view rest_;
  const std::string& file_;
  NpyHeader header_;
  int seen_ = 0;
};

}  // namespace

NpyHeader parse_npy_header(std::string_view text, const std::string& file) {
  return Parser(text, file).parse();
}

}  // namespace vitrail::io

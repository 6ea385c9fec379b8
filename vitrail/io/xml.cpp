#include "vitrail/io/xml.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "vitrail/core/error.h"
#include "vitrail/core/text.h"

namespace vitrail::io {
namespace {

constexpr std::string_view kBlanks = " \t\r\n";

bool is_blank(char letter) { return kBlanks.find(letter) != std::string_view::npos; }

bool is_name_letter(char letter) {
  const auto byte = static_cast<unsigned char>(letter);
  return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
         (byte >= '0' && byte <= '9') || byte == '_' || byte == ':' || byte == '-' || byte == '.' ||
         byte >= 0x80;
}

void append_utf8(uint32_t code, std::string& text) {
  const auto add = [&](uint32_t byte) { text += static_cast<char>(byte); };
  const auto rest = [&](int shift) { add(0x80 | (code >> shift & 0x3F)); };
  if (code < 0x80) {
    add(code);
  } else if (code < 0x800) {
    add(0xC0 | code >> 6), rest(0);
  } else if (code < 0x10000) {
    add(0xE0 | code >> 12), rest(6), rest(0);
  } else {
    add(0xF0 | code >> 18), rest(12), rest(6), rest(0);
  }
}

void trim(std::string& text) {
  const size_t last = text.find_last_not_of(kBlanks);
  text.erase(last == std::string::npos ? 0 : last + 1);
  text.erase(0, std::min(text.find_first_not_of(kBlanks), text.size()));
}

class XmlParser {
 public:
  XmlParser(std::string_view text, const std::string& name, const XmlLimits& limits)
      : text_(text), name_(name), limits_(limits) {
    if (static_cast<int64_t>(text.size()) > limits.max_bytes)
      refuse("must have at most {} bytes but has {}", limits.max_bytes, text.size());
    if (text_.starts_with("\xEF\xBB\xBF")) at_ = 3;
  }

  XmlElement parse() {
    while (!done_) {
      if (open_.empty()) take_blanks();
      if (at_ >= text_.size()) refuse("ends before its root element does");
      if (text_[at_] == '<')
        take_markup();
      else
        take_text();
    }
    for (take_blanks(); at_ < text_.size(); take_blanks())
      if (!take_remark()) refuse("must end after its root element but goes on");
    return std::move(root_);
  }

 private:
  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    core::fail<core::DataError>("[data] {}:{}: {}", name_, line_,
                                fmt::format(format, std::forward<Args>(args)...));
  }

  bool next_is(std::string_view words) const { return text_.substr(at_).starts_with(words); }

  void skip(size_t letters) {
    line_ += std::count(text_.begin() + static_cast<ptrdiff_t>(at_),
                        text_.begin() + static_cast<ptrdiff_t>(at_ + letters), '\n');
    at_ += letters;
  }

  void take_blanks() {
    while (at_ < text_.size() && is_blank(text_[at_])) skip(1);
  }

  /// What lies before `end`, which is dropped.
  std::string_view take_until(std::string_view end, const char* what) {
    const size_t found = text_.find(end, at_);
    if (found == std::string_view::npos) refuse("{} is never closed", what);
    const std::string_view inside = text_.substr(at_, found - at_);
    skip(inside.size() + end.size());
    return inside;
  }

  /// A comment or an instruction.
  bool take_remark() {
    if (next_is("<!--")) {
      at_ += 4;
      take_until("-->", "a comment");
    } else if (next_is("<?")) {
      at_ += 2;
      take_until("?>", "an instruction");
    } else {
      return false;
    }
    return true;
  }

  void take_markup() {
    if (take_remark()) return;
    if (next_is("<![CDATA[") && !open_.empty()) {
      at_ += 9;
      open_.back().text += take_until("]]>", "a CDATA section");
    } else if (next_is("<!")) {
      refuse("document types and other declarations are not read");
    } else if (next_is("</")) {
      at_ += 2;
      take_end();
    } else {
      ++at_;
      take_start();
    }
  }

  std::string take_name() {
    const size_t start = at_;
    while (at_ < text_.size() && is_name_letter(text_[at_])) ++at_;
    if (at_ == start) refuse("a tag must have a name");
    return std::string(text_.substr(start, at_ - start));
  }

  void take_start() {
    XmlElement element;
    element.line = line_;
    element.name = take_name();
    if (static_cast<int64_t>(open_.size()) >= limits_.max_depth)
      refuse("elements must be nested at most {} deep", limits_.max_depth);
    for (take_blanks(); !next_is(">") && !next_is("/>"); take_blanks()) take_attribute();
    const bool is_empty = text_[at_] == '/';
    at_ += is_empty ? 2 : 1;
    open_.push_back(std::move(element));
    if (is_empty) close();
  }

  void take_attribute() {
    if (at_ >= text_.size()) refuse("a tag is never closed");
    take_name();
    take_blanks();
    if (!next_is("=")) refuse("an attribute must have a value");
    ++at_;
    take_blanks();
    if (!next_is("\"") && !next_is("'")) refuse("the value of an attribute must be quoted");
    const std::string quote(1, text_[at_++]);
    take_until(quote, "the value of an attribute");
  }

  void take_end() {
    const std::string name = take_name();
    take_blanks();
    if (!next_is(">")) refuse("the end tag of '{}' is never closed", core::printable(name));
    ++at_;
    const bool fits = !open_.empty() && open_.back().name == name;
    if (!fits)
      refuse("the end tag must be that of '{}' but is that of '{}'",
             open_.empty() ? "" : core::printable(open_.back().name), core::printable(name));
    close();
  }

  void close() {
    XmlElement element = std::move(open_.back());
    open_.pop_back();
    trim(element.text);
    if (open_.empty()) {
      root_ = std::move(element);
      done_ = true;
    } else {
      open_.back().children.push_back(std::move(element));
    }
  }

  void take_text() {
    if (open_.empty()) refuse("must start with a tag");
    const size_t end = std::min(text_.find_first_of("<&", at_), text_.size());
    open_.back().text += text_.substr(at_, end - at_);
    skip(end - at_);
    if (next_is("&")) take_entity();
  }

  void take_entity() {
    ++at_;
    constexpr size_t kLongest = 12;
    const size_t end = text_.substr(at_, kLongest).find(';');
    if (end == std::string_view::npos) refuse("an '&' must start an entity such as '&amp;'");
    const std::string_view entity = text_.substr(at_, end);
    static constexpr std::pair<std::string_view, char> kNamed[] = {
        {"lt", '<'}, {"gt", '>'}, {"amp", '&'}, {"quot", '"'}, {"apos", '\''}};
    std::string& text = open_.back().text;
    const auto* named = std::find_if(std::begin(kNamed), std::end(kNamed),
                                     [&](const auto& known) { return known.first == entity; });
    if (named != std::end(kNamed))
      text += named->second;
    else
      append_utf8(numbered(entity), text);
    at_ += entity.size() + 1;
  }

  uint32_t numbered(std::string_view entity) const {
    std::string_view digits = entity;
    uint32_t code = 0;
    if (digits.starts_with('#')) {
      digits.remove_prefix(1);
      const bool is_hex = digits.starts_with('x');
      if (is_hex) digits.remove_prefix(1);
      const auto [end, error] =
          std::from_chars(digits.data(), digits.data() + digits.size(), code, is_hex ? 16 : 10);
      const bool is_letter = code > 0 && code < 0x110000 && (code < 0xD800 || code > 0xDFFF);
      if (error == std::errc() && end == digits.data() + digits.size() && is_letter) return code;
    }
    refuse("entities must be lt, gt, amp, quot, apos or a number but got '{}'",
           core::printable(entity));
  }

  std::string_view text_;
  const std::string& name_;
  const XmlLimits& limits_;
  size_t at_ = 0;
  int64_t line_ = 1;
  std::vector<XmlElement> open_;  // from the root inwards
  XmlElement root_;
  bool done_ = false;
};

}  // namespace

const XmlElement* XmlElement::child(std::string_view wanted) const {
  for (const XmlElement& element : children)
    if (element.name == wanted) return &element;
  return nullptr;
}

XmlElement parse_xml(std::string_view text, const std::string& name, const XmlLimits& limits) {
  return XmlParser(text, name, limits).parse();
}

}  // namespace vitrail::io

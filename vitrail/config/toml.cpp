#include "vitrail/config/toml.h"

#include <cctype>

#include <fmt/format.h>

#include "vitrail/config/yaml.h"

namespace vitrail::config {
namespace {

class Parser {
 public:
  Parser(const std::string& text, const std::string& name, Problems& problems)
      : text_(text), name_(printable(name)), problems_(problems) {}

  Node parse() {
    root_ = map();
    section_ = &root_;
    while (at_ < text_.size() && ok_) {
      skip(/*lines=*/true);
      if (at_ >= text_.size()) break;
      if (text_[at_] == '[')
        table();
      else
        pair();
      if (ok_) end_of_line();
    }
    return std::move(root_);
  }

 private:
  Place place() const {
    const size_t start = text_.rfind('\n', at_ == 0 ? 0 : at_ - 1);
    const size_t column = at_ - (start == std::string::npos || at_ == 0 ? 0 : start + 1);
    return {name_, line_, static_cast<int>(column) + 1, true};
  }
  Node map() const {
    Node node{.kind = Node::Kind::map};
    node.place = place();
    return node;
  }
  void fail(const std::string& what) {
    if (ok_) problems_.add(place(), what);
    ok_ = false;
  }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  /// Spaces and comments, with `lines` ends of lines too.
  void skip(bool lines) {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '#') {
        while (at_ < text_.size() && text_[at_] != '\n') ++at_;
      } else if (c == '\n') {
        if (!lines) return;
        ++line_, ++at_;
      } else if (c == ' ' || c == '\t' || c == '\r') {
        ++at_;
      } else {
        return;
      }
    }
  }
  void end_of_line() {
    skip(false);
    if (at_ < text_.size() && peek() != '\n')
      fail(fmt::format("a line of TOML must end here but goes on with '{}'",
                       printable({&text_[at_], 1})));
  }

  std::string quoted() {
    const char mark = text_[at_++];
    std::string value;
    while (at_ < text_.size() && text_[at_] != mark && text_[at_] != '\n') {
      if (mark == '"' && text_[at_] == '\\' && at_ + 1 < text_.size())
        value += escaped(text_[++at_]);
      else
        value += text_[at_];
      ++at_;
    }
    if (peek() != mark)
      fail("a text must end on its line with " + std::string(1, mark));
    else
      ++at_;
    return value;
  }
  char escaped(char c) {
    if (c == 'n') return '\n';
    if (c == 't') return '\t';
    if (c == '"' || c == '\\') return c;
    fail(fmt::format("\\{} is not read in TOML texts; use \\n, \\t, \\\" or \\\\", c));
    return ' ';
  }
  static bool is_bare(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '-';
  }
  std::vector<std::string> key() {
    std::vector<std::string> parts;
    while (ok_) {
      skip(false);
      std::string part;
      if (peek() == '"' || peek() == '\'')
        part = quoted();
      else
        while (is_bare(peek())) part += text_[at_++];
      if (part.empty()) fail("a key of TOML must be made of letters, digits, _ and -, or quoted");
      parts.push_back(part);
      skip(false);
      if (peek() != '.') break;
      ++at_;
    }
    return parts;
  }
  /// The table at `parts` below `from`, made where it is missing.
  Node* descend(Node* from, const std::vector<std::string>& parts, size_t count) {
    for (size_t i = 0; i < count && ok_; ++i) {
      Node* next = from->find(parts[i]);
      if (!next) next = &from->set(parts[i], map());
      if (!next->is_map())
        fail(fmt::format("{} is a value and cannot hold keys", printable(parts[i])));
      from = next;
    }
    return from;
  }

  void table() {
    ++at_;
    if (peek() == '[') return fail("arrays of tables are not read");
    const std::vector<std::string> parts = key();
    if (!ok_) return;
    if (parts.size() > kMaxDepth) return fail("tables are nested too deeply");
    if (peek() != ']') return fail("the head of a table must end with ]");
    ++at_;
    section_ = descend(&root_, parts, parts.size());
  }
  void pair() {
    const Place start = place();
    const std::vector<std::string> parts = key();
    if (!ok_) return;
    if (parts.size() > kMaxDepth) return fail("keys are nested too deeply");
    if (peek() != '=') return fail("a key must be followed by = and a value");
    ++at_;
    skip(false);
    Node held = value(0);
    if (!ok_) return;
    held.place = start;
    Node* section = descend(section_, parts, parts.size() - 1);
    if (!ok_) return;
    if (section->find(parts.back()))
      return fail(fmt::format("{} is given twice", printable(parts.back())));
    section->set(parts.back(), std::move(held));
  }
  Node value(int depth) {
    if (depth > kMaxDepth || ++values_ > kMaxNodes) {
      fail("there are too many values, or nested too deeply");
      return {};
    }
    if (text_.compare(at_, 3, "\"\"\"") == 0 || text_.compare(at_, 3, "'''") == 0)
      fail("texts over several lines are not read");
    if (peek() == '"' || peek() == '\'') {
      const Place start = place();
      return make_scalar(quoted(), start, true);
    }
    if (peek() == '[') return list(depth);
    if (peek() == '{') fail("inline tables are not read");
    const Place start = place();
    std::string word;
    while (is_bare(peek()) || peek() == '.' || peek() == '+' || peek() == ':') word += text_[at_++];
    if (word.empty()) fail("a value must be a text, a number, true, false or a list");
    if (word.find(':') != std::string::npos) fail("dates and times are not read");
    return make_scalar(word, start);
  }
  Node list(int depth) {
    Node node{.kind = Node::Kind::list};
    node.place = place();
    ++at_;
    while (ok_) {
      skip(true);
      if (peek() == ']') break;
      node.items.push_back(value(depth + 1));
      skip(true);
      if (peek() == ',')
        ++at_;
      else if (peek() != ']')
        fail("a list must go on with , or end with ]");
    }
    ++at_;
    return node;
  }

  const std::string& text_;
  std::string name_;
  Problems& problems_;
  Node root_;
  Node* section_ = nullptr;
  size_t at_ = 0;
  int line_ = 1;
  int64_t values_ = 0;
  bool ok_ = true;
};

}  // namespace

Node parse_toml(const std::string& text, const std::string& name, Problems& problems) {
  return Parser(text, name, problems).parse();
}

}  // namespace vitrail::config

#include "vitrail/config/node.h"

#include <fmt/format.h>

namespace vitrail::config {

std::string Place::text() const {
  return line > 0 ? fmt::format("{}:{}:{}", source, line, column) : source;
}

const Node* Node::find(std::string_view key) const {
  for (const Entry& entry : entries)
    if (entry.key == key) return &entry.value;
  return nullptr;
}

Node* Node::find(std::string_view key) {
  return const_cast<Node*>(static_cast<const Node*>(this)->find(key));
}

Node& Node::set(const std::string& key, Node value) {
  if (Node* present = find(key)) return *present = std::move(value);
  Place key_place = value.place;
  entries.push_back({key, std::move(key_place), std::move(value)});
  return entries.back().value;
}

Node make_scalar(std::string text, Place place, bool quoted) {
  Node node;
  node.kind = Node::Kind::scalar;
  node.text = std::move(text);
  node.place = std::move(place);
  node.quoted = quoted;
  return node;
}

Node make_list(std::vector<Node> items, Place place) {
  Node node;
  node.kind = Node::Kind::list;
  node.items = std::move(items);
  node.place = std::move(place);
  return node;
}

std::string escape_controls(std::string_view text) {
  std::string line;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F)
      line += fmt::format("\\x{:02x}", byte);
    else
      line += c;
  }
  return line;
}

std::string printable(std::string_view text) {
  constexpr size_t kLimit = 80;
  if (text.size() <= kLimit) return escape_controls(text);
  size_t length = kLimit;  // not inside a character of several bytes
  while (length > 0 && (static_cast<unsigned char>(text[length]) & 0xC0) == 0x80) --length;
  return escape_controls(text.substr(0, length)) + "...";
}

std::string describe(const Node& node) {
  switch (node.kind) {
    case Node::Kind::null:
      return "null";
    case Node::Kind::list:
      return "a list";
    case Node::Kind::map:
      return "a map";
    case Node::Kind::scalar:
      break;
  }
  return fmt::format("'{}'{}", printable(node.text), node.quoted ? " in quotes" : "");
}

}  // namespace vitrail::config

#pragma once
/// What a recipe file says, before it is given a meaning: a small tree that remembers where each
/// value stands.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vitrail::config {

/// Where a value was written. `given` is true for what the user wrote (file, command line), false
/// for what a preset or a rule filled in.
struct Place {
  std::string source;  // "recipe.yaml", "command line: model.depth=4", "preset vit_tiny"
  int line = 0;        // 1-based; 0 outside files
  int column = 0;
  bool given = true;

  /// "recipe.yaml:6:10", or the source alone outside files.
  std::string text() const;
};

struct Entry;

struct Node {
  enum class Kind { null, scalar, list, map };

  Kind kind = Kind::null;
  Place place;
  std::string text;            // scalar
  bool quoted = false;         // scalar: text even where it looks like a number
  std::vector<Node> items;     // list
  std::vector<Entry> entries;  // map, in the order of the file, keys unique

  bool is_null() const { return kind == Kind::null; }
  bool is_scalar() const { return kind == Kind::scalar; }
  bool is_list() const { return kind == Kind::list; }
  bool is_map() const { return kind == Kind::map; }
  /// The value of `key`; null pointer when this is no map or has no such key.
  const Node* find(std::string_view key) const;
  Node* find(std::string_view key);
  /// Of a map: adds or replaces.
  Node& set(const std::string& key, Node value);
};

struct Entry {
  std::string key;
  Place key_place;
  Node value;
};

Node make_scalar(std::string text, Place place, bool quoted = false);
Node make_list(std::vector<Node> items, Place place);

/// Control characters as \x0a, so that text stays on one line.
std::string escape_controls(std::string_view text);
/// The same, cut after 80 bytes.
std::string printable(std::string_view text);
/// What a node is, for messages: 'twelve', a list, a map, null.
std::string describe(const Node& node);

}  // namespace vitrail::config

#pragma once
/// What the readers of foreign settings share: taking keys out of a tree, answering each, and finding the unknown ones.

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "vitrail/config/convert.h"
#include "vitrail/config/node.h"

namespace vitrail::config {

/// Values as people write them: 5e8 and "1e-4" are numbers, "True" is true. Nothing for anything else.
std::optional<double> as_number(const Node& node);
std::optional<int64_t> as_integer(const Node& node);
std::optional<bool> as_bool(const Node& node);
bool is_auto(const Node& node);
/// As in the file: auto, 1e-4, [0.9, 0.999], {3 keys}.
std::string value_text(const Node& node);

class Converter {
 public:
  /// `system`: whose file it is, for messages: "DeepSpeed". `root` is a map and outlives the converter.
  Converter(const Node& root, std::string file, std::string system);

  /// The value at "section.key", which counts as known from now on; null when the file has none, or null.
  const Node* take(const std::string& path);
  /// A section or list whose parts are answered one by one; the same otherwise.
  const Node* enter(const std::string& path);

  // Answers to a key that was taken; several may be given.
  /// The value lies over the recipe as key=value.
  void set(const std::string& path, const std::string& key, const std::string& value,
           const std::string& note = "");
  /// Nothing follows, and why.
  void note(const std::string& path, const std::string& why);
  /// A line without a key of the file.
  void derive(const std::string& key, const std::string& value, const std::string& why);
  /// The file asks for what cannot be done.
  void refuse(const std::string& path, const std::string& why);

  // Reads and answers what cannot be read. Nothing for a missing key, "auto" (see auto_note) or a bad value.
  std::optional<double> number(const std::string& path);
  std::optional<int64_t> integer(const std::string& path);
  std::optional<bool> boolean(const std::string& path);
  std::optional<std::string> text(const std::string& path);
  std::vector<int64_t> integers(const std::string& path);
  /// What "auto" means for the numbers and switches that are read from here on.
  void auto_means(std::string note) { auto_note_ = std::move(note); }

  bool has(const std::string& path) const;
  /// Every key that none of the above took becomes a line with the nearest known name. Call it last.
  Conversion finish();

 private:
  const Node* find(const std::string& path) const;
  void bad(const std::string& path, const Node& node, const std::string& expected);
  template <class T, class Read>
  std::optional<T> read(const std::string& path, const char* expected, Read&& as);
  void collect(const Node& node, const std::string& path, std::vector<ConvertedLine>& lines) const;
  std::string unknown(const std::string& path) const;

  const Node& root_;
  std::string system_;
  std::string auto_note_ = "auto: the recipe's value stays";
  Conversion result_;
  std::set<std::string> known_, entered_;
  std::map<std::string, std::vector<ConvertedLine>> answers_;  // by path
  std::vector<ConvertedLine> derived_;
};

/// Numbers as recipes have them: 5e-05, 762.9.
std::string recipe_number(double value);
/// Text as recipes have it, quoted where it must be.
std::string recipe_text(const std::string& value);

}  // namespace vitrail::config

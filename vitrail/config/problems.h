#pragma once
/// Collects everything that is wrong with a recipe, so that it is reported at once.

#include <set>
#include <string>
#include <vector>

#include "vitrail/config/node.h"

namespace vitrail::config {

class Problems {
 public:
  /// `text` without "[config]" and without the place; both are added.
  void add(const Place& place, const std::string& text);
  /// The same with other words for the place; `order` tells where the line belongs.
  void add(const Place& order, const std::string& text, const std::string& place);
  /// The same about one key, which from now on counts as unreadable.
  void add_about(const std::string& key, const Place& place, const std::string& text);
  /// True when a problem was added about `key` itself, about a section that holds it, or about a
  /// part of it: rules must not judge the default that stands in for it.
  bool concerns(const std::string& key) const;
  bool empty() const { return lines_.empty(); }
  size_t size() const { return lines_.size(); }
  /// One line a problem, in the order of the file, then the command line.
  std::string text() const;
  /// throws ConfigError with all of them, if any.
  void throw_if_any() const;

 private:
  struct Line {
    bool outside_file;
    int line, column;
    std::string text;
  };
  std::vector<Line> lines_;
  std::set<std::string> keys_;
};

/// "[config] text  (place)", the place left out when empty.
std::string problem_line(const std::string& text, const std::string& place);

}  // namespace vitrail::config

#include "vitrail/config/problems.h"

#include <algorithm>
#include <tuple>

#include "vitrail/core/error.h"

namespace vitrail::config {

namespace {

/// More lines than this help nobody; the rest is counted.
constexpr size_t kMostLines = 100;

/// True when `outer` is `inner` or a section that holds it: "model" holds "model.depth", "a" holds
/// "a[0]".
bool holds(const std::string& outer, const std::string& inner) {
  return inner.compare(0, outer.size(), outer) == 0 &&
         (inner.size() == outer.size() || inner[outer.size()] == '.' || inner[outer.size()] == '[');
}

}  // namespace

std::string problem_line(const std::string& text, const std::string& place) {
  const std::string line = escape_controls(text);  // names and values may hold anything
  return place.empty() ? fmt::format("[config] {}", line)
                       : fmt::format("[config] {}  ({})", line, escape_controls(place));
}

void Problems::add(const Place& place, const std::string& text) { add(place, text, place.text()); }

void Problems::add(const Place& order, const std::string& text, const std::string& place) {
  lines_.push_back({order.line == 0, order.line, order.column, problem_line(text, place)});
}

void Problems::add_about(const std::string& key, const Place& place, const std::string& text) {
  keys_.insert(key);
  add(place, fmt::format("{} {}", key, text));
}

bool Problems::concerns(const std::string& key) const {
  return std::any_of(keys_.begin(), keys_.end(), [&](const std::string& known) {
    return holds(known, key) || holds(key, known);
  });
}

std::string Problems::text() const {
  std::vector<Line> lines = lines_;
  std::stable_sort(lines.begin(), lines.end(), [](const Line& a, const Line& b) {
    return std::tie(a.outside_file, a.line, a.column) < std::tie(b.outside_file, b.line, b.column);
  });
  std::string text;
  for (size_t i = 0; i < std::min(lines.size(), kMostLines); ++i)
    text += (i ? "\n" : "") + lines[i].text;
  if (lines.size() > kMostLines)
    text += fmt::format("\n[config] and {} more problems", lines.size() - kMostLines);
  return text;
}

void Problems::throw_if_any() const {
  if (!lines_.empty()) throw core::ConfigError(text());
}

}  // namespace vitrail::config

#include "vitrail/config/nearest.h"

#include <algorithm>
#include <cctype>

namespace vitrail::config {

namespace {

/// Longer words are no slip of the hand, and the table is quadratic.
constexpr size_t kLongest = 64;

std::string plain_form(std::string_view word) {
  std::string form;
  for (const char c : word)
    form += c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return form;
}

}  // namespace

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<int>> table(a.size() + 1, std::vector<int>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) table[i][0] = static_cast<int>(i);
  for (size_t j = 0; j <= b.size(); ++j) table[0][j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i)
    for (size_t j = 1; j <= b.size(); ++j) {
      int best = std::min(table[i - 1][j], table[i][j - 1]) + 1;
      best = std::min(best, table[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        best = std::min(best, table[i - 2][j - 2] + 1);
      table[i][j] = best;
    }
  return table[a.size()][b.size()];
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  if (word.empty() || word.size() > kLongest) return "";
  const std::string given = plain_form(word);
  std::string found;
  int least = std::max(1, static_cast<int>(word.size()) / 3) + 1;
  for (const std::string& candidate : candidates) {
    const int distance = edit_distance(given, plain_form(candidate));
    if (distance < least) {
      least = distance;
      found = candidate;
    }
  }
  return found;
}

}  // namespace vitrail::config

#include "vitrail/core/did_you_mean.h"

#include <algorithm>
#include <cctype>
#include <vector>

namespace vitrail::core {
namespace {

/// Lower case, with '-' as '_': neither is what the writer got wrong.
std::string plain_form(std::string_view text) {
  std::string result(text);
  for (char& letter : result)
    letter =
        letter == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
  return result;
}

/// Restricted Damerau-Levenshtein: a swapped pair is not edited again. Three rows are enough.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before_last(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
    std::swap(before_last, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

}  // namespace

std::string nearest_word(std::string_view word, std::span<const std::string> candidates) {
  constexpr size_t kLongest = 256;  // nobody mistypes a word of this length; keeps the cost bounded
  if (word.empty() || word.size() > kLongest) return "";
  const std::string wanted = plain_form(word);
  size_t best = std::max<size_t>(1, word.size() / 3) + 1;
  const std::string* nearest = nullptr;
  for (const std::string& candidate : candidates) {
    if (candidate.size() > kLongest) continue;
    const size_t steps = distance(wanted, plain_form(candidate));
    // As many edits as letters turn anything into anything.
    if (steps < best && steps < std::max(word.size(), candidate.size())) {
      best = steps;
      nearest = &candidate;
    }
  }
  return nearest ? *nearest : "";
}

}  // namespace vitrail::core

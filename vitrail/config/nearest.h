#pragma once
/// "did you mean": the nearest of a list of names.

#include <string>
#include <string_view>
#include <vector>

namespace vitrail::config {

/// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b` (optimal
/// string alignment).
int edit_distance(std::string_view a, std::string_view b);

/// The candidate nearest to `word`, upper and lower case and '-' and '_' counted as equal; empty
/// when none is near enough to be a slip of the hand. The first of equals wins.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace vitrail::config

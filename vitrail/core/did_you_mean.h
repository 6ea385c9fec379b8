#pragma once
/// The word that was probably meant.

#include <span>
#include <string>
#include <string_view>

namespace vitrail::core {

/// The candidate nearest to `word` by Damerau-Levenshtein distance (insert, delete, replace, swap
/// of neighbours; case and '-' for '_' ignored); empty if none is nearer than about a third of the word's length.
/// The first of equals wins.
std::string nearest_word(std::string_view word, std::span<const std::string> candidates);

}  // namespace vitrail::core

#pragma once
/// Keys and words that recipes of later versions hold. They are refused by name, so that nobody
/// hunts for a typo.

#include <string>
#include <vector>

#include "vitrail/config/node.h"

namespace vitrail::config {

/// `path` like "model.mixed_resolution" or "data.sources[2].array".
bool is_key_not_yet(const std::string& path);
/// True for the value that asks for nothing, e.g. use_all_data: false; such a key is allowed and has no
/// effect.
bool is_neutral(const std::string& path, const Node& value);
/// "; ..." what to do instead, or empty.
std::string hint_of_key(const std::string& path);
/// For a word of a Choice that this version lacks: the end of the message. Empty for any other word.
std::string word_not_yet(const std::string& path, const Node& value);

struct NotYet {
  std::string key;                   // "data.sources[].array"
  std::vector<std::string> words;    // empty: the key itself is missing
  std::vector<std::string> neutral;  // of a key: values that ask for nothing
  std::string hint;                  // what to do instead
};
/// The whole table, for the reference page.
const std::vector<NotYet>& not_yet_table();

}  // namespace vitrail::config

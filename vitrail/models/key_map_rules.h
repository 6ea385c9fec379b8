#pragma once
/// The names of other programs, as tables. key_map.cpp runs them in both directions.

#include <string>
#include <vector>

#include "vitrail/models/key_map.h"

namespace vitrail::models {

/// The tensors `ours`, joined along the first axis, hold the rows of the tensors `theirs`, joined. Names are prefixes
/// when they end in '.', else whole names; '#' stands for a block number. One side has one name.
struct Rule {
  std::vector<std::string> ours, theirs;
};

/// One way in which a program names its tensors.
struct Form {
  std::vector<Rule> rules;
  /// Written for models that have all of these parts in names of ours; empty = for every model.
  std::vector<std::string> needs;
  /// Written before names of theirs, but for those that begin with one of `outside`, when one of ours begins with one
  /// of `wrapped_if`.
  std::string wrapper;
  std::vector<std::string> wrapped_if, outside;
  bool written = true;  // false: only read
};

/// The rows that a program's position table has before those of the patches.
enum class PositionRows { all, class_token, none };

struct Scheme {
  Naming naming;
  /// Parts of names that only this program has; one is enough to know it.
  std::vector<std::string> marks;
  /// Taken off the front of names when reading.
  std::vector<std::string> wrappers;
  /// All are read; the first whose needs are met is written.
  std::vector<Form> forms;
  PositionRows positions = PositionRows::all;
  /// Names without a rule are the same in both programs; otherwise such a tensor cannot be written.
  bool same_otherwise = false;
  /// Not written, and why: {"decoder_", "..."}.
  std::vector<std::pair<std::string, std::string>> not_written;
};

/// All but vitrail, in the order in which marks are looked for.
const std::vector<Scheme>& schemes();

/// Tensors that a program keeps in its files and never reads in the forward pass get this prefix in our files, so that
/// they find their way back.
inline constexpr const char* kUnused = "unused.";

/// A patch embedding as a linear layer over (p, q, ..., channel), MONAI's "perceptron".
inline constexpr const char* kLinearPatch = "patch_embed.linear.";

}  // namespace vitrail::models

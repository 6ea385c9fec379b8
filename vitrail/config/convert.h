#pragma once
/// Other programs' settings as recipe keys: DeepSpeed JSON, UCF-VIT YAML, torchtitan-mae TOML. Every key of the file is
/// answered: set, always so, without counterpart, or unknown with the nearest name.

#include <cstdint>
#include <string>
#include <vector>

#include "vitrail/config/layered.h"
#include "vitrail/config/recipe.h"

namespace vitrail::config {

/// What became of one key.
struct ConvertedLine {
  std::string key, value;  // of the file; "" and "" for what no key of it said
  std::string target;      // "train.precision=fp16", or "" when no key of ours follows
  std::string note;
};

struct Conversion {
  std::string file;
  std::vector<ConvertedLine> lines;  // in the order of the file
  std::vector<Setting> settings;     // to be laid over a recipe, in order
  std::vector<std::string>
      problems;  // what the file asks for and vitrail cannot do; complete messages

  /// One row a line, in columns.
  std::string table() const;
  /// throws ConfigError with all problems.
  void throw_if_any() const;
};

struct ConvertOptions {
  /// What the settings will be laid over: keys left to it ("auto") keep its values.
  Recipe base;
  int64_t data_ranks = 0;  // 0: those that the file is written for
};

/// throws ConfigError when the text cannot be read as JSON, YAML or TOML. `name` stands for the file in messages.
Conversion convert_deepspeed(const std::string& json, const std::string& name,
                             const ConvertOptions& options = {});
Conversion convert_ucf_vit(const std::string& yaml, const std::string& name,
                           const ConvertOptions& options = {});
Conversion convert_torchtitan_mae(const std::string& toml, const std::string& name,
                                  const ConvertOptions& options = {});

/// A short recipe: `recipe` (YAML, may be empty) with the settings laid over it, without comments and defaults.
std::string merged_yaml(const std::string& recipe, const std::string& name,
                        const std::vector<Setting>& settings);

}  // namespace vitrail::config

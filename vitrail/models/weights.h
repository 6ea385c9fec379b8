#pragma once
/// Weights files: safetensors in any known naming, in and out of a model.

#include <map>
#include <string>
#include <vector>

#include "vitrail/models/key_map.h"
#include "vitrail/models/model.h"

namespace vitrail::models {

/// What a load did. Names are the model's.
struct LoadReport {
  std::string source;
  int64_t loaded = 0;
  std::vector<std::string> missing;     // parameters the source lacks
  std::vector<std::string> unexpected;  // tensors of the source that the model lacks
  std::vector<std::string> mismatched;  // "'head.weight' must be [10, 64] but is [1000, 64]"
  bool complete() const { return missing.empty() && unexpected.empty() && mismatched.empty(); }
  /// "w.safetensors: 152 tensors loaded", or with what was not: the first few names of each kind.
  std::string describe() const;
};

/// All tensors of a safetensors file, in the file's order, as CPU copies in their own type.
std::vector<nn::NamedTensor> read_tensors(const std::string& path);
/// Writes CPU or device tensors, whole file or nothing. `metadata` is stored as text.
void write_tensors(const std::string& path, const std::vector<nn::NamedTensor>& tensors,
                   const std::map<std::string, std::string>& metadata = {});

/// Parameters and fixed tensors of a model, detached.
std::vector<nn::NamedTensor> model_tensors(Model& model);

/// Copies tensors under our names into the model, converting types. Fixed tensors (sin-cos tables) may be absent.
/// throws CheckpointError naming source and tensors when `strict` and anything is missing, unexpected or of another
/// shape; without strict such tensors are skipped and reported.
LoadReport load_tensors(Model& model, const std::vector<nn::NamedTensor>& tensors, bool strict,
                        const std::string& source);

/// The same from a file; `from` is a naming scheme or "auto".
LoadReport load_weights(Model& model, const std::string& path, const std::string& from = "auto",
                        bool strict = true);

/// Writes the model's tensors in fp32 under the names of `to`.
void save_weights(Model& model, const std::string& path, Naming to = Naming::vitrail);

/// File to file: renames without touching values. Returns the number of tensors written.
int64_t import_weights(const std::string& path, const std::string& from, const std::string& output);
int64_t export_weights(const std::string& path, const std::string& to, const std::string& output);

/// A table of names, types, shapes and counts.
std::string inspect_weights(const std::string& path);
/// One line a tensor that differs (shape, type or value, with the largest absolute difference), then a summary.
std::string diff_weights(const std::string& first, const std::string& second);

}  // namespace vitrail::models

#pragma once
/// Weights files: safetensors in any known naming, in and out of a model.

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "vitrail/models/key_map.h"
#include "vitrail/models/model.h"

namespace vitrail::models {

/// How a file is to be read into a model.
struct LoadOptions {
  std::string from = "auto";  // a naming scheme or "auto"
  bool strict = true;
  bool adapt = false;               // see adapt.h
  std::vector<int64_t> image_size;  // of the model
  int64_t patch_size = 0;
};
/// As model.weights and the sizes of a recipe say.
LoadOptions load_options(const config::Model& model);

/// What a load did. Names are the model's.
struct LoadReport {
  std::string source;
  int64_t loaded = 0;
  std::vector<std::string> missing;     // parameters the source lacks
  std::vector<std::string> unexpected;  // tensors of the source that the model lacks
  std::vector<std::string> mismatched;  // "'head.weight' must be [10, 64] but is [1000, 64]"
  std::vector<std::string> unused;      // what another program stores but no forward pass reads
  std::vector<std::pair<std::string, std::string>> changed;  // (tensor, what was done to it)
  bool complete() const { return missing.empty() && unexpected.empty() && mismatched.empty(); }
  /// One line: "w.safetensors: 152 tensors loaded", and every name that did not match, names of blocks taken together:
  /// "12 missing: blocks.[0-11].ls1.gamma".
  std::string describe() const;
  /// The same in a line a tensor, the first line being the summary.
  std::vector<std::string> lines() const;
};

/// Names that differ by their first number only, taken together: "blocks.[0-3, 7].attn.qkv.bias".
std::vector<std::string> compact(const std::vector<std::string>& names);

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
LoadReport load_tensors(Model& model, const std::vector<nn::NamedTensor>& tensors,
                        const LoadOptions& options, const std::string& source);

/// The same from a file in any naming. An MAE goes into a UNETR, SAP or ViT without strict: its decoder is reported as
/// unexpected, the convolutions or the head as missing.
LoadReport load_weights(Model& model, const std::string& path, const LoadOptions& options);
LoadReport load_weights(Model& model, const std::string& path, const std::string& from = "auto",
                        bool strict = true);

/// Writes the model's tensors in fp32 under the names of `to`; image_size as in key_map.h.
void save_weights(Model& model, const std::string& path, Naming to = Naming::vitrail,
                  const std::vector<int64_t>& image_size = {});

/// What a change of names wrote: the number of tensors, and a line for everything beyond renaming.
struct Converted {
  int64_t tensors = 0;
  Naming from = Naming::vitrail, to = Naming::vitrail;
  std::vector<std::string> lines;
};
/// File to file, values untouched but for what key_map.h says. image_size as there.
Converted import_weights(const std::string& path, const std::string& from,
                         const std::string& output, const std::vector<int64_t>& image_size = {});
Converted export_weights(const std::string& path, const std::string& to, const std::string& output,
                         const std::vector<int64_t>& image_size = {});

/// A table of names, types, shapes and counts.
std::string inspect_weights(const std::string& path);
/// One line a tensor that differs (shape, type or value, with the largest absolute difference), then a summary.
std::string diff_weights(const std::string& first, const std::string& second);

}  // namespace vitrail::models

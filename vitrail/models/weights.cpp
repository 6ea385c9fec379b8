#include "vitrail/models/weights.h"

#include <cstring>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/io/safetensors.h"
#include "vitrail/models/adapt.h"
#include "vitrail/models/key_map_rules.h"
#include "vitrail/models/weights_report.h"
#include "vitrail/ops/dtype.h"

namespace vitrail::models {
namespace {

/// Whether `entry` fits into `target`; reports the other shape when not.
bool fits(const nn::NamedTensor& entry, const at::Tensor& target, LoadReport& report) {
  if (entry.tensor.sizes() == target.sizes()) return true;
  report.mismatched.push_back(fmt::format("'{}' must be [{}] but is [{}]", entry.name,
                                          fmt::join(target.sizes(), ", "),
                                          fmt::join(entry.tensor.sizes(), ", ")));
  return false;
}

Naming naming_of(const std::string& word, const std::vector<nn::NamedTensor>& tensors) {
  return word == "auto" ? detect_naming(tensors) : parse_naming(word);
}

/// Patches along each axis; empty when the options do not say.
std::vector<int64_t> grid_of(const LoadOptions& options) {
  std::vector<int64_t> grid;
  if (options.patch_size > 0)
    for (const int64_t side : options.image_size) grid.push_back(side / options.patch_size);
  return grid;
}

std::vector<std::string> lines_of(const Renamed& renamed) {
  std::vector<std::string> lines;
  for (const auto& [name, what] : renamed.notes) lines.push_back(name + ": " + what);
  return lines;
}

}  // namespace

std::vector<nn::NamedTensor> read_tensors(const std::string& path) {
  const io::SafetensorsFile file = io::SafetensorsFile::open(path);
  std::vector<nn::NamedTensor> tensors;
  for (const std::string& name : file.names()) {
    const io::SafetensorsInfo& info = file.info(name);
    at::Tensor tensor = at::empty(info.shape, ops::scalar_type(info.dtype));
    const std::span<const std::byte> bytes = file.bytes(name);
    if (!bytes.empty()) std::memcpy(tensor.mutable_data_ptr(), bytes.data(), bytes.size());
    tensors.push_back({name, tensor});
  }
  return tensors;
}

void write_tensors(const std::string& path, const std::vector<nn::NamedTensor>& tensors,
                   const std::map<std::string, std::string>& metadata) {
  std::vector<at::Tensor> kept_alive;
  std::vector<io::TensorToWrite> entries;
  for (const nn::NamedTensor& entry : tensors) {
    const at::Tensor& tensor =
        kept_alive.emplace_back(entry.tensor.detach().to(at::kCPU).contiguous());
    entries.push_back({entry.name, ops::dtype_of(tensor.scalar_type()), tensor.sizes().vec(),
                       tensor.const_data_ptr()});
  }
  io::write_safetensors(path, entries, metadata);
}

std::vector<nn::NamedTensor> model_tensors(Model& model) {
  std::vector<nn::NamedTensor> tensors;
  for (const nn::NamedTensor& parameter : model.named_parameters())
    tensors.push_back({parameter.name, parameter.tensor.detach()});
  for (const nn::NamedTensor& fixed : model.fixed_tensors()) tensors.push_back(fixed);
  return tensors;
}

LoadOptions load_options(const config::Model& model) {
  return {model.weights.from.value, model.weights.strict, model.weights.adapt, model.image_size,
          model.patch_size};
}

LoadReport load_tensors(Model& model, const std::vector<nn::NamedTensor>& tensors, bool strict,
                        const std::string& source) {
  LoadOptions options;
  options.strict = strict;
  return load_tensors(model, tensors, options, source);
}

LoadReport load_tensors(Model& model, const std::vector<nn::NamedTensor>& tensors,
                        const LoadOptions& options, const std::string& source) {
  const at::NoGradGuard no_grad;
  const Wanted wanted = wanted_of(model, grid_of(options));
  const Adapted adapted = options.adapt ? adapt(tensors, wanted) : fit(tensors, wanted);
  LoadReport report;
  report.source = source;
  report.changed = adapted.notes;
  std::map<std::string, at::Tensor> absent = wanted.parameters;
  for (const std::string& name : adapted.fresh) absent.erase(name);
  std::vector<const nn::NamedTensor*> matched;
  for (const nn::NamedTensor& entry : adapted.tensors) {
    if (entry.name.starts_with(kUnused)) {
      report.unused.push_back(entry.name.substr(std::strlen(kUnused)));
      continue;
    }
    const auto parameter = wanted.parameters.find(entry.name);
    const auto table = wanted.fixed.find(entry.name);
    if (parameter == wanted.parameters.end() && table == wanted.fixed.end()) {
      report.unexpected.push_back(entry.name);
      continue;
    }
    absent.erase(entry.name);
    if (fits(entry, parameter != wanted.parameters.end() ? parameter->second : table->second,
             report))
      matched.push_back(&entry);
  }
  for (const auto& [name, tensor] : absent) report.missing.push_back(name);
  if (options.strict) check_complete(report, options.adapt);
  for (const nn::NamedTensor* entry : matched) {
    if (const auto parameter = wanted.parameters.find(entry->name);
        parameter != wanted.parameters.end())
      at::Tensor(parameter->second).copy_(entry->tensor);
    else
      model.set_fixed_tensor(entry->name, entry->tensor);
    ++report.loaded;
  }
  return report;
}

LoadReport load_weights(Model& model, const std::string& path, const LoadOptions& options) {
  const std::vector<nn::NamedTensor> theirs = read_tensors(path);
  const Renamed ours = import_names(theirs, naming_of(options.from, theirs), options.image_size);
  LoadReport report = load_tensors(model, ours.tensors, options, path);
  report.changed.insert(report.changed.begin(), ours.notes.begin(), ours.notes.end());
  return report;
}

LoadReport load_weights(Model& model, const std::string& path, const std::string& from,
                        bool strict) {
  LoadOptions options;
  options.from = from, options.strict = strict;
  return load_weights(model, path, options);
}

void save_weights(Model& model, const std::string& path, Naming to,
                  const std::vector<int64_t>& image_size) {
  std::vector<nn::NamedTensor> tensors = model_tensors(model);
  for (nn::NamedTensor& entry : tensors) entry.tensor = entry.tensor.to(at::kCPU, at::kFloat);
  write_tensors(path, export_names(tensors, to, image_size).tensors, {{"format", "pt"}});
}

Converted import_weights(const std::string& path, const std::string& from,
                         const std::string& output, const std::vector<int64_t>& image_size) {
  const std::vector<nn::NamedTensor> theirs = read_tensors(path);
  const Naming naming = naming_of(from, theirs);
  const Renamed ours = import_names(theirs, naming, image_size);
  write_tensors(output, ours.tensors, {{"format", "pt"}});
  return {static_cast<int64_t>(ours.tensors.size()), naming, Naming::vitrail, lines_of(ours)};
}

Converted export_weights(const std::string& path, const std::string& to, const std::string& output,
                         const std::vector<int64_t>& image_size) {
  const Naming naming = parse_naming(to);
  const Renamed theirs = export_names(read_tensors(path), naming, image_size);
  // The Python library's reader wants to know which framework's layout this is.
  write_tensors(output, theirs.tensors, {{"format", "pt"}});
  return {static_cast<int64_t>(theirs.tensors.size()), Naming::vitrail, naming, lines_of(theirs)};
}

std::string inspect_weights(const std::string& path) {
  const io::SafetensorsFile file = io::SafetensorsFile::open(path);
  std::vector<nn::NamedTensor> names;
  std::string table;
  int64_t values = 0;
  size_t width = 4;
  for (const std::string& name : file.names()) width = std::max(width, name.size());
  for (const std::string& name : file.names()) {
    const io::SafetensorsInfo& info = file.info(name);
    table += fmt::format("{:<{}}  {:<4}  {:>12}  [{}]\n", name, width, core::name(info.dtype),
                         info.count(), fmt::join(info.shape, ", "));
    values += info.count();
    names.push_back({name, {}});
  }
  for (const auto& [key, text] : file.metadata())
    table += fmt::format("metadata {} = {}\n", key, text);
  return table + fmt::format("{} tensors, {} values, names as in {}\n", names.size(), values,
                             name(detect_naming(names)));
}

namespace {

/// What differs between two tensors, empty when nothing; `largest` grows to the largest difference seen.
std::string difference(const at::Tensor& a, const at::Tensor& b, double& largest) {
  if (a.sizes() != b.sizes())
    return fmt::format("[{}] and [{}]", fmt::join(a.sizes(), ", "), fmt::join(b.sizes(), ", "));
  if (a.scalar_type() != b.scalar_type())
    return fmt::format("{} and {}", c10::toString(a.scalar_type()), c10::toString(b.scalar_type()));
  if (std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0) return "";
  const double worst = a.to(at::kDouble).sub(b.to(at::kDouble)).abs().max().item<double>();
  largest = std::max(largest, worst);
  return fmt::format("largest absolute difference {:.3e}", worst);
}

}  // namespace

std::string diff_weights(const std::string& first, const std::string& second) {
  std::map<std::string, at::Tensor> others;
  for (const nn::NamedTensor& entry : read_tensors(second)) others[entry.name] = entry.tensor;
  std::string lines;
  int64_t equal = 0, different = 0;
  double largest = 0.0;
  for (const nn::NamedTensor& entry : read_tensors(first)) {
    const auto other = others.find(entry.name);
    const std::string what = other == others.end()
                                 ? "only in " + first
                                 : difference(entry.tensor, other->second, largest);
    if (other != others.end()) others.erase(other);
    what.empty() ? ++equal : ++different;
    if (!what.empty()) lines += fmt::format("{}: {}\n", entry.name, what);
  }
  for (const auto& [name, tensor] : others) lines += fmt::format("{}: only in {}\n", name, second);
  different += static_cast<int64_t>(others.size());
  return lines + fmt::format("{} tensors equal, {} differ; largest absolute difference {:.3e}\n",
                             equal, different, largest);
}

}  // namespace vitrail::models

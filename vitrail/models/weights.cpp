#include "vitrail/models/weights.h"

#include <cstring>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/io/safetensors.h"
#include "vitrail/ops/dtype.h"

namespace vitrail::models {
namespace {

/// "a, b, c and 5 more"
std::string first_few(const std::vector<std::string>& names) {
  constexpr size_t kShown = 4;
  const size_t shown = std::min(names.size(), kShown);
  std::string text = fmt::format("{}", fmt::join(names.begin(), names.begin() + shown, ", "));
  if (names.size() > shown) text += fmt::format(" and {} more", names.size() - shown);
  return text;
}

/// "; 3 missing: a, b, c", or nothing.
std::string clause(const char* what, const std::vector<std::string>& names) {
  return names.empty() ? "" : fmt::format("; {} {}: {}", names.size(), what, first_few(names));
}

void check_complete(const LoadReport& report) {
  VT_REQUIRE(CheckpointError, report.mismatched.empty(),
             "[weights] {}: {}; model.image_size, patch_size, num_classes and sizes must be those "
             "of the file, or set "
             "model.weights.strict=false to skip such tensors",
             report.source, first_few(report.mismatched));
  VT_REQUIRE(CheckpointError, report.complete(),
             "[weights] {} must hold exactly the model's tensors{}{}; model.weights.strict=false "
             "loads what matches",
             report.source, clause("missing", report.missing),
             clause("unexpected", report.unexpected));
}

/// Moves `entry` into `target` or reports the other shape; true when loaded.
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

}  // namespace

std::string LoadReport::describe() const {
  return fmt::format("{}: {} tensors loaded{}{}{}", source, loaded, clause("missing", missing),
                     clause("unexpected", unexpected), clause("of another shape", mismatched));
}

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

LoadReport load_tensors(Model& model, const std::vector<nn::NamedTensor>& tensors, bool strict,
                        const std::string& source) {
  const at::NoGradGuard no_grad;
  LoadReport report{source, 0, {}, {}, {}};
  std::map<std::string, at::Tensor> parameters, fixed;
  for (const nn::NamedTensor& parameter : model.named_parameters())
    parameters[parameter.name] = parameter.tensor;
  for (const nn::NamedTensor& entry : model.fixed_tensors()) fixed[entry.name] = entry.tensor;
  std::map<std::string, at::Tensor> absent = parameters;
  std::vector<const nn::NamedTensor*> matched;
  for (const nn::NamedTensor& entry : tensors) {
    const auto parameter = parameters.find(entry.name);
    const auto table = fixed.find(entry.name);
    if (parameter == parameters.end() && table == fixed.end()) {
      report.unexpected.push_back(entry.name);
      continue;
    }
    absent.erase(entry.name);
    if (fits(entry, parameter != parameters.end() ? parameter->second : table->second, report))
      matched.push_back(&entry);
  }
  for (const auto& [name, tensor] : absent) report.missing.push_back(name);
  if (strict) check_complete(report);
  for (const nn::NamedTensor* entry : matched) {
    if (const auto parameter = parameters.find(entry->name); parameter != parameters.end())
      parameter->second.copy_(entry->tensor);
    else
      model.set_fixed_tensor(entry->name, entry->tensor);
    ++report.loaded;
  }
  return report;
}

LoadReport load_weights(Model& model, const std::string& path, const std::string& from,
                        bool strict) {
  const std::vector<nn::NamedTensor> tensors = read_tensors(path);
  return load_tensors(model, import_names(tensors, naming_of(from, tensors)), strict, path);
}

void save_weights(Model& model, const std::string& path, Naming to) {
  std::vector<nn::NamedTensor> tensors = model_tensors(model);
  for (nn::NamedTensor& entry : tensors) entry.tensor = entry.tensor.to(at::kCPU, at::kFloat);
  write_tensors(path, export_names(tensors, to), {{"format", "pt"}});
}

int64_t import_weights(const std::string& path, const std::string& from,
                       const std::string& output) {
  const std::vector<nn::NamedTensor> theirs = read_tensors(path);
  const std::vector<nn::NamedTensor> ours = import_names(theirs, naming_of(from, theirs));
  write_tensors(output, ours, {{"format", "pt"}});
  return static_cast<int64_t>(ours.size());
}

int64_t export_weights(const std::string& path, const std::string& to, const std::string& output) {
  const std::vector<nn::NamedTensor> theirs = export_names(read_tensors(path), parse_naming(to));
  // The Python library's reader wants to know which framework's layout this is.
  write_tensors(output, theirs, {{"format", "pt"}});
  return static_cast<int64_t>(theirs.size());
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

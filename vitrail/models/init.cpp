#include "vitrail/models/init.h"

#include <cmath>
#include <numbers>
#include <optional>

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include "vitrail/core/philox.h"
#include "vitrail/models/parts.h"

namespace vitrail::models {
namespace {

/// FNV-1a: a fixed, well-known hash, because std::hash may differ between libraries.
uint64_t name_hash(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const char letter : name)
    hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3ull;
  return hash;
}

/// In (0, 1): never 0, so that its logarithm is finite.
double open_uniform(uint32_t bits) { return (static_cast<double>(bits) + 0.5) / 4294967296.0; }

/// Inverse of the error function, to 1e-7 for |x| < 0.996 (M. Giles 2012, Approximating the erfinv function).
double inverse_erf(double x) {
  constexpr double kTerms[]{2.81022636e-08, 3.43273939e-07,  -3.5233877e-06, -4.39150654e-06, 0.00021858087,
                             -0.00125372503, -0.00417768164, 0.246640727,    1.50140941};
  const double w = -std::log((1.0 - x) * (1.0 + x));
  double sum = 0.0;
  for (const double c : kTerms) sum = sum * (w - 2.5) + c;
  return sum * x;
}

/// A standard normal that fell within two deviations: its distribution function, inverted.
double truncated_normal(uint32_t bits) {
  constexpr double kWithin = 0.9544997361036416;  // erf(sqrt(2))
  return std::numbers::sqrt2 * inverse_erf(kWithin * (2.0 * open_uniform(bits) - 1.0));
}

/// Four values of unit scale from one Philox block; normals by Box and Muller.
void fill_four(const core::Philox4& bits, Fill fill, double out[4]) {
  if (fill == Fill::uniform) {
    for (int j = 0; j < 4; ++j) out[j] = 2.0 * open_uniform(bits.x[j]) - 1.0;
    return;
  }
  if (fill == Fill::truncated_normal) {
    for (int j = 0; j < 4; ++j) out[j] = truncated_normal(bits.x[j]);
    return;
  }
  for (int j = 0; j < 4; j += 2) {
    const double radius = std::sqrt(-2.0 * std::log(open_uniform(bits.x[j])));
    const double angle = 2.0 * std::numbers::pi * open_uniform(bits.x[j + 1]);
    out[j] = radius * std::cos(angle);
    out[j + 1] = radius * std::sin(angle);
  }
}

void fill_block(float* out, int64_t count, int64_t first, const core::DrawKey& key, uint64_t sample,
                const Initial& initial) {
  double values[4];
  fill_four(core::draw4(key, sample, static_cast<uint32_t>(first / 4)), initial.fill, values);
  for (int64_t j = 0; j < std::min<int64_t>(4, count - first); ++j)
    out[first + j] = static_cast<float>(initial.scale * values[j]);
}

/// Each block is a function of its place, so threads change nothing. Billions of values would take minutes on one.
void fill_random(float* out, int64_t count, const core::DrawKey& key, uint64_t sample,
                 const Initial& initial) {
  constexpr int64_t kBlocksOfAThread = 1 << 14;
  at::parallel_for(0, (count + 3) / 4, kBlocksOfAThread, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block)
      fill_block(out, count, 4 * block, key, sample, initial);
  });
}

/// PyTorch's convolution: Kaiming-uniform with a = sqrt(5) is uniform in +-1/sqrt(fan_in), weight and bias alike.
Initial convolution_initial(int64_t inputs) {
  return {Fill::uniform, 1.0 / std::sqrt(static_cast<double>(inputs))};
}

bool is_patch_layer(const std::string& name, const char* what) {
  return name == fmt::format("patch_embed.proj.{}", what) ||
         (name.starts_with("token_embeds.") && name.ends_with(fmt::format(".proj.{}", what)));
}

/// What both schemes agree on; none for weight matrices and tokens.
std::optional<Initial> common_initial(const std::string& name, const at::Tensor& parameter,
                                      double layer_scale, int64_t patch_values) {
  if (patch_values > 0 && is_patch_layer(name, "bias")) return convolution_initial(patch_values);
  if (name == "var_embed" || name == "decoder_var_embed") return Initial{Fill::keep};
  if (name == "patch_embed.size_embed") return Initial{Fill::normal, 0.02};
  if (name == "var_query" || (name.starts_with("var_groups.") && name.ends_with(".query")))
    return parameter.size(1) == 1 ? Initial{Fill::zeros} : Initial{Fill::normal, 0.02};
  if (name.ends_with(".gamma")) return Initial{Fill::constant, layer_scale};
  if (name.ends_with(".bias")) return Initial{Fill::zeros};
  if (name.ends_with(".weight") && parameter.dim() == 1) return Initial{Fill::ones};
  return std::nullopt;
}

}  // namespace

int64_t convolution_values(const config::Model& options) {
  if (options.adaptive.fixed_length > 0 && options.adaptive.token_norm) return 0;
  return options.variables.empty() ? options.patch_values() : patch_pixels(options);
}

InitialRule timm_initial(double layer_scale, int64_t patch_values) {
  return [=](const std::string& name, const at::Tensor& parameter) -> Initial {
    if (patch_values > 0 && is_patch_layer(name, "weight"))
      return convolution_initial(patch_values);
    if (name == "cls_token" || name == "reg_token") return {Fill::normal, 1e-6};
    if (name.ends_with(".fc1_g.weight")) return {Fill::normal, 1e-6};
    if (name.ends_with(".fc1_g.bias")) return {Fill::ones};
    if (name == "attn_pool.latent")
      return {Fill::normal, 1.0 / std::sqrt(static_cast<double>(parameter.size(-1)))};
    // timm truncates at +-2, a hundred standard deviations away.
    return common_initial(name, parameter, layer_scale, patch_values)
        .value_or(Initial{Fill::normal, 0.02});
  };
}

InitialRule timm_initial(const config::Model& options) {
  return timm_initial(options.layer_scale.value_or(0.0), convolution_values(options));
}

InitialRule mae_initial(const config::Model& options) {
  const InitialRule rule =
      mae_initial(options.layer_scale.value_or(0.0), convolution_values(options));
  if (options.num_leaves() == 0) return rule;
  return [rule](const std::string& name, const at::Tensor& parameter) -> Initial {
    if (name.ends_with("pos_embed")) return {Fill::normal, 0.02};  // there is no table of leaves
    return rule(name, parameter);
  };
}

InitialRule mae_initial(double layer_scale, int64_t patch_values) {
  return [=](const std::string& name, const at::Tensor& parameter) -> Initial {
    if (name == "cls_token" || name == "reg_token" || name == "mask_token")
      return {Fill::normal, 0.02};
    if (name.ends_with("pos_embed")) return {Fill::keep};
    if (const auto common = common_initial(name, parameter, layer_scale, patch_values))
      return *common;
    const int64_t outputs = parameter.size(0), inputs = parameter.numel() / outputs;
    return {Fill::uniform, std::sqrt(6.0 / static_cast<double>(outputs + inputs))};
  };
}

void initialise(const std::vector<nn::NamedTensor>& parameters, uint64_t seed,
                const InitialRule& rule) {
  const at::NoGradGuard no_grad;
  const core::DrawKey key{seed, core::Stream::init, 0, 0};
  for (const nn::NamedTensor& parameter : parameters) {
    const Initial initial = rule(parameter.name, parameter.tensor);
    at::Tensor tensor = parameter.tensor;
    switch (initial.fill) {
      case Fill::keep:
        break;
      case Fill::zeros:
        tensor.zero_();
        break;
      case Fill::ones:
        tensor.fill_(1.0);
        break;
      case Fill::constant:
        tensor.fill_(initial.scale);
        break;
      case Fill::normal:
      case Fill::truncated_normal:
      case Fill::uniform:
        fill_random(tensor.mutable_data_ptr<float>(), tensor.numel(), key,
                    name_hash(parameter.name) & ((1ull << 48) - 1), initial);
    }
  }
}

}  // namespace vitrail::models

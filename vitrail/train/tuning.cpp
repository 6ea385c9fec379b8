#include "vitrail/train/tuning.h"

#include <filesystem>
#include <utility>

#include <ATen/Context.h>

#include "vitrail/core/error.h"
#include "vitrail/core/log.h"
#include "vitrail/kernels/gemm.h"
#include "vitrail/nn/fused_engine.h"
#include "vitrail/ops/gelu_product.h"
#include "vitrail/ops/packed_attention.h"
#include "vitrail/ops/product.h"

namespace vitrail::train {
namespace {

/// Of the first trunk that runs fused; null: none does.
const nn::FusedEngine* fused_engine_of(models::Model& model) {
  for (nn::Stack* stack : model.stacks())
    if (const auto* fused = dynamic_cast<const nn::FusedEngine*>(&stack->engine())) return fused;
  return nullptr;
}

/// Times differ from run to run, and sums with what they choose.
bool times_may_choose() { return !at::globalContext().deterministicAlgorithms(); }

/// Found before training begins: the table is written after the first step.
void check_folder(const std::string& table) {
  const std::filesystem::path folder = std::filesystem::path(table).parent_path();
  VT_REQUIRE(ConfigError, folder.empty() || std::filesystem::is_directory(folder),
             "[config] train.tuning_table must lie in a folder that exists but '{}' does not; make "
             "it or name another",
             folder.string());
}

}  // namespace

Tuning::Tuning(models::Model& model, const config::Train& options, at::Device device,
               const std::string& table)
    : model_(model),
      device_(device),
      seconds_(times_may_choose() ? options.tune_seconds : 0),
      table_(options.tuning_table.empty() ? table : options.tuning_table),
      is_due_(device.is_cuda() && fused_engine_of(model)) {
  check_folder(options.tuning_table);
  if (!is_due_ || !times_may_choose() || table_.empty() || !std::filesystem::exists(table_)) return;
  const int known = ops::gemm_library(device_).load(table_);
  core::log_info("matrix products: {} choices of {} fit this device and library", known, table_);
}

void Tuning::after_step(bool writes) {
  if (!std::exchange(is_due_, false)) return;
  if (fused_engine_of(model_)->describe().empty()) return;  // no block ran fused
  if (seconds_ > 0) {
    ops::tune_products(device_, seconds_);
    ops::tune_gelu_products(device_);
  }
  kernels::GemmLibrary& library = ops::gemm_library(device_);
  for (const kernels::GemmChoice& choice : library.choices())
    core::log_info("product [{} x {} x {}]{}{}: {}, {:.3f} ms (the library's own choice {:.3f})",
                   choice.shape.m, choice.shape.n, choice.shape.k,
                   choice.shape.has_bias ? " + bias" : "", choice.shape.adds ? " + sum" : "",
                   choice.algorithm, choice.ms, choice.first_ms);
  if (const std::string choices = ops::gelu_product_choices(); !choices.empty())
    core::log_info("{}", choices);
  core::log_info("{}", ops::attention_choices());
  core::log_info("{}", fused_engine_of(model_)->describe());
  if (writes && seconds_ > 0 && !table_.empty()) library.save(table_);
}

}  // namespace vitrail::train

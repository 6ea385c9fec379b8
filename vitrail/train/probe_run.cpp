#include "vitrail/train/probe_run.h"

#include <algorithm>
#include <chrono>

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include "vitrail/core/error.h"
#include "vitrail/models/probe.h"
#include "vitrail/train/assembly.h"
#include "vitrail/train/handshake.h"

namespace vitrail::train {

namespace {

/// Features and labels of every sample of some sources, the same on every rank.
models::Features extract(models::Model& model, const std::vector<config::Source>& sources,
                         const config::Recipe& recipe, comm::Mesh& mesh, at::Device device) {
  data::Loader loader(
      sources, recipe.model,
      evaluation_loader(recipe, mesh.data_rank(), mesh.data_size(), device.is_cuda()));
  const auto seed = static_cast<uint64_t>(recipe.run.seed);
  const int64_t samples = loader.samples();
  models::Features all{{}, at::zeros({samples}, at::kLong)};
  for (int64_t i = 0; i < loader.batches_per_epoch(); ++i) {
    const data::Batch batch = on_device(without_padding(loader.next()), device);
    if (batch.size() == 0) continue;
    VT_REQUIRE(
        ConfigError, batch.label.dim() == 1,
        "[probe] a probe needs a class for each image but {} has masks; leave its labels out",
        data::source_name(sources.front()));
    const at::Tensor rows =
        model.features(batch, {seed, 0, batch.sample_ids, false}).to(at::kCPU, at::kFloat);
    if (!all.x_ND.defined()) all.x_ND = at::zeros({samples, rows.size(1)}, at::kFloat);
    const at::Tensor places = batch.sample_ids.to(at::kCPU);
    all.x_ND.index_copy_(0, places, rows);
    all.label_N.index_copy_(0, places, batch.label.to(at::kCPU) + 1);
  }
  comm::Communicator& group = mesh.along({comm::Axis::replicate, comm::Axis::shard});
  // A rank beyond the last sample learns the width from the others.
  int64_t width = all.x_ND.defined() ? all.x_ND.size(1) : 0;
  group.all_reduce({&width, 1, core::DType::i64}, comm::Reduce::max).wait();
  if (!all.x_ND.defined()) all.x_ND = at::zeros({samples, width}, at::kFloat);
  // Every row was filled by one rank and is zero on the others, so the sums are exact.
  group.all_reduce({all.x_ND.data_ptr(), all.x_ND.numel(), core::DType::f32}, comm::Reduce::sum)
      .wait();
  group
      .all_reduce({all.label_N.data_ptr(), all.label_N.numel(), core::DType::i64},
                  comm::Reduce::sum)
      .wait();
  all.label_N.sub_(1);  // a sample that could not be read has no label
  return all;
}

void check_sources(const config::Recipe& recipe, const std::string& kind) {
  VT_REQUIRE(ConfigError, kind == "linear" || kind == "knn",
             "[probe] the kind of a probe must be linear or knn but got '{}'", kind);
  VT_REQUIRE(ConfigError, !recipe.data.sources.empty() && !recipe.eval.sources.empty(),
             "[probe] a probe learns from data.sources and is scored on eval.sources but {} is "
             "empty",
             recipe.data.sources.empty() ? "data.sources" : "eval.sources");
  VT_REQUIRE(ConfigError, !(recipe.model.kind == "diffusion"),
             "[probe] model.kind must be vit, mae, unetr or sap but is diffusion, whose features "
             "belong to an image with noise");
}

/// What teaches the probe is seen as it is: whole, in order, without augmentation.
std::vector<config::Source> plain(std::vector<config::Source> sources) {
  for (config::Source& source : sources) {
    source.random_crop = {};
    source.weight = 1.0;
  }
  return sources;
}

}  // namespace

std::vector<SplitResult> probe_recipe(const config::ResolvedRecipe& resolved,
                                      comm::Communicator& world, const std::string& kind,
                                      const EvaluateOptions& options) {
  const c10::NoGradGuard no_grad;
  const config::Recipe& recipe = resolved.recipe;
  check_sources(recipe, kind);
  const std::vector<config::Source> scored = chosen_sources(recipe, options.split);
  const at::Device device = choose_device(recipe.run, options.launch);
  set_threads(recipe.run, options.launch);
  handshake(world, resolved, options.version, device);
  // Every rank holds the whole model, however the recipe divides it for training.
  comm::Mesh mesh(world, comm::MeshShape{});
  const auto model = models::make_model(recipe.model, static_cast<uint64_t>(recipe.run.seed));
  models::configure(*model, recipe.train);
  load_weights(*model, recipe, options.weights);
  models::move_parameters(*model, device, compute_dtype(recipe.train));

  const models::Features train = extract(*model, plain(recipe.data.sources), recipe, mesh, device);
  const int64_t classes = train.label_N.max().item<int64_t>() + 1;
  VT_REQUIRE(ConfigError, classes >= 2,
             "[probe] data.sources must have at least two classes but have {}; use a reader with "
             "classes, such as image_folder",
             classes);
  std::vector<SplitResult> results;
  for (const config::Source& source : plain(scored)) {
    const auto start = std::chrono::steady_clock::now();
    const models::Features test = extract(*model, {source}, recipe, mesh, device);
    // A class that only held-out data have is one more that the probe gets wrong.
    const int64_t all = std::max(classes, test.label_N.max().item<int64_t>() + 1);
    SplitResult result;
    result.split = data::source_name(source);
    result.samples = test.label_N.ge(0).sum().item<int64_t>();
    result.metrics = kind == "knn" ? models::nearest_neighbor_probe(train, test, all)
                                   : models::linear_probe(train, test, all).metrics;
    result.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace vitrail::train

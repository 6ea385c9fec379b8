#pragma once
/// One pass of a model whose parameters are cut by the table of tensor.h, on ranks that are threads, beside the same pass
/// of the whole model: loss, output and every gradient.

#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros_like.h>

#include "tests/models/tiny_models.h"
#include "vitrail/comm/communicator.h"
#include "vitrail/comm/mesh.h"
#include "vitrail/parallel/device.h"
#include "vitrail/parallel/exchange.h"
#include "vitrail/parallel/sequence.h"
#include "vitrail/parallel/tensor.h"

namespace vitrail::testing {

struct DividedCase {
  std::string name;
  config::Recipe recipe;
  data::Batch batch;
  bool training = true;
  int sequence = 1;
  at::ScalarType dtype = at::kFloat;  // of the divided model
  /// Values of the whole model before it is cut.
  std::function<void(models::Model&)> prepare = models::randomise;
};

struct Pass {
  double loss = 0;
  at::Tensor output;
  std::map<std::string, at::Tensor> gradients;
};

inline nn::Draws draws_for(const DividedCase& test) {
  return models::draws_of(test.batch, test.training);
}

/// A gradient that nothing flowed into is zero.
inline at::Tensor gradient_of(const at::Tensor& parameter) {
  return parameter.grad().defined() ? parameter.grad() : at::zeros_like(parameter);
}

inline Pass whole_pass(const DividedCase& test) {
  at::set_num_threads(1);
  const auto model = models::make_model(test.recipe.model, 0);
  test.prepare(*model);
  const data::Batch batch = model->prepared(test.batch, draws_for(test));
  const models::Output out = model->forward(batch, draws_for(test));
  out.loss.backward();
  Pass pass{out.loss.item<double>(), out.output.detach(), {}};
  for (const nn::NamedTensor& parameter : model->named_parameters())
    pass.gradients[parameter.name] = gradient_of(parameter.tensor).clone();
  return pass;
}

/// A model laid over tensor (and sequence) ranks, without the engine.
struct DividedModel {
  comm::Mesh mesh;
  parallel::Groups groups;
  std::shared_ptr<models::Model> model;
  parallel::PlacementTable table;
  std::map<std::string, parallel::Placement> placements;
  parallel::TensorParallel tensor;
  parallel::SequenceParallel sequence;

  DividedModel(comm::Communicator& world, const DividedCase& test, at::Device device = at::kCPU)
      : mesh(world, {1, 1, 1, test.sequence, world.size() / test.sequence}),
        groups(mesh, device),
        model(whole(test)),
        table(parallel::tensor_placement(test.recipe, mesh.size(comm::Axis::tensor),
                                         mesh.coordinate(comm::Axis::tensor))),
        tensor(*model, test.recipe, groups),
        sequence(*model, test.recipe, groups) {
    const at::NoGradGuard no_grad;
    for (nn::NamedTensor& parameter : model->named_parameters()) {
      parallel::Placement& placement = placements[parameter.name];
      if (table) placement = table(parameter.name, parameter.tensor.sizes().vec());
      parameter.tensor.set_data(parallel::local_part(parameter.tensor.detach(), placement)
                                    .clone()
                                    .to(device, test.dtype));
    }
  }

  static std::shared_ptr<models::Model> whole(const DividedCase& test) {
    const auto model = models::make_model(test.recipe.model, 0);
    models::configure(*model, test.recipe.train);
    test.prepare(*model);
    return model;
  }

  models::Output forward(const DividedCase& test) {
    data::Batch batch = model->prepared(test.batch, draws_for(test));
    for (at::Tensor* rows : batch.rows()) *rows = rows->to(groups.device());
    return model->forward(batch, models::draws_of(batch, test.training));
  }

  /// Partial gradients summed over tensor ranks, all averaged over sequence ranks.
  void finish_gradients() {
    const at::NoGradGuard no_grad;
    void* stream = parallel::current_stream(groups.device());
    for (nn::NamedTensor& parameter : model->named_parameters()) {
      at::Tensor gradient = gradient_of(parameter.tensor).contiguous();
      if (placements[parameter.name].partial)
        groups.along({comm::Axis::tensor})
            .all_reduce(parallel::buffer_of(gradient), comm::Reduce::sum, stream)
            .wait();
      groups.along({comm::Axis::sequence})
          .all_reduce(parallel::buffer_of(gradient), comm::Reduce::average, stream)
          .wait();
      parameter.tensor.mutable_grad() = gradient;
    }
  }
};

struct Difference {
  double loss = 0, output = 0, gradient = 0;
  std::string where;  // the worst gradient
};

/// Worst relative differences over ranks. Gradients: over the largest element of the same parameter's gradient, or a
/// hundredth of the largest of all where its own is smaller. `device_of` a rank: the CPU when empty.
inline Difference divided_difference(int ranks, DividedCase test,
                                     const std::function<at::Device(int rank)>& device_of = {}) {
  test.recipe.parallel.sequence = test.sequence;
  test.recipe.parallel.tensor = ranks / test.sequence;
  const Pass expected = whole_pass(test);
  double most = 0;
  for (const auto& [name, gradient] : expected.gradients)
    most = std::max(most, gradient.abs().max().item<double>());
  Difference worst;
  std::mutex mutex;
  comm::run_thread_group(ranks, [&](comm::Communicator& world) {
    at::set_num_threads(1);
    const at::Device device = device_of ? device_of(world.rank()) : at::Device(at::kCPU);
    parallel::set_device(device);
    DividedModel divided(world, test, device);
    const models::Output out = divided.forward(test);
    out.loss.backward();
    divided.finish_gradients();
    const at::NoGradGuard no_grad;
    const std::lock_guard lock(mutex);
    worst.loss = std::max(worst.loss, std::abs(out.loss.item<double>() / expected.loss - 1));
    worst.output =
        std::max(worst.output, (out.output.cpu() - expected.output).abs().max().item<double>() /
                                   expected.output.abs().max().item<double>());
    for (const nn::NamedTensor& parameter : divided.model->named_parameters()) {
      const at::Tensor& whole = expected.gradients.at(parameter.name);
      const at::Tensor part = parallel::local_part(whole, divided.placements[parameter.name]);
      if (part.numel() == 0) continue;
      const double scale = std::max(whole.abs().max().item<double>(), most / 100);
      const double difference =
          (parameter.tensor.grad().cpu() - part).abs().max().item<double>() / scale;
      if (difference > worst.gradient) worst.gradient = difference, worst.where = parameter.name;
    }
  });
  return worst;
}

inline std::string print(int ranks, const DividedCase& test, const Difference& found) {
  std::string text =
      fmt::format("{} on {} ranks: loss {:.1e} output {:.1e} gradient {:.1e} ({})", test.name,
                  ranks, found.loss, found.output, found.gradient, found.where);
  std::printf("%s\n", text.c_str());
  return text;
}

}  // namespace vitrail::testing

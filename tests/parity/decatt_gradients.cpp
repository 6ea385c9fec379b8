// The loss between heads over a trunk, from a file to a file in the file's type (fp64), for tests/parity/decatt.py:
// ENGINE FORM HEADS INPUT OUTPUT, where the input holds 'x' [B, T, D] and the blocks' parameters as "0.norm1.weight", and
// the output 'loss', 'grad/x' and 'grad/PARAMETER'. All blocks are taken.

#include <cstdio>
#include <exception>
#include <map>
#include <string>

#include <ATen/Parallel.h>

#include "vitrail/models/decatt.h"
#include "vitrail/models/weights.h"
#include "vitrail/nn/block.h"
#include "vitrail/nn/engine.h"
#include "vitrail/nn/fused_engine.h"

namespace {

using namespace vitrail;

std::unique_ptr<nn::Stack> trunk_of(std::map<std::string, at::Tensor>& tensors, int64_t heads) {
  std::vector<std::shared_ptr<nn::Block>> blocks;
  while (tensors.contains(std::to_string(blocks.size()) + ".norm1.weight")) {
    nn::BlockOptions options;
    options.width = tensors.at("x").size(2);
    options.num_heads = heads;
    options.mlp_hidden = tensors.at("0.mlp.fc1.bias").size(0);
    options.index = static_cast<int>(blocks.size());
    blocks.push_back(std::make_shared<nn::Block>(options));
  }
  auto stack = std::make_unique<nn::Stack>(std::move(blocks));
  for (nn::NamedTensor& parameter : stack->named_parameters())
    parameter.tensor.set_data(tensors.at(parameter.name));
  return stack;
}

void run(const std::string& engine, const std::string& form, int64_t heads,
         const std::string& input, const std::string& output) {
  std::map<std::string, at::Tensor> tensors;
  for (const nn::NamedTensor& entry : models::read_tensors(input))
    tensors[entry.name] = entry.tensor;
  const auto stack = trunk_of(tensors, heads);
  const bool recomputes = engine.ends_with("+block");
  const nn::EngineOptions options{recomputes ? nn::Recompute::block : nn::Recompute::none};
  if (engine.starts_with("fused"))
    stack->set_engine(nn::fused_engine(options));
  else
    stack->set_engine(nn::autograd_engine(options));

  config::Decatt decatt_options;
  decatt_options.weight = 1.0, decatt_options.form.value = form;
  for (int i = 0; i < stack->depth(); ++i) decatt_options.blocks.push_back(i);
  const models::Decatt decatt(decatt_options, stack->depth(), heads);
  const at::Tensor x = tensors.at("x").set_requires_grad(true);
  std::vector<at::Tensor> tapped;
  stack->forward(x, {}, decatt.taps(), &tapped);
  const at::Tensor loss = decatt.loss(tapped, {});
  loss.backward();

  std::vector<nn::NamedTensor> results{{"loss", loss.detach()}, {"grad/x", x.grad()}};
  for (const nn::NamedTensor& parameter : stack->named_parameters())
    if (parameter.tensor.grad().defined())
      results.push_back({"grad/" + parameter.name, parameter.tensor.grad()});
  models::write_tensors(output, results);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: decatt_gradients ENGINE FORM HEADS INPUT OUTPUT\n");
    return 2;
  }
  try {
    at::set_num_threads(1);
    run(argv[1], argv[2], std::stoll(argv[3]), argv[4], argv[5]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}

// vitrail bench attention: every way of computing attention at given shapes, its time and its error.

#include "vitrail/train/bench_attention.h"

#include <memory>
#include <string>
#include <vector>

#include "vitrail/app/bench.h"
#include "vitrail/kernels/library_attention.h"
#include "vitrail/parallel/device.h"

namespace vitrail::app {
namespace {

struct Arguments {
  train::AttentionBenchOptions options;
  std::vector<std::string> shapes;
  std::string device = "auto", json;
  bool forward_only = false, lengths = false, deterministic = false;
};

void run(const Arguments& arguments) {
  check_folder("bench", "--json", arguments.json);
  const at::Device device = bench_device(arguments.device);
  train::AttentionBenchOptions options = arguments.options;
  for (const std::string& text : arguments.shapes)
    options.shapes.push_back(train::parse_attention_shape(text, arguments.lengths));
  if (options.shapes.empty()) {
    options.shapes = train::usual_attention_shapes(device);
    for (kernels::AttentionShape& shape : options.shapes) shape.has_lengths = arguments.lengths;
  }
  options.backward = !arguments.forward_only;
  parallel::set_device(device);
  kernels::set_library_attention_deterministic(arguments.deterministic);
  const train::AttentionBench result = train::bench_attention(options, device);
  publish(train::describe(result), train::to_json(result), arguments.json);
}

}  // namespace

void add_bench_attention(CLI::App& bench, Program& program) {
  auto* verb = bench.add_subcommand(
      "attention",
      "attention of random bf16 heads, forward and backward: cuDNN, own kernels, LibTorch; time, "
      "rate and error");
  auto arguments = std::make_shared<Arguments>();
  verb->add_option("--shapes", arguments->shapes,
                   "samples x tokens x heads x head width (x heads of k and v), as 256x197x12x64; "
                   "default: those of the usual models")
      ->delimiter(',');
  verb->add_option("--kinds", arguments->options.kinds,
                   "some of cudnn, short, narrow, aten-cudnn, aten-flash, aten, plain; default: "
                   "all that there are")
      ->delimiter(',')
      ->check(
          CLI::IsMember({"cudnn", "short", "narrow", "aten-cudnn", "aten-flash", "aten", "plain"}));
  verb->add_option("--seconds", arguments->options.seconds,
                   "timed for each kind and shape, in three turns; medians are reported")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_flag("--forward-only", arguments->forward_only, "without the backward");
  verb->add_flag("--lengths", arguments->lengths, "samples of 1 to all tokens");
  verb->add_flag("--deterministic", arguments->deterministic,
                 "cudnn: the backward that gives the same bits every time");
  verb->add_option("--scale", arguments->options.value_scale,
                   "of q and k; 10 makes every softmax nearly choose one token")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--device", arguments->device, "auto, cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  verb->add_option("--json", arguments->json, "file for the result as JSON; - = stdout");
  verb->callback([&program, arguments] {
    program.selected = [arguments](Session& session) {
      if (session.is_main_rank()) run(*arguments);
    };
  });
}

}  // namespace vitrail::app

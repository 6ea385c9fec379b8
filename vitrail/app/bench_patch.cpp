// vitrail bench patch: what adaptive patching costs, step by step.

#include "vitrail/data/bench_patch.h"

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "vitrail/app/bench.h"
#include "vitrail/parallel/device.h"

namespace vitrail::app {
namespace {

struct Arguments {
  data::PatchBenchOptions options;
  std::string device = "auto", json;
};

void run(const Arguments& arguments) {
  check_folder("bench", "--json", arguments.json);
  data::PatchBenchOptions options = arguments.options;
  const at::Device device = bench_device(arguments.device);
  if (arguments.device != "cuda") options.devices.emplace_back(at::kCPU);
  if (device.is_cuda()) {
    parallel::set_device(device);
    options.devices.push_back(device);
  }
  if (options.threads == 0)
    options.threads = std::max<int64_t>(1, std::thread::hardware_concurrency());
  options.settle = [](at::Device on) { parallel::synchronize(on); };
  data::PatchBench result = data::bench_patch(options);
  result.machine = parallel::device_name(at::kCPU);
  if (device.is_cuda()) result.gpu = parallel::device_name(device);
  publish(describe(result), to_json(result), arguments.json);
}

}  // namespace

void add_bench_patch(CLI::App& bench, Program& program) {
  auto* verb = bench.add_subcommand(
      "patch",
      "adaptive patching of synthetic images: edge map, tree, resampling, paste, labels, and the "
      "whole, on one thread, all threads and a GPU");
  auto arguments = std::make_shared<Arguments>();
  verb->add_option("--cases", arguments->options.cases,
                   "some of image256, rgb512, image4096, volume64, volume128; default: all")
      ->delimiter(',');
  verb->add_option("--device", arguments->device,
                   "auto: the CPU, and a GPU where there is one; cpu; cuda: the GPU alone")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  verb->add_option("--threads", arguments->options.threads,
                   "measured besides one; 0 = as many as the machine has cores")
      ->check(CLI::Range(int64_t{0}, int64_t{1024}))
      ->capture_default_str();
  verb->add_option("--seconds", arguments->options.seconds,
                   "how long each step is repeated, 3 to 50 times; the median is reported")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--images", arguments->options.images,
                   "folder for an image of each case and its edges, for other programs");
  verb->add_option("--json", arguments->json, "file for the result as JSON; - = stdout");
  verb->callback([&program, arguments] {
    program.selected = [arguments](Session& session) {
      if (session.is_main_rank()) run(*arguments);
    };
  });
}

}  // namespace vitrail::app

// vitrail bench comm: latency and bandwidth of the collectives of a job's ranks.

#include "vitrail/train/bench_comm.h"

#include <chrono>
#include <filesystem>
#include <fstream>

#include "vitrail/app/bench.h"
#include "vitrail/core/error.h"
#include "vitrail/parallel/device.h"

namespace vitrail::app {
namespace {

struct Arguments {
  train::CommBenchOptions options;
  std::string device = "auto", json, table;
  int64_t largest = 512;
};

std::string today() {
  const std::chrono::year_month_day day(
      std::chrono::floor<std::chrono::days>(std::chrono::system_clock::now()));
  return fmt::format("{}-{:02}-{:02}", static_cast<int>(day.year()),
                     static_cast<unsigned>(day.month()), static_cast<unsigned>(day.day()));
}

/// The file's table, or one named after it with the default rates, with the new lines.
void write_table(const std::string& path, const train::CommBench& bench) {
  const bool is_new = !std::filesystem::exists(path);
  train::Machine machine = train::load_machine(is_new ? "h200-8" : path, train::machine_folders());
  if (is_new) {
    machine.name = std::filesystem::path(path).stem().string();
    machine.device = bench.device;
    machine.source = "rates of kernels copied from h200-8: replace them";
    machine.collectives.clear();
  }
  train::update(machine, bench, today());
  std::ofstream file(path);
  file << to_yaml(machine);
  file.close();
  VT_CHECK(file, "[bench] {} must be writable", path);
}

void run(const Arguments& arguments, Session& session) {
  check_folder("bench", "--json", arguments.json);
  check_folder("bench", "--table", arguments.table);
  comm::Communicator& world = session.world();
  at::Device device = bench_device(arguments.device);
  if (device.is_cuda())
    device = at::Device(at::kCUDA, static_cast<at::DeviceIndex>(session.launch().local_rank));
  parallel::set_device(device);
  std::unique_ptr<comm::Communicator> on_device;
  if (device.is_cuda()) on_device = comm::device_communicator(world, device.index());
  train::CommBenchOptions options = arguments.options;
  options.sizes = train::comm_sizes(4096, arguments.largest << 20);
  const train::CommBench bench = train::bench_comm(on_device ? *on_device : world, world, device,
                                                   session.launch().host, options);
  if (!session.is_main_rank()) return;
  publish(describe(bench), to_json(bench), arguments.json);
  if (!arguments.table.empty()) write_table(arguments.table, bench);
}

}  // namespace

void add_bench_comm(CLI::App& bench, Program& program) {
  auto* verb = bench.add_subcommand(
      "comm", "collectives of the job's ranks by size: latency, bandwidth, the line through them");
  auto arguments = std::make_shared<Arguments>();
  verb->add_option("--collectives", arguments->options.kinds, "which; default: all");
  verb->add_option("--dtype", arguments->options.dtypes, "f32, bf16; default: both");
  verb->add_option("--largest", arguments->largest, "MiB of the largest buffer")
      ->check(CLI::Range(1, 16384))
      ->capture_default_str();
  verb->add_option("--seconds", arguments->options.seconds, "timed for each size")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--device", arguments->device, "auto, cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  verb->add_option("--json", arguments->json, "file for the result as JSON; - = stdout");
  verb->add_option("--table", arguments->table, "machine table to write or update with the fits");
  verb->callback([&program, arguments] {
    program.selected = [arguments](Session& session) { run(*arguments, session); };
  });
}

}  // namespace vitrail::app

// `vitrail doctor`: what is installed, what is really loaded, what this machine offers, and what is
// wrong with it.

#include <filesystem>
#include <fstream>
#include <thread>

#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "vitrail/app/libraries.h"
#include "vitrail/app/verbs.h"
#include "vitrail/app/version.h"
#include "vitrail/core/error.h"
#include "vitrail/kernels/gemm_gelu.h"
#include "vitrail/kernels/library_attention.h"

namespace vitrail::app {

namespace {

namespace fs = std::filesystem;
constexpr double kGib = 1024.0 * 1024.0 * 1024.0;

struct Findings {
  std::vector<std::string> problems;  // what will fail
  std::vector<std::string> advice;    // what will be slow or odd
};

void row(const std::string& name, const std::string& value) {
  fmt::print("  {:<14} {}\n", name, value);
}

/// Value of "key : value" in a /proc file; empty when absent.
std::string proc_value(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(key, 0) != 0) continue;
    const auto colon = line.find(':');
    const auto start = line.find_first_not_of(" \t", colon + 1);
    return start == std::string::npos ? "" : line.substr(start);
  }
  return "";
}

double free_gib(const fs::path& path) {
  struct statvfs info {};
  return statvfs(path.c_str(), &info) == 0
             ? static_cast<double>(info.f_bavail) * static_cast<double>(info.f_frsize) / kGib
             : -1;
}

void report_libraries() {
  fmt::print("libraries in this process\n");
  for (const Library& library : loaded_libraries())
    row(library.name, library.version.empty()
                          ? "not loaded"
                          : fmt::format("{}  {}", library.version, library.path));
  row("attention", kernels::library_attention_words());
  row("up + GELU", kernels::has_gemm_gelu() ? "one kernel, by CUTLASS"
                                            : "two kernels; this build has no CUTLASS");
}

void report_host(Findings& findings) {
  fmt::print("host\n");
  const unsigned cores = std::thread::hardware_concurrency();
  row("processor", fmt::format("{} x {}", cores, proc_value("/proc/cpuinfo", "model name")));
  const std::string flags = " " + proc_value("/proc/cpuinfo", "flags") + " ";
  row("vector units", flags.find(" avx512f ") != std::string::npos ? "AVX-512"
                      : flags.find(" avx2 ") != std::string::npos  ? "AVX2"
                                                                   : "neither AVX2 nor AVX-512");
  const std::string available = proc_value("/proc/meminfo", "MemAvailable");
  row("memory",
      fmt::format(
          "{:.1f} GiB available of {:.1f}", std::strtod(available.c_str(), nullptr) / (1 << 20),
          std::strtod(proc_value("/proc/meminfo", "MemTotal").c_str(), nullptr) / (1 << 20)));
  row("disk here", fmt::format("{:.1f} GiB free", free_gib(".")));
  if (access(".", W_OK) != 0)
    findings.advice.push_back("this folder is not writable; set run.output to one that is");
  const double shm = free_gib("/dev/shm");
  row("/dev/shm", shm < 0 ? "absent" : fmt::format("{:.2f} GiB free", shm));
  if (shm < 0.25)
    findings.advice.push_back(
        "/dev/shm has less than 0.25 GiB free; MPI and NCCL on one host use it (containers: "
        "--shm-size)");
  rlimit files{}, locked{};
  getrlimit(RLIMIT_NOFILE, &files);
  getrlimit(RLIMIT_MEMLOCK, &locked);
  row("open files", fmt::format("{}", files.rlim_cur));
  row("locked memory",
      locked.rlim_cur == RLIM_INFINITY
          ? "unlimited"
          : fmt::format("{:.3f} GiB", static_cast<double>(locked.rlim_cur) / kGib));
  if (files.rlim_cur < 4096)
    findings.advice.push_back(fmt::format(
        "the limit of open files is {}; raise it with ulimit -n 65536", files.rlim_cur));
}

void report_gpus(Findings& findings) {
  fmt::print("GPUs\n");
  const auto gpus = visible_gpus();
  const int usable = usable_gpu_count();
  for (size_t i = 0; i < gpus.size(); ++i)
    row(fmt::format("{}", i), fmt::format("{}, {:.1f} GiB", gpus[i].name, gpus[i].memory_gib));
  if (gpus.empty()) row("-", "none: the driver reports no GPU; run.device: cpu");
  row("usable", fmt::format("{}", usable));
  if (!gpus.empty() && usable == 0)
    findings.problems.push_back(
        "GPUs are there but this program cannot use them: rebuild with VITRAIL_CUDA=ON "
        "./script/build cuda, or the driver is older than the CUDA runtime");
}

void report_network() {
  fmt::print("network\n");
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/sys/class/net", ignored)) {
    std::ifstream state_file(entry.path() / "operstate");
    std::string state;
    state_file >> state;
    row(entry.path().filename().string(), state);
  }
  bool infiniband = false;
  for (const auto& entry : fs::directory_iterator("/sys/class/infiniband", ignored)) {
    row(entry.path().filename().string(), "InfiniBand or RoCE");
    infiniband = true;
  }
  if (!infiniband) row("InfiniBand", "none");
}

void examine(Session& session) {
  Findings findings;
  fmt::print("vitrail {}\n", program_version());
  report_libraries();
  report_host(findings);
  report_gpus(findings);
  report_network();
  fmt::print("launch\n");
  row("", session.launch().describe());
  for (const std::string& text : findings.advice) fmt::print("advice: {}\n", text);
  if (findings.problems.empty()) {
    fmt::print("nothing is wrong\n");
    return;
  }
  std::string lines;
  for (const std::string& text : findings.problems) lines += "[doctor] " + text + "\n";
  throw core::Error(lines);
}

}  // namespace

void add_doctor(Program& program) {
  auto* verb = program.cli.add_subcommand(
      "doctor", "what is installed and loaded, GPUs, network, limits; says what is wrong");
  verb->callback([&program] { program.selected = examine; });
}

}  // namespace vitrail::app

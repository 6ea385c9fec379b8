#include "vitrail/train/run_folder.h"

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/clock.h"
#include "vitrail/core/error.h"
#include "vitrail/core/log.h"
#include "vitrail/train/assembly.h"

namespace vitrail::train {

namespace {

namespace fs = std::filesystem;

/// metrics-superseded-1.jsonl, -2, ...: the first that is free.
std::string free_name(const RunFolder& folder) {
  for (int64_t number = 1;; ++number) {
    const std::string path = folder.file(fmt::format("metrics-superseded-{}.jsonl", number));
    if (!fs::exists(path)) return path;
  }
}

class LogSink : public MetricSink {
 public:
  explicit LogSink(RunLog& log) : log_(log) {}
  void step(const StepRecord& record) override { log_.record(plain_line(record)); }
  void evaluation(const EvaluationRecord& record) override { log_.record(plain_line(record)); }

 private:
  RunLog& log_;
};

}  // namespace

RunFolder::RunFolder(const config::Run& options) : path_(run_folder(options)) {}

std::string RunFolder::file(const std::string& name) const {
  return (fs::path(path_) / name).string();
}

void RunFolder::open(const config::ResolvedRecipe& resolved, int64_t first_step) const {
  core::make_directories(path_);
  core::write_file_atomic(file("recipe.yaml"), config::to_yaml(resolved.recipe));
  if (first_step > 0) {
    truncate_metrics(metrics(), first_step);
    return;
  }
  std::error_code error;
  if (fs::exists(metrics(), error) && fs::file_size(metrics(), error) > 0)
    fs::rename(metrics(), free_name(*this), error);
  VT_CHECK(!error, "[output] {} could not be renamed: {}", metrics(), error.message());
}

RunLog::~RunLog() {
  if (file_ == nullptr) return;
  core::set_log_file("");
  std::fclose(file_);
}

void RunLog::open(const std::string& path) {
  if (quiet_) return;
  file_ = std::fopen(path.c_str(), "ae");
  VT_CHECK(file_ != nullptr, "[output] {} cannot be opened: {}", path, std::strerror(errno));
  core::set_log_file(path);
}

void RunLog::line(const std::string& text) {
  if (quiet_) return;
  if (print_) {
    fmt::print("{}\n", text);
    std::fflush(stdout);
  }
  record(text);
}

void RunLog::record(const std::string& text) {
  if (quiet_ || file_ == nullptr) return;
  // A full disk is reported by what matters: metrics and checkpoints.
  std::fprintf(file_, "%s %s\n", core::utc_now().c_str(), text.c_str());
  std::fflush(file_);
}

std::unique_ptr<MetricSink> log_sink(RunLog& log) { return std::make_unique<LogSink>(log); }

}  // namespace vitrail::train

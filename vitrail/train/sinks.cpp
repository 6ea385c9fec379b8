#include "vitrail/train/sinks.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>

#include <sys/ioctl.h>
#include <unistd.h>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {

namespace {

size_t terminal_columns() {
  winsize size{};
  return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 160;
}

/// One line that is drawn over by the next; evaluations stay above it.
class BarSink : public MetricSink {
 public:
  explicit BarSink(RunLength length) : length_(std::move(length)) {}
  ~BarSink() override { end_line(); }

  void step(const StepRecord& record) override {
    const std::string line = bar_line(length_, record).substr(0, terminal_columns() - 1);
    fmt::print("\r\x1b[K{}", line);
    std::fflush(stdout);
    open_ = true;
    if (record.step >= length_.total_steps) end_line();
  }
  void evaluation(const EvaluationRecord& record) override {
    if (open_) fmt::print("\r\x1b[K");
    open_ = false;
    fmt::print("{}\n", plain_line(record));
    std::fflush(stdout);
  }
  void flush() override { end_line(); }

 private:
  void end_line() {
    if (open_) fmt::print("\n");
    open_ = false;
    std::fflush(stdout);
  }

  RunLength length_;
  bool open_ = false;
};

class PlainSink : public MetricSink {
 public:
  void step(const StepRecord& record) override { print(plain_line(record)); }
  void evaluation(const EvaluationRecord& record) override { print(plain_line(record)); }

 private:
  static void print(const std::string& line) {
    fmt::print("{}\n", line);
    std::fflush(stdout);
  }
};

class JsonlSink : public MetricSink {
 public:
  explicit JsonlSink(std::string path)
      : path_(std::move(path)), file_(std::fopen(path_.c_str(), "ae")) {
    if (file_ == nullptr) failed("opened");
  }
  ~JsonlSink() override { std::fclose(file_); }
  void step(const StepRecord& record) override { write(json_line(record)); }
  void evaluation(const EvaluationRecord& record) override { write(json_line(record)); }

 private:
  void write(const std::string& line) {
    // Flushed line by line: a killed run keeps all but the line under way.
    const bool written = std::fprintf(file_, "%s\n", line.c_str()) >= 0 && std::fflush(file_) == 0;
    if (!written) failed("written");
  }
  [[noreturn]] void failed(const char* what) const {
    core::fail("[output] {} could not be {}: {}; free space or choose another run.output", path_,
               what, std::strerror(errno));
  }

  std::string path_;
  std::FILE* file_;
};

/// The step of a line; -1 for a line that is no record.
int64_t step_of(const std::string& line) {
  const auto record = nlohmann::json::parse(line, nullptr, false);
  if (!record.is_object() || !record.contains("step") || !record["step"].is_number_integer())
    return -1;
  return record["step"].get<int64_t>();
}

}  // namespace

std::unique_ptr<MetricSink> console_sink(const RunLength& length, bool terminal) {
  if (terminal) return std::make_unique<BarSink>(length);
  return std::make_unique<PlainSink>();
}

std::unique_ptr<MetricSink> jsonl_sink(const std::string& path) {
  return std::make_unique<JsonlSink>(path);
}

void SinkList::step(const StepRecord& record) {
  for (auto& sink : sinks_) sink->step(record);
}

void SinkList::evaluation(const EvaluationRecord& record) {
  for (auto& sink : sinks_) sink->evaluation(record);
}

void SinkList::flush() {
  for (auto& sink : sinks_) sink->flush();
}

void truncate_metrics(const std::string& path, int64_t step) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return;
  std::ostringstream kept;
  bool changed = false;
  for (std::string line; std::getline(in, line);) {
    const int64_t at = step_of(line);
    const bool keep = at >= 0 && at <= step && !in.eof();
    if (keep) kept << line << '\n';
    changed = changed || !keep;
  }
  in.close();
  if (!changed) return;
  core::write_file_atomic(path, kept.str());
}

}  // namespace vitrail::train

#pragma once
/// The folder of a run and what stands at its top: recipe.yaml, metrics.jsonl, log.txt,
/// history.jsonl, weights.

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "vitrail/config/recipe.h"
#include "vitrail/train/sinks.h"

namespace vitrail::train {

class RunFolder {
 public:
  /// Nothing is created yet.
  explicit RunFolder(const config::Run& options);

  const std::string& path() const { return path_; }
  std::string checkpoints() const { return file("checkpoints"); }
  std::string metrics() const { return file("metrics.jsonl"); }
  std::string tensorboard() const { return file("tensorboard"); }
  std::string log() const { return file("log.txt"); }
  std::string file(const std::string& name) const;

  /// Creates the folder, writes recipe.yaml, and makes room for a run that starts at `first_step`:
  /// lines of later steps leave metrics.jsonl. A run that starts anew over an older one keeps that
  /// one's file as metrics-superseded-N.jsonl. Rank 0 alone calls it. throws Error when the folder
  /// cannot be written.
  void open(const config::ResolvedRecipe& resolved, int64_t first_step) const;

 private:
  std::string path_;
};

/// Lines of a run for people: on stdout, and with the date in log.txt once that is open. What the
/// library itself logs (broken files that were skipped) goes to the same file.
class RunLog {
 public:
  /// quiet: this rank prints and writes nothing.
  RunLog(bool quiet, bool print) : quiet_(quiet), print_(print) {}
  ~RunLog();
  RunLog(const RunLog&) = delete;
  RunLog& operator=(const RunLog&) = delete;

  void open(const std::string& path);
  void line(const std::string& text);
  /// To the file alone.
  void record(const std::string& text);

 private:
  bool quiet_, print_;
  std::FILE* file_ = nullptr;
};

/// Step and evaluation lines to log.txt. The log outlives the sink.
std::unique_ptr<MetricSink> log_sink(RunLog& log);

}  // namespace vitrail::train

#pragma once
/// What a run leaves in its folder for the report, so that the page can be built again without the
/// model:
///   report/data.json   layout, environment, final metrics, confusion, and which pictures show what
///   report/*.png       pictures of samples
///   history.jsonl      one line a start of the program: when, where from, on what

#include <string>
#include <vector>

#include "vitrail/train/evaluate.h"
#include "vitrail/train/report_html.h"
#include "vitrail/train/report_svg.h"

namespace vitrail::train {

/// One start of the program.
struct HistoryEntry {
  std::string time;  // UTC, ISO 8601
  int64_t step = 0;  // first step of this start
  std::string command, host, version;
  int64_t ranks = 1;
};

struct Curves {
  Series loss, lr, grad_norm, images_per_second, step_ms, data_wait_ms, memory;  // over steps
  struct Evaluation {
    std::string split, metric;
    Series points;
  };
  std::vector<Evaluation> evaluations;
};

/// Everything the report shows.
struct ReportData {
  std::string name, kind;
  Rows layout, environment;
  struct Split {
    std::string name;
    int64_t samples = 0;
    double seconds = 0;
    models::MetricList metrics;
    std::vector<std::vector<int64_t>> confusion;
    std::vector<std::string> class_names;
  };
  std::vector<Split> splits;
  std::vector<Verdict> verdicts;
  std::vector<PictureTable> pictures;
  bool averaged_weights = false;  // evaluation used the moving average of the weights
  // read beside data.json
  std::string recipe;
  Curves curves;
  std::vector<HistoryEntry> history;
};

/// Writes report/data.json and the pictures of `data`; curves, recipe and history are other files
/// already.
void save_report_data(const std::string& folder, const ReportData& data);
/// throws DataError naming the file that is missing or broken. Without data.json (a run that was
/// killed) what is known from the other files is returned.
ReportData load_report_data(const std::string& folder);
void append_history(const std::string& folder, const HistoryEntry& entry);

}  // namespace vitrail::train

#pragma once
/// The HTML report of a run, built from the files in its folder alone: recipe.yaml, metrics.jsonl,
/// history.jsonl, report/data.json and report/*.png. Self-contained: no link leads out of the page.

#include <string>
#include <vector>

namespace vitrail::train {

/// Writes FOLDER/report.html (or `output` when not empty); returns its path.
/// throws DataError when the folder holds no run or a file of it cannot be read.
std::string write_report(const std::string& folder, const std::string& output = "");

/// One page that compares several runs: curves in one chart each, settings that differ, final
/// metrics.
std::string write_comparison(const std::vector<std::string>& folders, const std::string& output);

}  // namespace vitrail::train

#pragma once
/// Charts of the report as SVG text. Colours are CSS variables of the page (--c1 ... --c6, --ink,
/// --faint, --line), so that light and dark need one drawing.

#include <cstdint>
#include <string>
#include <vector>

namespace vitrail::train {

struct Series {
  std::string name;
  std::vector<double> x, y;  // equally long; points that are not finite are left out
  int color = 1;             // --c1 ... --c6
  bool faint = false;        // drawn thin and pale behind the others, not in the legend
  bool dots = false;         // a mark at each point
};

struct Chart {
  std::string title;
  std::string x_label;
  std::vector<Series> series;
  bool from_zero = false;  // the y axis starts at zero
  bool log_y =
      false;  // logarithmic when every value is positive and they span more than a factor of 20
  double y_max = 0;  // upper end of the axis; 0 = by the values
};

/// A figure with axes, grid, legend and, for the pointer, its points as JSON in data-chart.
std::string line_chart(const Chart& chart);

/// counts[true][predicted] as a grid; colour is the share of the row, numbers up to 20 classes.
std::string confusion_map(const std::vector<std::vector<int64_t>>& counts,
                          const std::vector<std::string>& names);

/// Round tick values inside [low, high], about `count` of them.
std::vector<double> round_ticks(double low, double high, int count);
/// 12000 -> "12k", 0.0008 -> "8e-4".
std::string short_number(double value);
/// At most `limit` points, each the mean of its neighbours.
Series thinned(const Series& series, size_t limit);
/// Exponential mean over about `window` points.
Series smoothed(const Series& series, double window);
/// &, <, >, " and ' as entities.
std::string escape_html(const std::string& text);

}  // namespace vitrail::train

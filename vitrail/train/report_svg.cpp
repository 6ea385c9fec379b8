#include "vitrail/train/report_svg.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace vitrail::train {

namespace {

constexpr double kWidth = 520, kHeight = 280, kLeft = 52, kRight = 14, kTop = 34, kBottom = 42;

/// Maps values to pixels.
struct Axis {
  double low = 0, high = 1, from = 0, to = 1;
  bool log = false;
  double at(double value) const {
    const double share = log ? (std::log(value) - std::log(low)) / (std::log(high) - std::log(low))
                             : (value - low) / (high - low);
    return from + share * (to - from);
  }
};

struct Range {
  double low = INFINITY, high = -INFINITY;
  void add(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return !(low <= high); }
};

std::vector<double> log_ticks(double low, double high) {
  std::vector<double> ticks;
  for (int power = static_cast<int>(std::floor(std::log10(low))); std::pow(10.0, power) <= high;
       ++power)
    for (double digit : {1.0, 2.0, 5.0}) {
      const double value = digit * std::pow(10.0, power);
      if (value >= low * 0.999 && value <= high * 1.001) ticks.push_back(value);
    }
  return ticks;
}

Range range_of(const Chart& chart, std::vector<double> Series::*values) {
  Range range;
  for (const Series& series : chart.series)
    for (double value : series.*values) range.add(value);
  return range.empty() ? Range{0, 1} : range;
}

Axis x_axis(const Chart& chart) {
  Range range = range_of(chart, &Series::x);
  if (range.low == range.high) range = {range.low - 1, range.high + 1};
  return {range.low, range.high, kLeft, kWidth - kRight, false};
}

Axis y_axis(const Chart& chart) {
  Range range = range_of(chart, &Series::y);
  const bool log = chart.log_y && range.low > 0 && range.high > 20 * range.low;
  if (log) return {range.low / 1.15, range.high * 1.15, kHeight - kBottom, kTop, true};
  if (chart.from_zero) range.low = std::min(0.0, range.low);
  double margin = 0.06 * (range.high - range.low);
  if (margin == 0) margin = std::max(std::abs(range.high) * 0.1, 1e-12);
  const double low = chart.from_zero && range.low == 0 ? 0 : range.low - margin;
  const double high = chart.y_max > 0 ? std::max(chart.y_max, range.high) : range.high + margin;
  return {low, high, kHeight - kBottom, kTop, false};
}

std::string grid(const Chart& chart, const Axis& x, const Axis& y) {
  std::string out;
  for (double value : y.log ? log_ticks(y.low, y.high) : round_ticks(y.low, y.high, 5))
    out += fmt::format(
        "<line class=\"grid\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>"
        "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n",
        kLeft, kWidth - kRight, y.at(value), y.at(value), kLeft - 7, y.at(value) + 4,
        short_number(value));
  for (double value : round_ticks(x.low, x.high, 6))
    out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n",
                       x.at(value), kHeight - kBottom + 18, short_number(value));
  out += fmt::format(
      "<text class=\"axis\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n",
      (kLeft + kWidth - kRight) / 2, kHeight - 6, escape_html(chart.x_label));
  return out;
}

std::string curve(const Series& series, const Axis& x, const Axis& y) {
  std::string path, dots;
  for (size_t i = 0; i < series.x.size(); ++i) {
    if (!std::isfinite(series.x[i]) || !std::isfinite(series.y[i])) continue;
    const double px = x.at(series.x[i]), py = y.at(series.y[i]);
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", px, py);
    if (series.dots)
      dots += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.6\" fill=\"var(--c{})\"/>", px,
                          py, series.color);
  }
  if (path.empty()) return "";
  return fmt::format("<path class=\"{}\" stroke=\"var(--c{})\" d=\"{}\"/>{}\n",
                     series.faint ? "curve faint" : "curve", series.color, path, dots);
}

/// Title on the left, names on the right of the same line.
std::string heading(const Chart& chart) {
  std::string out =
      fmt::format("<text class=\"title\" x=\"8\" y=\"18\">{}</text>\n", escape_html(chart.title));
  size_t named = 0;
  for (const Series& series : chart.series) named += series.faint ? 0 : 1;
  if (named < 2) return out;
  double right = kWidth - kRight;
  for (auto series = chart.series.rbegin(); series != chart.series.rend(); ++series) {
    if (series->faint) continue;
    const double width = 6.6 * static_cast<double>(series->name.size());
    out += fmt::format(
        "<rect x=\"{:.1f}\" y=\"9\" width=\"10\" height=\"10\" rx=\"2\" fill=\"var(--c{})\"/>"
        "<text x=\"{:.1f}\" y=\"18\">{}</text>\n",
        right - width - 15, series->color, right - width, escape_html(series->name));
    right -= width + 30;
  }
  return out;
}

/// Points for the pointer's read-out: pixel x, and the text of each value.
std::string pointer_data(const Chart& chart, const Axis& x, const Axis& y) {
  nlohmann::json all = nlohmann::json::array();
  for (const Series& series : chart.series) {
    if (series.faint) continue;
    nlohmann::json points = nlohmann::json::array();
    for (size_t i = 0; i < series.x.size(); ++i) {
      if (!std::isfinite(series.x[i]) || !std::isfinite(series.y[i])) continue;
      const auto tenth = [](double value) { return std::round(value * 10) / 10; };
      points.push_back({tenth(x.at(series.x[i])), tenth(y.at(series.y[i])),
                        fmt::format("{:.6g}", series.x[i]), fmt::format("{:.4g}", series.y[i])});
    }
    all.push_back({{"name", series.name}, {"color", series.color}, {"points", points}});
  }
  return nlohmann::json{{"x", chart.x_label}, {"series", all}}.dump(
      -1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string shortened(const std::string& name, size_t limit) {
  return name.size() <= limit ? name : name.substr(0, limit - 1) + "…";
}

}  // namespace

std::string escape_html(const std::string& text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::vector<double> round_ticks(double low, double high, int count) {
  std::vector<double> ticks;
  if (!(high > low) || !std::isfinite(low) || !std::isfinite(high)) return ticks;
  const double raw = (high - low) / count;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (double digit : {5.0, 2.0, 1.0})
    if (digit * power >= raw * 0.999) step = digit * power;
  for (double index = std::ceil(low / step - 1e-9); index * step <= high + 1e-9 * step; ++index)
    ticks.push_back(index == 0 ? 0.0 : index * step);
  return ticks;
}

std::string short_number(double value) {
  const double size = std::abs(value);
  if (size >= 1e9) return fmt::format("{:.4g}G", value / 1e9);
  if (size >= 1e6) return fmt::format("{:.4g}M", value / 1e6);
  if (size >= 1e4) return fmt::format("{:.4g}k", value / 1e3);
  if (size == 0 || size >= 1e-3) return fmt::format("{:.4g}", value);
  const auto power = static_cast<int>(std::floor(std::log10(size)));
  const std::string text = fmt::format("{:.3g}e{}", value / std::pow(10.0, power), power);
  return text;
}

Series thinned(const Series& series, size_t limit) {
  if (series.x.size() <= limit) return series;
  Series out = series;
  out.x.clear();
  out.y.clear();
  const size_t count = series.x.size();
  for (size_t piece = 0; piece < limit; ++piece) {
    const size_t from = piece * count / limit, to = (piece + 1) * count / limit;
    double x = 0, y = 0;
    for (size_t i = from; i < to; ++i) {
      x += series.x[i];
      y += series.y[i];
    }
    out.x.push_back(x / static_cast<double>(to - from));
    out.y.push_back(y / static_cast<double>(to - from));
  }
  return out;
}

Series smoothed(const Series& series, double window) {
  Series out = series;
  const double keep = 1 - 1 / std::max(1.0, window);
  double sum = 0, weight = 0;
  for (size_t i = 0; i < series.y.size(); ++i) {
    if (!std::isfinite(series.y[i])) continue;
    sum = keep * sum + series.y[i];
    weight = keep * weight + 1;
    out.y[i] = sum / weight;
  }
  return out;
}

std::string line_chart(const Chart& chart) {
  const Axis x = x_axis(chart), y = y_axis(chart);
  std::string curves;
  for (bool faint : {true, false})
    for (const Series& series : chart.series)
      if (series.faint == faint) curves += curve(series, x, y);
  return fmt::format(
      "<figure class=\"chart\" data-chart=\"{}\"><svg viewBox=\"0 0 {} {}\" role=\"img\" "
      "aria-label=\"{}\">\n{}{}{}"
      "<line class=\"pointer\" y1=\"{}\" y2=\"{}\"/></svg></figure>\n",
      escape_html(pointer_data(chart, x, y)), kWidth, kHeight, escape_html(chart.title),
      heading(chart), grid(chart, x, y), curves, kTop, kHeight - kBottom);
}

std::string confusion_map(const std::vector<std::vector<int64_t>>& counts,
                          const std::vector<std::string>& names) {
  const size_t classes = counts.size();
  if (classes == 0) return "";
  const auto label = [&](size_t i) {
    return i < names.size() ? shortened(names[i], 16) : std::to_string(i);
  };
  size_t longest = 1;
  for (size_t i = 0; i < classes; ++i) longest = std::max(longest, label(i).size());
  const double cell = classes <= 12   ? 38
                      : classes <= 20 ? 30
                                      : std::max(4.0, 560.0 / static_cast<double>(classes));
  const bool labelled = classes <= 40, numbered = classes <= 20;
  const double text = labelled ? 7.0 * static_cast<double>(longest) + 10 : 8;
  const bool upright = longest <= 3;
  const double left = text + 22, top = (upright ? 22 : text) + 22,
               side = cell * static_cast<double>(classes);
  std::string out = fmt::format(
      "<svg class=\"confusion\" viewBox=\"0 0 {0:.0f} {1:.0f}\" style=\"max-width:{0:.0f}px\" "
      "role=\"img\" "
      "aria-label=\"confusion matrix\">\n"
      "<text class=\"axis\" x=\"{2:.1f}\" y=\"13\" text-anchor=\"middle\">predicted</text>"
      "<text class=\"axis\" transform=\"translate(13 {3:.1f}) rotate(-90)\" "
      "text-anchor=\"middle\">true</text>\n",
      left + side + 6, top + side + 6, left + side / 2, top + side / 2);
  for (size_t i = 0; i < classes && labelled; ++i) {
    const double middle = cell * (static_cast<double>(i) + 0.5);
    out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>", left - 7,
                       top + middle + 4, escape_html(label(i)));
    out += upright
               ? fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n",
                             left + middle, top - 8, escape_html(label(i)))
               : fmt::format("<text transform=\"translate({:.1f} {:.1f}) rotate(-90)\">{}</text>\n",
                             left + middle + 4, top - 7, escape_html(label(i)));
  }
  for (size_t truth = 0; truth < classes; ++truth) {
    int64_t total = 0;
    for (int64_t count : counts[truth]) total += count;
    for (size_t guess = 0; guess < counts[truth].size(); ++guess) {
      const int64_t count = counts[truth][guess];
      const double share = total > 0 ? static_cast<double>(count) / static_cast<double>(total) : 0;
      const double x = left + cell * static_cast<double>(guess),
                   y = top + cell * static_cast<double>(truth);
      // The square root lifts rare confusions out of the background.
      out += fmt::format(
          "<rect class=\"cell\" x=\"{0:.1f}\" y=\"{1:.1f}\" width=\"{2:.1f}\" height=\"{2:.1f}\"/>"
          "<rect x=\"{0:.1f}\" y=\"{1:.1f}\" width=\"{2:.1f}\" height=\"{2:.1f}\" "
          "fill=\"var(--{3})\" "
          "fill-opacity=\"{4:.3f}\"><title>{5} as {6}: {7} of {8}</title></rect>",
          x, y, cell - (cell > 10 ? 2 : 0), truth == guess ? "good" : "bad",
          std::sqrt(share) * 0.85, escape_html(label(truth)), escape_html(label(guess)), count,
          total);
      if (numbered && count > 0)
        out += fmt::format(
            "<text class=\"count{}\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>",
            share > 0.4 ? " strong" : "", x + cell / 2 - 1, y + cell / 2 + 3, count);
    }
    out += '\n';
  }
  return out + "</svg>\n";
}

}  // namespace vitrail::train

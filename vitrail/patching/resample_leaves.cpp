#pragma GCC optimize("O3,no-trapping-math,fp-contract=off")
#include "vitrail/patching/resample_leaves.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "vitrail/kernels/vectorize.h"

namespace vitrail::patching {
namespace {

using Floats = float __attribute__((vector_size(16)));
using Doubles = double __attribute__((vector_size(32)));
constexpr int64_t kLanes = 4;

template <class Value>
using Block = LeafResampler::Block<Value>;

template <class Value>
Block<Value> dense(Value* data, const std::array<int64_t, 3>& size) {
  return {data, size, size[1] * size[2], size[2]};
}

// By reference: vectors as values would need one calling convention for all processors.
[[gnu::always_inline]] inline void load(const float* from, Doubles& to) {
  Floats values;
  std::memcpy(&values, from, sizeof values);
  to = __builtin_convertvector(values, Doubles);
}
[[gnu::always_inline]] inline void load(const double* from, Doubles& to) {
  std::memcpy(&to, from, sizeof to);
}
[[gnu::always_inline]] inline void store(const Doubles& from, float* to) {
  const Floats values = __builtin_convertvector(from, Floats);
  std::memcpy(to, &values, sizeof values);
}
[[gnu::always_inline]] inline void store(const Doubles& from, double* to) {
  std::memcpy(to, &from, sizeof from);
}

/// `Groups` vectors of results at once, kept in registers over all rows.
template <int Groups, class In, class Out>
[[gnu::always_inline]] inline void mix_lanes(const In* rows, int64_t stride, const double* weight,
                                             int64_t count, Out* out) {
  Doubles sum[Groups] = {};
  for (int64_t j = 0; j < count; ++j, rows += stride)
    for (int g = 0; g < Groups; ++g) {
      Doubles values;
      load(rows + g * kLanes, values);
      sum[g] += weight[j] * values;
    }
  for (int g = 0; g < Groups; ++g) store(sum[g], out + g * kLanes);
}

/// out[x] = sum over j of weight[j] * rows[j * stride + x]
template <class In, class Out>
[[gnu::always_inline]] inline void mix_rows(const In* rows, int64_t stride, const double* weight,
                                            int64_t count, Out* out, int64_t length) {
  int64_t x = 0;
  for (; x + 4 * kLanes <= length; x += 4 * kLanes)
    mix_lanes<4>(rows + x, stride, weight, count, out + x);
  for (; x + kLanes <= length; x += kLanes) mix_lanes<1>(rows + x, stride, weight, count, out + x);
  for (; x < length; ++x) {
    double sum = 0;
    for (int64_t j = 0; j < count; ++j)
      sum += weight[j] * static_cast<double>(rows[j * stride + x]);
    out[x] = static_cast<Out>(sum);
  }
}

/// Along the first (axis 0) or second axis.
template <class In, class Out>
[[gnu::always_inline]] inline void pass_across(const AxisTable& table, int axis,
                                               const Block<const In>& in, const Block<Out>& out) {
  const int64_t stride = axis == 0 ? in.plane : in.row;
  for (int64_t z = 0; z < out.size[0]; ++z)
    for (int64_t y = 0; y < out.size[1]; ++y) {
      const auto i = static_cast<size_t>(axis == 0 ? z : y);
      const int64_t first = table.first[i];
      const In* rows = axis == 0 ? in.at(first, y) : in.at(z, first);
      mix_rows(rows, stride, table.weight.data() + table.begin[i],
               table.begin[i + 1] - table.begin[i], out.at(z, y), out.size[2]);
    }
}

/// Along the last axis.
template <class In, class Out>
[[gnu::always_inline]] inline void pass_along(const AxisTable& table, const Block<const In>& in,
                                              const Block<Out>& out) {
  const int32_t *first = table.first.data(), *begin = table.begin.data();
  const double* weight = table.weight.data();
  for (int64_t z = 0; z < out.size[0]; ++z)
    for (int64_t y = 0; y < out.size[1]; ++y) {
      const In* from = in.at(z, y);
      Out* to = out.at(z, y);
      for (int64_t x = 0; x < out.size[2]; ++x) {
        double sum = 0;
        const In* values = from + first[x];
        for (int32_t j = begin[x]; j < begin[x + 1]; ++j)
          sum += weight[j] * static_cast<double>(*values++);
        to[x] = static_cast<Out>(sum);
      }
    }
}

template <class In, class Out>
[[gnu::always_inline]] inline void pass(const AxisTable& table, int axis, const Block<const In>& in,
                                        const Block<Out>& out) {
  if (axis == 2)
    pass_along(table, in, out);
  else
    pass_across(table, axis, in, out);
}

// Between passes values stay doubles, so that results are rounded once.
VT_VECTORIZED void only_pass(const AxisTable& table, int axis, const Block<const float>& in,
                             const Block<float>& out) {
  pass(table, axis, in, out);
}
VT_VECTORIZED void first_pass(const AxisTable& table, int axis, const Block<const float>& in,
                              const Block<double>& out) {
  pass(table, axis, in, out);
}
VT_VECTORIZED void middle_pass(const AxisTable& table, int axis, const Block<const double>& in,
                               const Block<double>& out) {
  pass(table, axis, in, out);
}
VT_VECTORIZED void last_pass(const AxisTable& table, int axis, const Block<const double>& in,
                             const Block<float>& out) {
  pass(table, axis, in, out);
}

VT_VECTORIZED void copy(const Block<const float>& in, const Block<float>& out) {
  constexpr int64_t kStep = 2 * kLanes;
  const int64_t length = in.size[2], whole = length / kStep * kStep;
  for (int64_t z = 0; z < in.size[0]; ++z)
    for (int64_t y = 0; y < in.size[1]; ++y) {
      const float* from = in.at(z, y);
      float* to = out.at(z, y);
      for (int64_t x = 0; x < whole; x += kStep)
        std::memcpy(to + x, from + x, kStep * sizeof(float));  // of fixed size: no call
      for (int64_t x = whole; x < length; ++x) to[x] = from[x];
    }
}

/// How many values of each axis one result is the mean of.
using Runs = std::array<int64_t, 3>;

/// Whether every result is the mean of whole values, its own ones.
bool has_runs(const std::array<int64_t, 3>& in, const std::array<int64_t, 3>& out) {
  for (size_t a = 0; a < 3; ++a)
    if (in[a] % out[a] != 0) return false;
  return true;
}
Runs runs_for(const std::array<int64_t, 3>& in, const std::array<int64_t, 3>& out) {
  if (!has_runs(in, out)) return {1, 1, 1};
  return {in[0] / out[0], in[1] / out[1], in[2] / out[2]};
}

/// Fetches rows some time before they are read, in the order of average(): rows of a leaf lie too far apart for the
/// processor to see what comes next.
class RowsAhead {
 public:
  static constexpr int64_t kRows = 16;  // 4 and 24 are slower

  /// The first kRows of `now` were fetched when it was the next.
  RowsAhead(const Block<const float>& now, const Runs& runs, const Block<const float>& next,
            const Runs& next_runs)
      : block_(&now), next_(&next), runs_(&runs), next_runs_(&next_runs) {
    for (int64_t i = 0; i < kRows; ++i) step();
  }

  void fetch(int64_t rows) {
    for (int64_t i = 0; i < rows; ++i) {
      const char* row = reinterpret_cast<const char*>(block_->at(z_ + k_, y_ + j_));
      const int64_t bytes = block_->size[2] * int64_t{sizeof(float)};
      for (int64_t at = 0; at < bytes; at += kLine) __builtin_prefetch(row + at);
      step();
    }
  }

 private:
  static constexpr int64_t kLine = 64;

  void step() {
    if (++j_ < (*runs_)[1]) return;
    j_ = 0;
    if (++k_ < (*runs_)[0]) return;
    k_ = 0;
    if ((y_ += (*runs_)[1]) < block_->size[1]) return;
    y_ = 0;
    if ((z_ += (*runs_)[0]) < block_->size[0]) return;
    z_ = 0;
    block_ = next_;
    runs_ = next_runs_;
  }

  const Block<const float>*block_, *next_;
  const Runs *runs_, *next_runs_;
  int64_t z_ = 0, y_ = 0, k_ = 0, j_ = 0;  // k_, j_: inside a run
};

/// sums (+)= `Rows` rows of values
template <int Rows>
[[gnu::always_inline]] inline void add_rows(const float* __restrict row, int64_t stride,
                                            bool is_first, double* __restrict sums, int64_t width) {
  const auto sum = [=](int64_t x) __attribute__((always_inline)) {
    double value = 0;
    for (int r = 0; r < Rows; ++r) value += static_cast<double>(row[r * stride + x]);
    return value;
  };
  if (is_first)
    for (int64_t x = 0; x < width; ++x) sums[x] = sum(x);
  else
    for (int64_t x = 0; x < width; ++x) sums[x] += sum(x);
}

/// out[i] = in[2i] + in[2i + 1]
[[gnu::always_inline]] inline void add_pairs(const double* __restrict in, double* __restrict out,
                                             int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = in[2 * i] + in[2 * i + 1];
}

/// sums = the sum of the rows of a run of planes and rows. `first`: of that run.
[[gnu::always_inline]] inline void add_run(const Runs& runs, const float* first,
                                           const Block<const float>& in, RowsAhead& ahead,
                                           double* sums) {
  const int64_t width = in.size[2], count = runs[1];
  for (int64_t k = 0; k < runs[0]; ++k) {
    const float* row = first + k * in.plane;
    int64_t j = 0;
    for (; j + 4 <= count; j += 4, row += 4 * in.row) {
      ahead.fetch(4);
      add_rows<4>(row, in.row, k + j == 0, sums, width);
    }
    for (; j + 2 <= count; j += 2, row += 2 * in.row) {
      ahead.fetch(2);
      add_rows<2>(row, in.row, k + j == 0, sums, width);
    }
    if (j < count) {
      ahead.fetch(1);
      add_rows<1>(row, in.row, k + j == 0, sums, width);
    }
  }
}

/// out[x] = weight * the sum of `run` sums
[[gnu::always_inline]] inline void write_means(double* sums, double* halves, int64_t run,
                                               double weight, float* out, int64_t count) {
  int64_t width = count * run;
  for (; run % 2 == 0; run /= 2, std::swap(sums, halves)) add_pairs(sums, halves, width /= 2);
  if (run == 1) {
    for (int64_t x = 0; x < count; ++x) out[x] = static_cast<float>(weight * sums[x]);
    return;
  }
  for (int64_t x = 0; x < count; ++x) {
    double sum = 0;
    for (int64_t i = 0; i < run; ++i) sum += sums[x * run + i];
    out[x] = static_cast<float>(weight * sum);
  }
}

/// Means of blocks of values; sums and halves: room for a row. Equal values give themselves: sums of up to 2^29 of one
/// float are exact in a double, and what the product lacks is far less than half an ulp of a float.
VT_VECTORIZED void average(const Runs& runs, const Block<const float>& in, const Block<float>& out,
                           RowsAhead ahead, double* sums, double* halves) {
  const double weight = 1 / static_cast<double>(runs[0] * runs[1] * runs[2]);
  for (int64_t z = 0; z < out.size[0]; ++z)
    for (int64_t y = 0; y < out.size[1]; ++y) {
      add_run(runs, in.at(z * runs[0], y * runs[1]), in, ahead, sums);
      write_means(sums, halves, runs[2], weight, out.at(z, y), out.size[2]);
    }
}

/// The leaf's pixels in one channel of an image.
template <class Value>
Block<Value> leaf_block(Value* channel, const LeafBoxes& boxes, int64_t leaf) {
  const auto& [low, size] = boxes.leaf(leaf);
  const std::array<int64_t, 3>& sides = boxes.sides();
  const int64_t plane = sides[1] * sides[2], row = sides[2];
  return {channel + low[0] * plane + low[1] * row + low[2], size, plane, row};
}

/// Axes that change, cheapest order: those that shrink first, and long rows kept as long as they are many.
struct Passes {
  std::array<int, 3> axis{};
  size_t count = 0;
};
Passes passes_for(const std::array<int64_t, 3>& in, const std::array<int64_t, 3>& out) {
  Passes passes;
  for (const int a : {0, 1, 2})
    if (out[static_cast<size_t>(a)] < in[static_cast<size_t>(a)]) passes.axis[passes.count++] = a;
  for (const int a : {2, 1, 0})
    if (out[static_cast<size_t>(a)] > in[static_cast<size_t>(a)]) passes.axis[passes.count++] = a;
  return passes;
}

}  // namespace

AxisTable axis_table(const Axis& axis) {
  AxisTable table;
  table.begin.push_back(0);
  for (int32_t i = 0; i < axis.to; ++i) {
    const AxisTaps taps = taps_of(axis, i);
    table.first.push_back(taps.first);
    for (int32_t j = 0; j < taps.count; ++j) table.weight.push_back(taps.at(j));
    table.begin.push_back(static_cast<int32_t>(table.weight.size()));
  }
  return table;
}

AxisTable adjoint_table(const Axis& axis) {
  std::vector<AxisTaps> results;
  for (int32_t i = 0; i < axis.to; ++i) results.push_back(taps_of(axis, i));
  AxisTable table;
  table.begin.push_back(0);
  for (int32_t j = 0; j < axis.from; ++j) {
    const auto holds = [&](int32_t i) {
      const AxisTaps& taps = results[static_cast<size_t>(i)];
      return j >= taps.first && j < taps.first + taps.count;
    };
    auto [low, high] = results_with(axis, j);
    while (low < high && !holds(low)) ++low;
    while (low < high && !holds(high - 1)) --high;
    table.first.push_back(low < high ? low : 0);
    for (int32_t i = low; i < high; ++i) {
      const AxisTaps& taps = results[static_cast<size_t>(i)];
      table.weight.push_back(taps.at(j - taps.first));
    }
    table.begin.push_back(static_cast<int32_t>(table.weight.size()));
  }
  return table;
}

const AxisTable& LeafResampler::table(int64_t leaf_side) {
  const auto n = static_cast<size_t>(leaf_side);
  if (tables_.size() <= n) tables_.resize(n + 1);
  if (!tables_[n]) {
    const Axis axis = map_.axis(static_cast<int32_t>(leaf_side), static_cast<int32_t>(patch_size_));
    tables_[n] =
        std::make_unique<AxisTable>(map_.is_adjoint ? adjoint_table(axis) : axis_table(axis));
  }
  return *tables_[n];
}

void LeafResampler::run(const Block<const float>& in, const Block<const float>& next,
                        const Block<float>& out, const std::array<int64_t, 3>& leaf_size) {
  const Passes passes = passes_for(in.size, out.size);
  if (passes.count == 0) return copy(in, out);
  if (averages() && has_runs(in.size, out.size)) {
    const auto width = static_cast<size_t>(in.size[2]);
    for (std::vector<double>& scratch : scratch_)
      if (scratch.size() < width) scratch.resize(width);
    const Runs runs = runs_for(in.size, out.size), next_runs = runs_for(next.size, out.size);
    return average(runs, in, out, {in, runs, next, next_runs}, scratch_[0].data(),
                   scratch_[1].data());
  }
  const auto table_of = [&](size_t p) -> const AxisTable& {
    return table(leaf_size[static_cast<size_t>(passes.axis[p])]);
  };
  if (passes.count == 1) return only_pass(table_of(0), passes.axis[0], in, out);
  std::array<int64_t, 3> size = in.size;
  const auto next_scratch = [&](size_t p) {
    const auto axis = static_cast<size_t>(passes.axis[p]);
    size[axis] = out.size[axis];
    std::vector<double>& scratch = scratch_[p];
    const auto values = static_cast<size_t>(size[0] * size[1] * size[2]);
    if (scratch.size() < values) scratch.resize(values);
    return dense(scratch.data(), size);
  };
  const auto read = [](const Block<double>& block) {
    return Block<const double>{block.data, block.size, block.plane, block.row};
  };
  Block<double> between = next_scratch(0);
  first_pass(table_of(0), passes.axis[0], in, between);
  if (passes.count == 3) {
    const Block<double> second = next_scratch(1);
    middle_pass(table_of(1), passes.axis[1], read(between), second);
    between = second;
  }
  const size_t last = passes.count - 1;
  last_pass(table_of(last), passes.axis[last], read(between), out);
}

void LeafResampler::operator()(const LeafBoxes& boxes, int64_t leaf, const float* in, float* out) {
  const std::array<int64_t, 3> patch{boxes.axes() == 3 ? patch_size_ : 1, patch_size_, patch_size_};
  const int64_t patch_pixels = patch[0] * patch[1] * patch[2];
  const int64_t pixels = boxes.sides()[0] * boxes.sides()[1] * boxes.sides()[2];
  const std::array<int64_t, 3>& leaf_size = boxes.leaf(leaf).size;
  const bool is_last = leaf + 1 == boxes.count() || boxes.is_padding(leaf + 1);
  for (int64_t c = 0; c < channels_; ++c) {
    const int64_t token = (c * boxes.count() + leaf) * patch_pixels;
    if (map_.to_patch() && boxes.is_padding(leaf)) {
      std::fill_n(out + token, patch_pixels, 0.0f);
    } else if (map_.to_patch()) {
      const Block<const float> block = leaf_block(in + c * pixels, boxes, leaf);
      const Block<const float> next = c + 1 < channels_
                                          ? leaf_block(in + (c + 1) * pixels, boxes, leaf)
                                      : is_last ? block
                                                : leaf_block(in, boxes, leaf + 1);
      run(block, next, dense(out + token, patch), leaf_size);
    } else if (!boxes.is_padding(leaf)) {
      const Block<const float> block = dense(in + token, patch);
      run(block, block, leaf_block(out + c * pixels, boxes, leaf), leaf_size);
    }
  }
}

}  // namespace vitrail::patching

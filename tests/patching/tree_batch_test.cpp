// Trees over batches on the CPU: as sample by sample, over given scores as a brute force, all steps.

#include <algorithm>
#include <cmath>

#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/rand.h>
#include <gtest/gtest.h>

#include "tests/patching/tree_samples.h"
#include "vitrail/config/recipe_model.h"
#include "vitrail/core/error.h"
#include "vitrail/patching/adaptive.h"
#include "vitrail/patching/batch.h"

namespace vitrail::patching {
namespace {

using test::random_maps;
using test::random_scores;

std::vector<float> values_of(const at::Tensor& tensor) {
  const at::Tensor values = tensor.contiguous();
  const auto* first = values.const_data_ptr<float>();
  return {first, first + values.numel()};
}

TEST(BatchTree, GivesEachSampleItsOwnTree) {
  for (const std::vector<int64_t>& sides : {std::vector<int64_t>{61, 40}, {17, 23, 30}, {1, 50}})
    for (const Order order : {Order::morton, Order::raster}) {
      LeafOptions options{50, 4, 3};
      options.order = order;
      options.value_floor = 0;
      const at::Tensor maps = random_maps(12, sides, 1);
      const at::Tensor boxes = leaf_boxes(maps, options);
      ASSERT_EQ(boxes.sizes().vec(), (std::vector<int64_t>{12, 50, 2 * std::ssize(sides)}));
      for (int64_t b = 0; b < 12; ++b) {
        const at::Tensor map = maps.select(0, b).contiguous();
        std::vector<float> expected(static_cast<size_t>(box_values(options, std::ssize(sides))));
        leaf_boxes(std::span(map.const_data_ptr<uint8_t>(), static_cast<size_t>(map.numel())),
                   sides, options, expected);
        EXPECT_EQ(values_of(boxes.select(0, b)), expected);
      }
    }
}

TEST(BatchTree, IsTheSameOnAnyNumberOfThreads) {
  const at::Tensor maps = random_maps(9, {50, 70}, 2);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = leaf_boxes(maps, {100, 4, 2});
  at::set_num_threads(4);
  const at::Tensor four = leaf_boxes(maps, {100, 4, 2});
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one, four));
}

/// A list of cells in Morton order in which children take their parent's place; every division looks
/// at all of them.
std::vector<float> divided_by_force(const std::vector<at::Tensor>& scores, int64_t b,
                                    int64_t min_leaf, int64_t count) {
  struct Cell {
    int64_t level;
    std::vector<int64_t> at;
  };
  const auto score = [&](const Cell& cell) {
    at::Tensor value = scores[static_cast<size_t>(cell.level)].select(0, b);
    for (const int64_t i : cell.at) value = value.select(0, i);
    const float number = value.item<float>();
    return std::isnan(number) ? std::pair(0, 0.0f) : std::pair(1, number);  // NaN is the least
  };
  const at::Tensor& last = scores.back();
  const int64_t axes = last.dim() - 1, top = std::ssize(scores) - 1;
  std::vector<Cell> cells;
  // Morton order of the coarsest: all codes of a cube around the grid.
  for (int64_t code = 0; code < int64_t{1} << (4 * axes); ++code) {
    Cell cell{top, std::vector<int64_t>(static_cast<size_t>(axes), 0)};
    for (int64_t bit = 0; bit < 4 * axes; ++bit)
      cell.at[static_cast<size_t>(axes - 1 - bit % axes)] |= (code >> bit & 1) << bit / axes;
    bool exists = true;
    for (int64_t axis = 0; axis < axes; ++axis)
      exists = exists && cell.at[static_cast<size_t>(axis)] < last.size(axis + 1);
    if (exists) cells.push_back(cell);
  }
  while (std::ssize(cells) < count) {
    size_t best = cells.size();
    for (size_t i = 0; i < cells.size(); ++i)
      if (cells[i].level > 0 &&
          (best == cells.size() || score(cells[i]) > score(cells[best]) ||
           (score(cells[i]) == score(cells[best]) && cells[i].level > cells[best].level)))
        best = i;
    const Cell parent = cells[best];
    cells.erase(cells.begin() + static_cast<std::ptrdiff_t>(best));
    for (int64_t corner = (int64_t{1} << axes) - 1; corner >= 0; --corner) {
      Cell child{parent.level - 1, parent.at};
      for (int64_t axis = 0; axis < axes; ++axis) {
        int64_t& i = child.at[static_cast<size_t>(axis)];
        i = 2 * i + (corner >> (axes - 1 - axis) & 1);
      }
      cells.insert(cells.begin() + static_cast<std::ptrdiff_t>(best), child);
    }
  }
  std::vector<float> boxes;
  for (const Cell& cell : cells)
    for (const int64_t end : {0, 1})
      for (const int64_t i : cell.at)
        boxes.push_back(static_cast<float>(((i + end) << cell.level) * min_leaf));
  return boxes;
}

TEST(BatchTree, DividesGivenScoresAsTheBruteForce) {
  int64_t trees = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    const bool is_volume = seed % 4 == 3;
    const auto draw = [&](uint32_t element, uint32_t below) {
      return static_cast<int64_t>(core::draw(test::kTreeKey, seed + 9'000, element) % below);
    };
    std::vector<int64_t> grid{1 + draw(0, 4), 1 + draw(1, 5)};
    if (is_volume) grid = {1 + draw(0, 2), 1 + draw(1, 2), 1 + draw(2, 3)};
    const int64_t levels = 1 + draw(3, 3), more = is_volume ? 7 : 3;
    const auto scores = random_scores(2, grid, levels, seed);
    const int64_t first = scores.back()[0].numel(), all = scores.front()[0].numel();
    const int64_t count = first + more * draw(4, static_cast<uint32_t>((all - first) / more + 1));
    const at::Tensor boxes = divide(scores, 1 + draw(5, 20), count, Order::morton);
    for (int64_t b = 0; b < 2; ++b, ++trees)
      EXPECT_EQ(values_of(boxes[b]), divided_by_force(scores, b, 1 + draw(5, 20), count))
          << "seed " << seed;
  }
  std::printf("%lld trees\n", static_cast<long long>(trees));
}

TEST(BatchTree, DivisionMayBeInRasterOrder) {
  const auto scores = random_scores(3, {3, 2}, 3, 7);
  const auto morton = divide(scores, 16, 6 + 3 * 9, Order::morton);
  const auto raster = divide(scores, 16, 6 + 3 * 9, Order::raster);
  for (int64_t b = 0; b < 3; ++b) {
    std::vector<std::vector<float>> rows[2];
    for (int64_t leaf = 0; leaf < morton.size(1); ++leaf) {
      rows[0].push_back(values_of(morton[b][leaf]));
      rows[1].push_back(values_of(raster[b][leaf]));
    }
    EXPECT_NE(rows[0], rows[1]);
    std::sort(rows[0].begin(), rows[0].end());  // by the low corner, first axis first
    EXPECT_EQ(rows[0], rows[1]);
  }
}

TEST(BatchTree, RefusesDivisionsThatDoNotComeOut) {
  const auto scores = random_scores(1, {2, 2}, 3, 1);
  EXPECT_NO_THROW(divide(scores, 16, 4, Order::morton));
  EXPECT_NO_THROW(divide(scores, 16, 64, Order::morton));
  for (const int64_t count : {0, 1, 5, 67})
    EXPECT_THROW(divide(scores, 16, count, Order::morton), core::Error);
  EXPECT_THROW(divide({scores[0], scores[2]}, 16, 4, Order::morton), core::Error);
  EXPECT_THROW(divide({}, 16, 4, Order::morton), core::Error);
}

config::Model model_of(int64_t fixed_length) {
  config::Model model;
  model.image_size = {64, 64};
  model.patch_size = 8;
  model.adaptive.fixed_length = fixed_length;
  return model;
}

TEST(LeafOptions, AreTheModels) {
  config::Model model = model_of(99);
  EXPECT_EQ(leaf_options(model).min_leaf, 8);
  EXPECT_EQ(leaf_options(model).fixed_length, 99);
  EXPECT_EQ(leaf_options(model).order, Order::morton);
  model.adaptive.min_leaf = 2;
  model.adaptive.order.value = "raster";
  model.adaptive.importance.value = "feature_based";
  model.adaptive.resample.value = "cubic";
  model.adaptive.labels.value = "nearest";
  model.adaptive.trees.value = "per_channel";
  model.adaptive.compat.value = "ucf-vit";
  const LeafOptions options = leaf_options(model);
  EXPECT_EQ(options.min_leaf, 2);
  EXPECT_EQ(options.order, Order::raster);
  EXPECT_EQ(options.importance, Importance::given);
  EXPECT_EQ(options.resample, Resample::cubic);
  EXPECT_EQ(options.labels, LabelRule::nearest);
  EXPECT_TRUE(options.per_channel && options.compat);
}

/// Images with squares, and a range for each channel.
struct Images {
  at::Tensor image, range, ids;
};
Images images(const std::vector<int64_t>& shape, bool has_range) {
  Images made;
  made.image = at::rand(shape).mul_(0.05);
  const int64_t side = shape.back();
  for (int64_t b = 0; b < shape[0]; ++b)
    for (int64_t c = 0; c < shape[1]; ++c)
      made.image[b][c].slice(0, side / 4, side / 2 + b).slice(1, c * 7, c * 7 + side / 3).add_(0.5);
  if (has_range) {
    made.range = at::empty({shape[0], shape[1], 2}, at::kFloat);
    made.range.select(2, 0).fill_(-0.1);
    made.range.select(2, 1).fill_(1.1);
  }
  made.ids = at::empty({shape[0]}, at::kLong);
  for (int64_t b = 0; b < shape[0]; ++b) made.ids[b].fill_(1000 + b);
  return made;
}

TEST(MakeLeaves, IsPatchifyOfEachSample) {
  for (const bool has_range : {false, true})
    for (const std::vector<int64_t>& shape :
         {std::vector<int64_t>{3, 2, 64, 64}, {2, 1, 32, 32, 32}})
      for (const bool is_compat : {false, true}) {
        LeafOptions options{64, 8, 4};
        options.compat = is_compat;
        const Images made = images(shape, has_range);
        const at::Tensor edges = edge_options({}, 3, 1, made.ids, true);
        const LeafTensors leaves = make_leaves(made.image, made.range, options, edges);
        const std::vector<int64_t> sides(shape.begin() + 2, shape.end());
        for (int64_t b = 0; b < shape[0]; ++b) {
          const auto image = values_of(made.image[b]);
          const auto range = has_range ? values_of(made.range[b]) : std::vector<float>{};
          const Leaves expected =
              patchify(image, shape[1], sides, range, options, drawn_edges(3, 1, 1000 + b));
          EXPECT_EQ(values_of(leaves.boxes[b]), expected.boxes);
          EXPECT_EQ(values_of(leaves.tokens[b]), expected.tokens);
          EXPECT_GT(expected.count, 10);
        }
      }
}

TEST(MakeLeaves, PutsTreesOfChannelsOneBehindTheOther) {
  LeafOptions options{40, 8, 4};
  const Images made = images({2, 3, 64, 64}, true);
  const at::Tensor edges = edge_options({}, 3, 1, made.ids, false);
  options.per_channel = true;
  const LeafTensors all = make_leaves(made.image, made.range, options, edges);
  EXPECT_EQ(all.tokens.sizes().vec(), (std::vector<int64_t>{2, 1, 120, 64}));
  EXPECT_EQ(all.boxes.sizes().vec(), (std::vector<int64_t>{2, 120, 4}));
  options.per_channel = false;
  for (int64_t c = 0; c < 3; ++c) {
    const LeafTensors one =
        make_leaves(made.image.slice(1, c, c + 1), made.range.slice(1, c, c + 1), options, edges);
    EXPECT_TRUE(at::equal(all.tokens.slice(2, 40 * c, 40 * c + 40), one.tokens));
    EXPECT_TRUE(at::equal(all.boxes.slice(1, 40 * c, 40 * c + 40), one.boxes));
  }
  EXPECT_FALSE(at::equal(all.boxes.slice(1, 0, 40), all.boxes.slice(1, 40, 80)));
}

TEST(MakeLeaves, TakesImportanceFromElsewhere) {
  const LeafOptions options{40, 8, 4};
  const Images made = images({2, 3, 64, 64}, false);
  const at::Tensor maps = random_maps(2, {64, 64}, 5);
  const LeafTensors leaves = make_leaves(made.image, {}, options, {}, maps);
  EXPECT_TRUE(at::equal(leaves.boxes, leaf_boxes(maps, options)));
}

}  // namespace
}  // namespace vitrail::patching

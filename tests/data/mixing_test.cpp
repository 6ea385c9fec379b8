// Mixing of sources as the loader does it.

#include <algorithm>
#include <set>

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test_data.h"
#include "vitrail/core/error.h"
#include "vitrail/data/dump.h"
#include "vitrail/data/loader.h"

namespace vitrail::data {
namespace {

using test::random_source;
using testing::HasSubstr;

config::Model three_variables() {
  config::Model model = test::model_of({8, 8}, 3, 4);
  model.variables = {"u", "v", "w"};
  return model;
}

/// Sources of two and of one variable.
std::vector<config::Source> unlike_sources() {
  std::vector<config::Source> sources{random_source(40), random_source(24)};
  sources[0].variables = {"u", "w"};
  sources[1].variables = {"v"};
  sources[0].augment = sources[1].augment = {"flip"};
  return sources;
}

LoaderOptions options_of(Mixing mixing, int64_t rank = 0, int64_t ranks = 1) {
  LoaderOptions options;
  options.global_batch = 12;
  options.data_rank = rank;
  options.data_ranks = ranks;
  options.seed = 5;
  options.mixing = mixing;
  return options;
}

std::vector<int64_t> to_vector(const at::Tensor& tensor) {
  const int64_t* values = tensor.const_data_ptr<int64_t>();
  return {values, values + tensor.numel()};
}

TEST(BatchMixing, BatchesOfSourcesOfDifferentVariablesAreTheSameForAnyRanks) {
  Loader alone(unlike_sources(), three_variables(), options_of(Mixing::batch));
  std::vector<Batch> expected;
  for (int64_t b = 0; b < 12; ++b) expected.push_back(alone.next());
  std::set<std::vector<std::string>> variables;
  for (const Batch& batch : expected) {
    variables.insert(batch.variables);
    EXPECT_EQ(batch.image.size(1), static_cast<int64_t>(batch.variables.size()));
    for (const int64_t id : to_vector(batch.sample_ids))
      EXPECT_EQ(alone.source_of(id), batch.variables.size() == 2 ? 0 : 1);
  }
  EXPECT_EQ(variables.size(), 2u);
  for (const int64_t ranks : {2, 3, 12}) {
    std::vector<Loader> loaders;
    for (int64_t rank = 0; rank < ranks; ++rank)
      loaders.emplace_back(unlike_sources(), three_variables(),
                           options_of(Mixing::batch, rank, ranks));
    for (const Batch& batch : expected) {
      std::vector<at::Tensor> images;
      for (Loader& loader : loaders) images.push_back(loader.next().image);
      EXPECT_TRUE(at::equal(at::cat(images), batch.image)) << ranks;
    }
  }
}

TEST(BatchMixing, ResumesMidEpochOnAnotherNumberOfRanks) {
  Loader whole(unlike_sources(), three_variables(), options_of(Mixing::batch));
  for (int64_t b = 0; b < 8; ++b) whole.next();
  const LoaderState state = whole.state();
  EXPECT_EQ(state.epoch, 1);
  EXPECT_EQ(state.batch, 3);
  Loader left(unlike_sources(), three_variables(), options_of(Mixing::batch, 0, 2), state);
  Loader right(unlike_sources(), three_variables(), options_of(Mixing::batch, 1, 2), state);
  for (int64_t b = 0; b < 7; ++b) {
    const at::Tensor image = at::cat({left.next().image, right.next().image});
    EXPECT_TRUE(at::equal(image, whole.next().image));
  }
  EXPECT_EQ(left.progress()[0].samples, whole.progress()[0].samples);
}

TEST(SampleMixing, ResumesMidEpochOnAnotherNumberOfRanks) {
  std::vector<config::Source> sources{random_source(40), random_source(24)};
  const config::Model model = test::model_of({6, 6}, 3, 4);
  Loader whole(sources, model, options_of(Mixing::sample));
  std::vector<Loader> three;
  for (int64_t rank = 0; rank < 3; ++rank)
    three.emplace_back(sources, model, options_of(Mixing::sample, rank, 3));
  for (int64_t b = 0; b < 7; ++b) {
    whole.next();
    for (Loader& loader : three) loader.next();
  }
  std::vector<Loader> four;
  for (int64_t rank = 0; rank < 4; ++rank)
    four.emplace_back(sources, model, options_of(Mixing::sample, rank, 4), three[0].state());
  for (int64_t b = 0; b < 7; ++b) {
    std::vector<at::Tensor> images;
    for (Loader& loader : four) images.push_back(loader.next().image);
    EXPECT_TRUE(at::equal(at::cat(images), whole.next().image));
  }
}

TEST(RankMixing, RanksReadTheirOwnSourceByMeasuredCost) {
  // 40 samples of two channels and 24 of one: quotas of 4 ranks 3.1 and 0.9.
  std::vector<std::vector<int64_t>> ids(4);
  for (int64_t rank = 0; rank < 4; ++rank) {
    Loader loader(unlike_sources(), three_variables(), options_of(Mixing::rank, rank, 4));
    EXPECT_EQ(loader.batches_per_epoch(), 8) << "24 samples, 3 a step";
    for (int64_t b = 0; b < 8; ++b) {
      const Batch batch = loader.next();
      EXPECT_EQ(batch.size(), 3);
      EXPECT_EQ(batch.variables,
                rank < 3 ? (std::vector<std::string>{"u", "w"}) : (std::vector<std::string>{"v"}));
      const std::vector<int64_t> part = to_vector(batch.sample_ids);
      std::vector<int64_t>& mine = ids[static_cast<size_t>(rank)];
      mine.insert(mine.end(), part.begin(), part.end());
      EXPECT_EQ(loader.draw_epoch(batch, 0), rank < 3 ? (b * 9 + rank * 3) / 40 : 0);
    }
    const std::vector<SourceProgress> progress = loader.progress();
    EXPECT_EQ(progress[0].samples, 72);
    EXPECT_EQ(progress[0].epochs, 1.8);
    EXPECT_EQ(progress[1].epochs, 1.0);
  }
  EXPECT_EQ(std::set<int64_t>(ids[3].begin(), ids[3].end()).size(), 24u);
  std::set<int64_t> first;
  for (size_t rank = 0; rank < 3; ++rank) first.insert(ids[rank].begin(), ids[rank].end());
  EXPECT_EQ(first.size(), 40u);
}

TEST(RankMixing, TakesTheRanksThatAreAskedFor) {
  LoaderOptions options = options_of(Mixing::rank, 1, 4);
  options.ranks_per_source = {1, 3};
  Loader loader(unlike_sources(), three_variables(), options);
  EXPECT_EQ(loader.next().variables, std::vector<std::string>{"v"});
  EXPECT_EQ(loader.batches_per_epoch(), 14) << "40 samples, 3 a step";
  options.ranks_per_source = {2, 1};
  EXPECT_THAT(test::message_of<core::ConfigError>(
                  [&] { Loader(unlike_sources(), three_variables(), options); }),
              HasSubstr("ranks_per_source"));
}

TEST(SampleMixing, NeedsOneSetOfVariablesAndReportsExpectedProgress) {
  EXPECT_THAT(test::message_of<core::ConfigError>(
                  [] { Loader(unlike_sources(), three_variables(), options_of(Mixing::sample)); }),
              HasSubstr("set data.mixing to batch or rank"));
  Loader loader({random_source(40), random_source(24)}, test::model_of({6, 6}, 3, 4),
                options_of(Mixing::sample));
  for (int64_t b = 0; b < 6; ++b) loader.next();
  EXPECT_EQ(loader.progress()[0].samples, 45) << "40 / 64 of six batches of 12";
  EXPECT_EQ(loader.progress()[1].epochs, 72.0 / 64);
}

TEST(Dump, WritesWhereTheSamplesOfMixedBatchesBegin) {
  std::vector<config::Source> sources{random_source(6), random_source(3)};
  for (config::Source& source : sources) {
    source.random_crop.per_epoch = 1;
    source.random_crop.size = {4, 4};
  }
  LoaderOptions options = options_of(Mixing::batch);
  options.global_batch = 3;
  options.drop_last = false;
  config::Model model = test::model_of({8, 8}, 1, 4);
  for (config::Source& source : sources) source.resize = {8, 8};
  const Dump found = dump(sources, model, options, 0, 18);
  Loader loader(sources, model, options);
  for (int64_t b = 0; b < 6; ++b) {
    const Batch batch = loader.next();
    for (int64_t p = 0; p < 3; ++p) {
      const int64_t id = batch.sample_ids[p].item<int64_t>();
      const int64_t pass = b / 3;  // 6 and 3 samples in 2 batches and one: an epoch is a pass
      EXPECT_EQ(loader.draw_epoch(batch, p), pass);
      EXPECT_EQ(found.origin[b * 3 + p][0].item<int64_t>(), loader.window(pass, id).origin[0]);
    }
  }
}

}  // namespace
}  // namespace vitrail::data

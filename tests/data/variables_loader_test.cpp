// Batches of one variable.

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "test_data.h"
#include "vitrail/data/loader.h"

namespace vitrail::data {
namespace {

config::Model three_variables(bool single_channel) {
  config::Model model = test::model_of({8, 8}, 3, 4);
  model.variables = {"u", "v", "w"};
  model.single_channel = single_channel;
  return model;
}

Loader loader_of(bool single_channel, int64_t rank, int64_t ranks, LoaderState start = {}) {
  config::Source source;
  source.reader.value = "random";
  source.root = "24";
  LoaderOptions options;
  options.global_batch = 4;
  options.seed = 3;
  options.data_rank = rank;
  options.data_ranks = ranks;
  return Loader({source}, three_variables(single_channel), options, start);
}

TEST(SingleChannelLoader, VariablesTakeTurnsFromBatchToBatch) {
  Loader whole = loader_of(false, 0, 1), single = loader_of(true, 0, 1);
  const std::vector<std::string> names{"u", "v", "w"};
  for (int64_t b = 0; b < 14; ++b) {  // two epochs of six batches and more
    const Batch all = whole.next(), one = single.next();
    EXPECT_EQ(one.image.size(1), 1);
    EXPECT_EQ(one.variables, std::vector<std::string>{names[static_cast<size_t>(b % 3)]});
    EXPECT_TRUE(at::equal(one.image, all.image.narrow(1, b % 3, 1)));
    EXPECT_TRUE(at::equal(one.sample_ids, all.sample_ids));
  }
}

TEST(SingleChannelLoader, EveryRankGetsTheSameVariableAndAResumedRunGoesOnWithIt) {
  Loader first = loader_of(true, 0, 2), second = loader_of(true, 1, 2);
  for (int64_t b = 0; b < 5; ++b) EXPECT_EQ(first.next().variables, second.next().variables);
  Loader resumed = loader_of(true, 1, 2, second.state());
  const Batch expected = second.next(), found = resumed.next();
  EXPECT_EQ(found.variables, expected.variables);
  EXPECT_TRUE(at::equal(found.image, expected.image));
}

}  // namespace
}  // namespace vitrail::data

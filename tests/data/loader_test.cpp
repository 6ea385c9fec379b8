#include "vitrail/data/loader.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <numeric>
#include <set>
#include <thread>

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test_data.h"
#include "vitrail/core/error.h"

namespace vitrail::data {
namespace {

using test::model_of;
using test::random_source;
using testing::HasSubstr;

config::Model small_model() { return model_of({6, 6}, 3, 10); }

/// Two sources with augmentation, 100 + 92 samples.
std::vector<config::Source> two_sources() {
  std::vector<config::Source> sources = {random_source(100), random_source(92)};
  for (config::Source& source : sources) source.augment = {"flip", "crop:1"};
  return sources;
}

LoaderOptions training(int64_t global_batch, int64_t rank = 0, int64_t ranks = 1) {
  LoaderOptions options;
  options.global_batch = global_batch;
  options.data_rank = rank;
  options.data_ranks = ranks;
  options.seed = 11;
  return options;
}

LoaderOptions evaluation(int64_t global_batch, int64_t rank = 0, int64_t ranks = 1) {
  LoaderOptions options = training(global_batch, rank, ranks);
  options.training = false;
  return options;
}

std::vector<int64_t> to_vector(const at::Tensor& tensor) {
  const int64_t* values = tensor.const_data_ptr<int64_t>();
  return {values, values + tensor.numel()};
}

std::vector<Batch> take(Loader& loader, int64_t batches) {
  std::vector<Batch> result;
  for (int64_t i = 0; i < batches; ++i) result.push_back(loader.next());
  return result;
}

void expect_equal(const Batch& a, const Batch& b) {
  EXPECT_TRUE(at::equal(a.image, b.image));
  EXPECT_TRUE(at::equal(a.label, b.label));
  EXPECT_TRUE(at::equal(a.sample_ids, b.sample_ids));
  EXPECT_EQ(a.epoch, b.epoch);
  EXPECT_EQ(a.slot, b.slot);
}

TEST(Sequence, HoldsEverySampleOnceAndDiffersByEpochAndSeed) {
  const Sequence sequence(1000, 5, true);
  std::set<std::vector<int64_t>> orders;
  for (const uint64_t seed : {5, 6})
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
      const Sequence shuffled(1000, seed, true);
      std::vector<int64_t> order;
      for (int64_t slot = 0; slot < 1000; ++slot) order.push_back(shuffled.sample_at(epoch, slot));
      orders.insert(order);
      std::sort(order.begin(), order.end());
      for (int64_t i = 0; i < 1000; ++i) ASSERT_EQ(order[static_cast<size_t>(i)], i);
    }
  EXPECT_EQ(orders.size(), 6u);
  EXPECT_EQ(Sequence(1000, 5, false).sample_at(3, 17), 17);
}

TEST(Loader, GlobalBatchIsTheSameForAnyNumberOfRanks) {
  Loader alone(two_sources(), small_model(), training(64 * 3));
  const std::vector<Batch> expected = take(alone, 3);
  for (const int64_t ranks : {2, 3, 8, 64}) {
    std::vector<std::vector<at::Tensor>> images(3), labels(3), ids(3);
    for (int64_t rank = 0; rank < ranks; ++rank) {
      Loader loader(two_sources(), small_model(), training(64 * 3, rank, ranks));
      for (size_t b = 0; b < 3; ++b) {
        const Batch batch = loader.next();
        EXPECT_EQ(batch.size(), 192 / ranks);
        EXPECT_EQ(batch.slot, rank * (192 / ranks));
        images[b].push_back(batch.image);
        labels[b].push_back(batch.label);
        ids[b].push_back(batch.sample_ids);
      }
    }
    for (size_t b = 0; b < 3; ++b) {
      EXPECT_TRUE(at::equal(at::cat(images[b]), expected[b].image)) << ranks;
      EXPECT_TRUE(at::equal(at::cat(labels[b]), expected[b].label)) << ranks;
      EXPECT_TRUE(at::equal(at::cat(ids[b]), expected[b].sample_ids)) << ranks;
    }
  }
}

TEST(Loader, AnEpochHoldsEverySampleOnceOverAllRanks) {
  for (const int64_t ranks : {1, 2, 3, 8}) {
    std::vector<int64_t> seen;
    for (int64_t rank = 0; rank < ranks; ++rank) {
      Loader loader(two_sources(), small_model(), training(48, rank, ranks));
      ASSERT_EQ(loader.batches_per_epoch(), 4);
      for (const Batch& batch : take(loader, 4))
        for (const int64_t id : to_vector(batch.sample_ids)) seen.push_back(id);
    }
    std::sort(seen.begin(), seen.end());
    ASSERT_EQ(seen.size(), 192u);
    for (int64_t i = 0; i < 192; ++i) EXPECT_EQ(seen[static_cast<size_t>(i)], i);
  }
}

TEST(Loader, ResumesAtAnyBatchWithTheSameBatches) {
  Loader whole(two_sources(), small_model(), training(48));
  const std::vector<Batch> expected = take(whole, 10);
  for (int64_t done = 0; done < 10; ++done) {
    Loader loader(two_sources(), small_model(), training(48), {done / 4, done % 4});
    EXPECT_EQ(loader.state().epoch, done / 4);
    EXPECT_EQ(loader.state().batch, done % 4);
    for (size_t b = static_cast<size_t>(done); b < 10; ++b)
      expect_equal(loader.next(), expected[b]);
    EXPECT_EQ(loader.state().epoch, 2);
    EXPECT_EQ(loader.state().batch, 2);
  }
  Loader at_the_end(two_sources(), small_model(), training(48), {0, 4});
  EXPECT_EQ(at_the_end.state().epoch, 1);
  expect_equal(at_the_end.next(), expected[4]);
}

TEST(Loader, EpochsDoNotLeakIntoEachOther) {
  Loader loader(two_sources(), small_model(),
                training(40));  // 192 samples: 4 batches, 32 samples left over
  std::vector<std::vector<int64_t>> orders;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<int64_t> order;
    for (const Batch& batch : take(loader, 4)) {
      EXPECT_EQ(batch.epoch, epoch);
      for (const int64_t id : to_vector(batch.sample_ids)) order.push_back(id);
    }
    EXPECT_EQ(std::set<int64_t>(order.begin(), order.end()).size(), 160u);
    orders.push_back(order);
  }
  EXPECT_NE(orders[0], orders[1]);
  EXPECT_NE(orders[1], orders[2]);
}

TEST(Loader, OrderDoesNotDependOnTheNumberOfWorkers) {
  LoaderOptions options = training(48);
  options.workers = 0;
  Loader plain(two_sources(), small_model(), options);
  const std::vector<Batch> expected = take(plain, 9);
  for (int64_t workers = 1; workers <= 8; ++workers)
    for (const int64_t prefetch : {1, 5}) {
      options.workers = workers;
      options.prefetch = prefetch;
      Loader loader(two_sources(), small_model(), options);
      for (const Batch& batch : expected) expect_equal(loader.next(), batch);
    }
}

TEST(Loader, WithoutDropLastTheLastBatchIsFilledFromItsOwnEpoch) {
  LoaderOptions options = training(80);
  options.drop_last = false;
  Loader loader(two_sources(), small_model(), options);
  ASSERT_EQ(loader.batches_per_epoch(), 3);
  std::vector<int64_t> order;
  for (const Batch& batch : take(loader, 3))
    for (const int64_t id : to_vector(batch.sample_ids)) order.push_back(id);
  ASSERT_EQ(order.size(), 240u);
  EXPECT_EQ(std::set<int64_t>(order.begin(), order.begin() + 192).size(), 192u);
  EXPECT_TRUE(std::equal(order.begin() + 192, order.end(), order.begin()));
}

TEST(Loader, EvaluationVisitsEverySampleOnceInOrderWithEqualShares) {
  for (const int64_t samples : {1, 5, 64, 100, 131})
    for (const int64_t ranks : {1, 2, 3, 8}) {
      std::vector<int64_t> seen;
      std::vector<std::vector<int64_t>> sizes(static_cast<size_t>(ranks));
      for (int64_t rank = 0; rank < ranks; ++rank) {
        Loader loader({random_source(samples)}, small_model(), evaluation(32, rank, ranks));
        for (const Batch& batch : take(loader, loader.batches_per_epoch())) {
          sizes[static_cast<size_t>(rank)].push_back(batch.size());
          const std::vector<int64_t> ids = to_vector(batch.sample_ids),
                                     labels = to_vector(batch.label);
          for (size_t i = 0; i < ids.size(); ++i) {
            EXPECT_EQ(ids[i] == -1, labels[i] == -1);
            if (ids[i] >= 0) seen.push_back(ids[i]);
            if (ids[i] == -1) {
              EXPECT_EQ(batch.image[static_cast<int64_t>(i)].count_nonzero().item<int64_t>(), 0);
            }
          }
        }
        EXPECT_EQ(sizes[static_cast<size_t>(rank)], sizes[0])
            << "ranks must take part in the same collectives";
      }
      if (ranks == 1) {
        EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
      }
      std::sort(seen.begin(), seen.end());
      ASSERT_EQ(static_cast<int64_t>(seen.size()), samples);
      for (int64_t i = 0; i < samples; ++i) EXPECT_EQ(seen[static_cast<size_t>(i)], i);
    }
}

TEST(Loader, EvaluationIsNotAugmentedAndIgnoresWeights) {
  std::vector<config::Source> sources = two_sources();
  sources[0].weight = 3;
  Loader loader(sources, small_model(), evaluation(192));
  std::vector<config::Source> plain = {random_source(100), random_source(92)};
  Loader expected(plain, small_model(), evaluation(192));
  expect_equal(loader.next(), expected.next());
}

TEST(Loader, WeightsSetTheShareOfASourceAndOverEpochsEverySampleComesEquallyOften) {
  std::vector<config::Source> sources = {random_source(40), random_source(20)};
  sources[0].weight = 0.25;
  sources[1].weight = 1.5;
  Loader loader(sources, small_model(), training(40));
  ASSERT_EQ(loader.samples(), 10 + 30);
  // Samples are told apart by their pixels; the two sources share their first 20 images.
  std::map<std::string, int64_t> times;
  for (int64_t epoch = 0; epoch < 4; ++epoch) {
    const Batch batch = loader.next();
    int64_t from_first = 0;
    const std::vector<int64_t> ids = to_vector(batch.sample_ids);
    for (size_t i = 0; i < ids.size(); ++i) {
      from_first += loader.source_of(ids[i]) == 0;
      const at::Tensor image = batch.image[static_cast<int64_t>(i)].contiguous();
      const std::string bytes(static_cast<const char*>(image.const_data_ptr()), 64);
      ++times[std::to_string(loader.source_of(ids[i])) + bytes];
    }
    EXPECT_EQ(from_first, 10);
  }
  EXPECT_EQ(times.size(), 60u);
  for (const auto& [key, n] : times) EXPECT_EQ(n, key[0] == '0' ? 1 : 6);
}

TEST(Loader, KeepsAtMostPrefetchBatchesForASlowConsumer) {
  LoaderOptions options = training(16);
  options.prefetch = 3;
  options.workers = 4;
  Loader loader(two_sources(), small_model(), options);
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    EXPECT_LE(loader.in_flight(), 3);
    loader.next();
    EXPECT_LE(loader.in_flight(), 3);
  }
}

TEST(Loader, EndsAtAnyMomentWithoutHanging) {
  for (int i = 0; i < 200; ++i) {
    LoaderOptions options = training(48);
    options.workers = 1 + i % 8;
    Loader loader(two_sources(), small_model(), options);
    for (int n = 0; n < i % 5; ++n) loader.next();
  }
}

TEST(Loader, ReportsTheTimeItWaited) {
  LoaderOptions options = training(8);
  options.workers = 0;
  Loader slow({random_source(8)}, model_of({512, 512}, 3, 10), options);
  slow.next();
  EXPECT_GT(slow.waited_ms(), 1.0) << "8 images of 512 x 512 are made inside next()";
  options.workers = 2;
  options.prefetch = 2;
  Loader ready({random_source(8)}, small_model(), options);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  ready.next();
  EXPECT_LT(ready.waited_ms(), 50.0);
}

TEST(Loader, WorksInThreeDimensions) {
  config::Source source = random_source(20);
  source.augment = {"flip", "crop:1", "shift:1"};
  Loader loader({source}, model_of({4, 6, 5}, 1, 3), training(10));
  EXPECT_EQ(loader.next().image.sizes(), at::IntArrayRef({10, 1, 4, 6, 5}));
}

void expect_config_error(const std::vector<config::Source>& sources, const LoaderOptions& options,
                         const std::string& text) {
  try {
    Loader loader(sources, small_model(), options);
    FAIL() << "expected: " << text;
  } catch (const core::ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr(text));
  }
}

TEST(Loader, RefusesWhatCannotBeMeant) {
  expect_config_error(two_sources(), training(64, 0, 3),
                      "a multiple of the data ranks but got 64 for 3 ranks");
  expect_config_error(two_sources(), training(193),
                      "must not exceed the number of samples but got 193 for 192");
  expect_config_error(two_sources(), training(0), "at least 1");
  expect_config_error(two_sources(), training(4, 2, 2), "data rank must lie in");
  expect_config_error({}, training(4), "at least one source");
  std::vector<config::Source> sources = two_sources();
  sources[0].split = {0.5, 0.4};
  expect_config_error(sources, training(4), "0 <= start < end <= 1");
  sources = {random_source(4)};
  sources[0].root = "four";
  expect_config_error(sources, training(4), "a number of samples but is 'four'");
  sources = {random_source(4)};
  sources[0].weight = 0;
  expect_config_error(sources, training(4), "weight above 0");
}

TEST(Loader, SplitIsTakenFromTheSortedListBeforeAnyShuffle) {
  config::Source first = random_source(10), second = random_source(10);
  first.split = {0, 0.35};  // llround(3.5) = 4
  second.split = {0.35, 1};
  Loader parts({first, second}, small_model(), evaluation(10));
  Loader whole({random_source(10)}, small_model(), evaluation(10));
  EXPECT_EQ(parts.reader(0).size(), 4);
  EXPECT_EQ(parts.reader(1).size(), 6);
  EXPECT_TRUE(at::equal(parts.next().image, whole.next().image));
}

/// A class folder of PNG files; those in `broken` (places in the sorted list) are no images.
class BrokenFiles : public testing::Test {
 protected:
  void write(int64_t files, const std::set<int64_t>& broken) {
    for (int64_t i = 0; i < files; ++i) {
      const std::string path = folder_.path(fmt::format("a/{:04}.png", i));
      if (broken.count(i) > 0)
        test::write_bytes(path, "broken");
      else
        test::write_image(path, {6, 6}, 3, static_cast<uint64_t>(i));
    }
    sources_ = {test::folder_source(folder_.path())};
  }
  /// The first failing slot of epoch 0 and its file.
  std::pair<int64_t, std::string> first_broken(int64_t files, const std::set<int64_t>& broken) {
    const Sequence sequence(files, 11, true);
    int64_t slot = 0;
    while (broken.count(sequence.sample_at(0, slot)) == 0) ++slot;
    return {slot, fmt::format("a/{:04}.png", sequence.sample_at(0, slot))};
  }
  test::TemporaryFolder folder_;
  std::vector<config::Source> sources_;
};

TEST_F(BrokenFiles, StopTheRunAtTheFirstInOrderAndGoOnSayingSo) {
  const std::set<int64_t> broken = {3, 40, 41, 77, 90};
  write(100, broken);
  const auto [slot, name] = first_broken(100, broken);
  for (const int64_t workers : {0, 1, 8}) {
    LoaderOptions options = training(4);
    options.workers = workers;
    Loader loader(sources_, small_model(), options);
    for (int64_t b = 0; b < slot / 4; ++b) loader.next();
    for (int again = 0; again < 2; ++again)
      EXPECT_THAT(test::message_of<core::DataError>([&] { loader.next(); }), HasSubstr(name));
  }
}

TEST_F(BrokenFiles, AreReplacedByTheNextGoodSampleOfTheOrderForAnyRanks) {
  const std::set<int64_t> broken = {3, 40, 41, 77, 90};
  write(100, broken);
  std::vector<int64_t> expected;
  const Sequence sequence(100, 11, true);
  for (int64_t slot = 0; slot < 100; ++slot) {
    int64_t next = slot;
    while (broken.count(sequence.sample_at(0, next % 100)) > 0) ++next;
    expected.push_back(sequence.sample_at(0, next % 100));
  }
  for (const int64_t ranks : {1, 2, 5}) {
    std::vector<int64_t> seen(100, -2);
    int64_t skipped = 0;
    for (int64_t rank = 0; rank < ranks; ++rank) {
      LoaderOptions options = training(10, rank, ranks);
      options.skip_errors = true;
      Loader loader(sources_, small_model(), options);
      for (const Batch& batch : take(loader, 10)) {
        const std::vector<int64_t> ids = to_vector(batch.sample_ids);
        std::copy(ids.begin(), ids.end(), seen.begin() + batch.slot);
      }
      skipped += loader.skipped();
    }
    EXPECT_EQ(seen, expected);
    EXPECT_EQ(skipped, 5);
  }
}

TEST_F(BrokenFiles, AreNamedOnceInTheLog) {
  write(40, {7});
  LoaderOptions options = training(10);
  options.skip_errors = true;
  Loader loader(sources_, small_model(), options);
  testing::internal::CaptureStderr();
  take(loader, 12);
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_EQ(loader.skipped(), 3);
  const size_t first = log.find("0007.png");
  EXPECT_NE(first, std::string::npos);
  EXPECT_EQ(log.find("skipped a broken file", log.find("skipped a broken file") + 1),
            std::string::npos)
      << log;
}

TEST_F(BrokenFiles, BecomePaddingInEvaluation) {
  write(20, {7, 19});
  LoaderOptions options = evaluation(8);
  options.skip_errors = true;
  Loader loader(sources_, small_model(), options);
  std::vector<int64_t> ids;
  for (const Batch& batch : take(loader, 3)) {
    const std::vector<int64_t> part = to_vector(batch.sample_ids);
    ids.insert(ids.end(), part.begin(), part.end());
  }
  ASSERT_EQ(ids.size(), 20u);
  for (int64_t i = 0; i < 20; ++i)
    EXPECT_EQ(ids[static_cast<size_t>(i)], i == 7 || i == 19 ? -1 : i);
  EXPECT_EQ(loader.skipped(), 2);
}

TEST_F(BrokenFiles, AboveTheLimitStopTheRun) {
  std::set<int64_t> broken;
  for (int64_t i = 0; i < 11; ++i) broken.insert(9 * i);
  write(100, broken);
  LoaderOptions options = training(10);
  options.skip_errors = true;
  Loader loader(sources_, small_model(), options);
  EXPECT_THAT(test::message_of<core::DataError>([&] { take(loader, 10); }),
              HasSubstr("more than 10 of 100"));
  EXPECT_THAT(test::message_of<core::DataError>([&] { loader.next(); }),
              HasSubstr("more than 10 of 100"));
}

TEST_F(BrokenFiles, WithoutAnyGoodOneAreAnErrorNotAnEndlessSearch) {
  write(5, {0, 1, 2, 3, 4});
  LoaderOptions options = training(5);
  options.skip_errors = true;
  Loader loader(sources_, small_model(), options);
  EXPECT_THAT(test::message_of<core::DataError>([&] { loader.next(); }),
              HasSubstr("5 samples in a row"));
}

TEST(Loader, ClassesMustFitTheModelAndEachOther) {
  const test::TemporaryFolder folder;
  for (const char* name : {"one/a/0.png", "one/b/0.png", "two/a/0.png", "two/c/0.png"})
    test::write_image(folder.path(name), {6, 6}, 3, 0);
  const std::vector<config::Source> sources = {test::folder_source(folder.path("one")),
                                               test::folder_source(folder.path("two"))};
  const auto error = [&](const config::Model& model) {
    return test::message_of<core::DataError>([&] { Loader(sources, model, evaluation(1)); });
  };
  EXPECT_THAT(error(model_of({6, 6}, 3, 2)), HasSubstr("two: its classes differ"));
  EXPECT_THAT(error(model_of({6, 6}, 3, 1)),
              HasSubstr("one: has 2 classes but model.num_classes is 1"));
  config::Model autoencoder = model_of({6, 6}, 3, 1);
  autoencoder.kind.value = "mae";
  EXPECT_EQ(error(autoencoder), "");
}

TEST(Random, DrawsEveryLabelAndNeverRepeatsAnImage) {
  const std::unique_ptr<Reader> reader = open_reader(random_source(500), small_model());
  std::set<std::vector<uint8_t>> images;
  std::set<int64_t> labels;
  for (int64_t i = 0; i < 500; ++i) {
    images.insert(reader->decode(i).values);
    labels.insert(reader->describe(i).label);
  }
  EXPECT_EQ(images.size(), 500u);
  EXPECT_EQ(labels.size(), 10u);
  EXPECT_EQ(*labels.begin(), 0);
  EXPECT_EQ(*labels.rbegin(), 9);
  config::Source unnamed = random_source(1);
  unnamed.root = "";
  EXPECT_EQ(open_reader(unnamed, small_model())->size(), 4096);
}

}  // namespace
}  // namespace vitrail::data

#include "vitrail/train/trace.h"

#include <fstream>
#include <set>

#include <gtest/gtest.h>

#include "tests/train/tiny_run.h"
#include "vitrail/train/loop.h"

namespace vitrail::train {
namespace {

using parallel::Lane;
using parallel::TimedRange;

TEST(Trace, WhatTheComputeStreamCarriesItselfIsExposed) {
  const std::vector<TimedRange> ranges{{"forward", Lane::compute, 0, 10},
                                       {"gather", Lane::gather, 1, 3},      // hidden
                                       {"exchange", Lane::blocking, 4, 6},  // within the forward
                                       {"wait", Lane::blocking, 5, 7},      // one ms more
                                       {"reduce", Lane::reduce, 9, 12}};    // 2 ms behind it
  EXPECT_DOUBLE_EQ(exposed_ms(ranges), 5.0);
}

/// "CATEGORY NAME" of the ranges of each rank, of a traced run of two ranks.
std::vector<std::set<std::string>> traced(const Workplace& place, const std::string& name,
                                          const std::vector<std::string>& layout) {
  TrainOptions options;
  options.print = false;
  options.trace = place.file(name + ".json");
  std::vector<std::string> overrides{"train.steps=5", "eval.every_epochs=0"};
  overrides.insert(overrides.end(), layout.begin(), layout.end());
  const config::ResolvedRecipe recipe = tiny_recipe(place, name, overrides);
  comm::run_thread_group(2,
                         [&](comm::Communicator& world) { run_training(recipe, world, options); });
  std::ifstream in(options.trace);
  const nlohmann::json trace = nlohmann::json::parse(in);
  std::vector<std::set<std::string>> found(2);
  for (const nlohmann::json& event : trace.at("traceEvents"))
    if (event.at("ph") == "X")
      found.at(event.at("pid").get<size_t>())
          .insert(event.at("cat").get<std::string>() + " " + event.at("name").get<std::string>());
  return found;
}

void expect_all(const std::set<std::string>& found, const std::vector<std::string>& wanted) {
  for (const std::string& range : wanted) EXPECT_TRUE(found.contains(range)) << range;
}

TEST(Trace, ShowsTransfersBetweenStagesAndWaitsForThem) {
  const Workplace place;
  const auto found =
      traced(place, "pipeline",
             {"parallel.strategy=none", "parallel.pipeline=2", "train.micro_batches=2"});
  expect_all(found[0], {"exchange send to stage 1", "exchange receive from stage 1",
                        "blocking wait for stage", "compute forward blocks.0"});
  expect_all(found[1], {"exchange send to stage 0", "exchange receive from stage 0",
                        "blocking wait for stage", "blocking share with stages"});
}

TEST(Trace, ShowsExchangesOfTensorRanksAsBlocking) {
  const Workplace place;
  for (const auto& found :
       traced(place, "tensor", {"parallel.strategy=none", "parallel.tensor=2"})) {
    expect_all(found, {"blocking tensor exchange", "blocking wait for tensor ranks",
                       "exchange tensor exchange"});
  }
}

TEST(Trace, ShowsExchangesOfSequenceRanksAsBlocking) {
  const Workplace place;
  for (const auto& found :
       traced(place, "ulysses",
              {"parallel.strategy=ddp", "parallel.sequence=2", "parallel.ulysses=2"}))
    expect_all(found, {"blocking all-to-all", "blocking gather tokens"});
  for (const auto& found :
       traced(place, "ring",
              {"parallel.strategy=ddp", "parallel.sequence=2", "parallel.ulysses=1"}))
    expect_all(found, {"blocking wait for ring", "exchange ring"});
}

}  // namespace
}  // namespace vitrail::train

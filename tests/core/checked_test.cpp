#include "vitrail/core/checked.h"

#include <limits>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/temp_folder.h"

namespace vitrail::core {
namespace {

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
constexpr int64_t kMin = std::numeric_limits<int64_t>::min();

TEST(Checked, GivesExactResults) {
  EXPECT_EQ(checked_mul(-3, 5, "x"), -15);
  EXPECT_EQ(checked_mul(kMax, 1, "x"), kMax);
  EXPECT_EQ(checked_mul(int64_t{1} << 31, int64_t{1} << 31, "x"), int64_t{1} << 62);
  EXPECT_EQ(checked_add(kMax - 1, 1, "x"), kMax);
  EXPECT_EQ(checked_product(std::vector<int64_t>{}, "x"), 1);
  EXPECT_EQ(checked_product(std::vector<int64_t>{2, 3, 7}, "x"), 42);
  EXPECT_EQ(checked_product(std::vector<int64_t>{0, kMax, kMax}, "x"), 0);
}

TEST(Checked, RefusesEverythingThatWraps) {
  EXPECT_THROW(checked_mul(int64_t{1} << 32, int64_t{1} << 31, "x"), Error);
  EXPECT_THROW(checked_mul(kMin, -1, "x"), Error);
  EXPECT_THROW(checked_add(kMax, 1, "x"), Error);
  EXPECT_THROW(checked_add(kMin, -1, "x"), Error);
  EXPECT_THROW(checked_product(std::vector<int64_t>{kMax, 2}, "x"), Error);
}

TEST(Checked, NamesWhatDidNotFit) {
  const std::string message =
      testing::message_of<Error>([] { checked_mul(kMax, 3, "bytes of tensor 'head'"); });
  EXPECT_THAT(message, ::testing::HasSubstr("bytes of tensor 'head'"));
  EXPECT_THAT(message, ::testing::HasSubstr("9223372036854775807 * 3"));
}

}  // namespace
}  // namespace vitrail::core

#include "vitrail/parallel/nvme_state.h"

#include <cstdio>
#include <numeric>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/temp_folder.h"
#include "vitrail/core/error.h"

namespace vitrail::parallel {
namespace {

const std::vector<HostRange> kUnits{{3000, 5000}, {0, 3000}, {8000, 1}, {8001, 2000}, {10001, 99}};
constexpr size_t kCount = 10100;

TEST(NvmeState, StartsAtZeroAndKeepsWhatUnitsWere) {
  const testing::TempFolder folder;
  NvmeState state(folder.path(), 0, kUnits, 2);
  const int units = static_cast<int>(kUnits.size());
  for (int step = 0; step < 4; ++step)
    for (int u = 0; u < units; ++u) {
      if (u + 1 < units) state.request(u + 1);
      const std::vector<float*> arenas = state.take(u);
      for (int a = 0; a < 2; ++a)
        for (int64_t i = 0; i < kUnits[u].count; ++i) {
          const float expected = step == 0 ? 0.0f : static_cast<float>(step * 1000 + u * 10 + a);
          ASSERT_EQ(arenas[a][i], expected) << "step " << step << ", unit " << u;
          arenas[a][i] = static_cast<float>((step + 1) * 1000 + u * 10 + a);
        }
      state.give_back(u, true);
    }
  std::printf("%s\n", state.describe().c_str());
}

TEST(NvmeState, WhatWasNotChangedIsNotWritten) {
  const testing::TempFolder folder;
  NvmeState state(folder.path(), 0, kUnits, 1);
  state.take(0)[0][0] = 5.0f;
  state.give_back(0, false);
  for (const int u : {1, 2, 3}) state.give_back(u, !state.take(u).empty());
  EXPECT_EQ(state.take(0)[0][0], 0.0f);
}

TEST(NvmeState, ReadsAndWritesWholeArenas) {
  const testing::TempFolder folder;
  NvmeState state(folder.path(), 0, kUnits, 3);
  std::vector<float> values(kCount), back(kCount);
  std::iota(values.begin(), values.end(), 1.0f);
  state.write(1, values.data());
  state.read(1, back.data());
  EXPECT_EQ(values, back);
  state.read(2, back.data());
  EXPECT_THAT(back, ::testing::Each(0.0f));
  EXPECT_EQ(state.take(3)[1][0], values[8001]);
}

TEST(NvmeState, LeavesNoFileBehind) {
  const testing::TempFolder folder;
  {
    const NvmeState one(folder.path(), 0, kUnits, 1), two(folder.path(), 0, kUnits, 1);
    EXPECT_EQ(one.file_bytes(), (5 + 3 + 1 + 2 + 1) * 4096)
        << "pages of 5000, 3000, 1, 2000 and 99 values";
  }
  EXPECT_EQ(folder.entries(), 0);
}

TEST(NvmeState, RefusesAFolderThatIsNotThereOrTooFull) {
  const testing::TempFolder folder;
  EXPECT_THAT(
      testing::message_of<core::Error>([&] { NvmeState(folder.path() + "/none", 0, kUnits, 1); }),
      ::testing::AllOf(::testing::HasSubstr("/none must be a folder"),
                       ::testing::HasSubstr("No such file")));
  const std::vector<HostRange> huge{{0, int64_t{1} << 50}};
  EXPECT_THAT(testing::message_of<core::Error>([&] { NvmeState(folder.path(), 0, huge, 2); }),
              ::testing::AllOf(::testing::HasSubstr("9007199254740992 bytes free"),
                               ::testing::HasSubstr("but has")));
}

}  // namespace
}  // namespace vitrail::parallel

#include "vitrail/core/text.h"

#include <limits>
#include <regex>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "vitrail/core/clock.h"
#include "vitrail/core/did_you_mean.h"

namespace vitrail::core {
namespace {

TEST(Text, CountsHaveCommas) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(51'230), "51,230");
  EXPECT_EQ(format_count(-1'000), "-1,000");
  EXPECT_EQ(format_count(-999), "-999");
  EXPECT_EQ(format_count(std::numeric_limits<int64_t>::min()), "-9,223,372,036,854,775,808");
}

TEST(Text, BytesHaveUnits) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(format_bytes(1024 * 1024 - 1), "1.0 MiB");
  EXPECT_EQ(format_bytes(int64_t{80} << 30), "80.0 GiB");
  EXPECT_EQ(format_bytes(std::numeric_limits<int64_t>::max()), "8.0 EiB");
}

TEST(Text, DurationsAreClockTimes) {
  EXPECT_EQ(format_duration(0.0), "0:00:00");
  EXPECT_EQ(format_duration(111.6), "0:01:52");
  EXPECT_EQ(format_duration(59.5), "0:01:00");
  EXPECT_EQ(format_duration(26 * 3600.0), "26:00:00");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "-");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::quiet_NaN()), "-");
  EXPECT_EQ(format_duration(-1.0), "-");
}

TEST(Text, PrintableTextStaysOnOneLine) {
  EXPECT_EQ(printable("blocks.0.attn"), "blocks.0.attn");
  EXPECT_EQ(printable("a\nb\x1b[31m"), "a\\x0ab\\x1b[31m");
  EXPECT_EQ(printable(std::string(500, 'x')), std::string(120, 'x') + "...");
}

const std::vector<std::string> kKeys = {"embed_dim", "num_heads",  "depth",
                                        "mlp_ratio", "patch_size", "lr"};

TEST(DidYouMean, FindsSlipsOfTheHand) {
  EXPECT_EQ(nearest_word("num_head", kKeys), "num_heads");
  EXPECT_EQ(nearest_word("detph", kKeys), "depth");
  EXPECT_EQ(nearest_word("Embed_Dim", kKeys), "embed_dim");
  EXPECT_EQ(nearest_word("pach_size", kKeys), "patch_size");
  EXPECT_EQ(nearest_word("ll", kKeys), "lr");
}

TEST(DidYouMean, IsSilentIfNothingIsNear) {
  EXPECT_EQ(nearest_word("temperature", kKeys), "");
  EXPECT_EQ(nearest_word("", kKeys), "");
  EXPECT_EQ(nearest_word("xy", kKeys), "");
  EXPECT_EQ(nearest_word("depth", {}), "");
  EXPECT_EQ(nearest_word(std::string(100'000, 'a'), kKeys), "");
}

TEST(Clock, DatesAreIso) {
  EXPECT_EQ(utc_text(0), "1970-01-01T00:00:00Z");
  EXPECT_EQ(utc_text(951'782'400), "2000-02-29T00:00:00Z");
  EXPECT_TRUE(std::regex_match(utc_now(), std::regex(R"(20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ)")));
}

TEST(Clock, StopwatchRunsAndRestarts) {
  Stopwatch watch;
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const double first = watch.ms();
  EXPECT_GE(first, 5.0);
  EXPECT_GE(watch.ms(), first);
  watch.restart();
  EXPECT_LT(watch.ms(), first + 1000.0);
}

}  // namespace
}  // namespace vitrail::core

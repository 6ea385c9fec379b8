#include "vitrail/core/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/temp_folder.h"
#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"

namespace vitrail::core {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Log, RankZeroSaysEverythingOthersOnlyWarn) {
  ::testing::internal::CaptureStderr();
  log_info("step {}", 1);
  log_warning("slow {}", "disk");
  set_log_rank(3);
  log_info("hidden");
  log_warning("from three");
  set_log_rank(0);
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, HasSubstr("step 1\n"));
  EXPECT_THAT(said, HasSubstr("warning: slow disk\n"));
  EXPECT_THAT(said, HasSubstr("warning (rank 3): from three\n"));
  EXPECT_THAT(said, Not(HasSubstr("hidden")));
}

TEST(Log, AlsoGoesToAFileUntilToldOtherwise) {
  const testing::TempFolder folder;
  ::testing::internal::CaptureStderr();
  set_log_file(folder.file("log.txt"));
  log_info("{{}} is no placeholder when it is data: {}", "{}");
  set_log_file("");
  log_info("not in the file");
  const std::string said = ::testing::internal::GetCapturedStderr();
  const std::string kept = read_file(folder.file("log.txt"), 1000);
  EXPECT_THAT(kept, HasSubstr("{} is no placeholder when it is data: {}\n"));
  EXPECT_THAT(kept, Not(HasSubstr("not in the file")));
  EXPECT_THAT(said, HasSubstr("not in the file"));
}

TEST(Log, NamesAFileThatCannotBeOpened) {
  const std::string message =
      testing::message_of<Error>([] { set_log_file("/proc/no/such/log.txt"); });
  EXPECT_THAT(message, HasSubstr("/proc/no/such/log.txt"));
}

}  // namespace
}  // namespace vitrail::core

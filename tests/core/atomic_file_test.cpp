#include "vitrail/core/atomic_file.h"

#include <csignal>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/core/temp_folder.h"
#include "vitrail/core/error.h"
#include "vitrail/core/mapped_file.h"

namespace vitrail::core {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using testing::TempFolder;

TEST(AtomicFile, WritesAndReplaces) {
  const TempFolder folder;
  const std::string path = folder.file("a");
  for (const std::string content : {"first", "", "third, longer"}) {
    write_file_atomic(path, content);
    EXPECT_EQ(read_file(path, 100), content);
    EXPECT_EQ(folder.entries(), 1);
  }
}

TEST(AtomicFile, NamesPathAndReasonWhereItCannotWrite) {
  const TempFolder folder;
  const std::string message =
      message_of<Error>([&] { write_file_atomic(folder.file("missing/a"), "x"); });
  EXPECT_THAT(message, HasSubstr(folder.file("missing/a")));
  EXPECT_THAT(message, HasSubstr("No such file or directory"));
}

TEST(AtomicFile, KeepsTheOldFileAndNoRestsIfTheTargetIsAFolder) {
  const TempFolder folder;
  make_directories(folder.file("a/b"));
  EXPECT_THROW(write_file_atomic(folder.file("a"), "x"), Error);
  EXPECT_EQ(folder.entries(), 1);
}

TEST(AtomicFile, AFullDiskIsAClearErrorAndKeepsTheOldFile) {
  const TempFolder folder;
  const std::string path = folder.file("a");
  write_file_atomic(path, "old");
  // /dev/full takes no byte. The temporary file is made by replace_file, so the writer is pointed
  // there instead.
  const auto write_to_full = [&] {
    replace_file(path, [&](const std::string& temporary) {
      write_file_atomic(temporary, "half");
      const int full = ::open("/dev/full", O_WRONLY);
      write_all(full, "the other half", path);
      return true;
    });
  };
  const std::string message = message_of<Error>(write_to_full);
  EXPECT_THAT(message, HasSubstr(path));
  EXPECT_THAT(message, HasSubstr("No space left on device"));
  EXPECT_THAT(message, HasSubstr("free space"));
  EXPECT_EQ(read_file(path, 100), "old");
  EXPECT_EQ(folder.entries(), 1);
}

TEST(AtomicFile, AFileSizeLimitIsAClearErrorAndKeepsTheOldFile) {
  const TempFolder folder;
  const std::string path = folder.file("a");
  write_file_atomic(path, "old");
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{4096, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message =
      message_of<Error>([&] { write_file_atomic(path, std::string(100'000, 'x')); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(message, HasSubstr("File too large"));
  EXPECT_EQ(read_file(path, 100), "old");
  EXPECT_EQ(folder.entries(), 1);
}

TEST(AtomicFile, ManyWritersLeaveOneWholeFile) {
  const TempFolder folder;
  const std::string path = folder.file("a");
  {
    std::vector<std::jthread> writers;
    for (int writer = 0; writer < 4; ++writer)
      writers.emplace_back([&path, writer] {
        for (int i = 0; i < 10; ++i)
          write_file_atomic(path, std::string(10'000, static_cast<char>('a' + writer)));
      });
  }
  const std::string content = read_file(path, 100'000);
  EXPECT_EQ(content, std::string(10'000, content.at(0)));
  EXPECT_EQ(folder.entries(), 1);
}

TEST(AtomicFile, IsWholeAfterAKillAtAnyMoment) {
  const TempFolder folder;
  const std::string path = folder.file("a");
  write_file_atomic(path, std::string(50'000, 'a'));
  for (int round = 0; round < 20; ++round) {
    const pid_t child = ::fork();
    if (child == 0)
      for (char letter = 'a';; letter = letter == 'z' ? 'a' : static_cast<char>(letter + 1))
        write_file_atomic(path, std::string(50'000, letter));
    ::usleep(static_cast<useconds_t>(500 + 700 * round));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    const std::string content = read_file(path, 100'000);
    ASSERT_EQ(content, std::string(50'000, content.at(0)));
  }
}

TEST(ReadFile, RefusesWhatIsTooLongMissingOrAFolder) {
  const TempFolder folder;
  write_file_atomic(folder.file("a"), "12345");
  EXPECT_EQ(read_file(folder.file("a"), 5), "12345");
  EXPECT_THAT(message_of<DataError>([&] { read_file(folder.file("a"), 4); }),
              HasSubstr("at most 4 bytes"));
  EXPECT_THAT(message_of<DataError>([&] { read_file(folder.file("b"), 4); }),
              HasSubstr("No such file"));
  EXPECT_THAT(message_of<DataError>([&] { read_file(folder.path(), 4); }), HasSubstr("folder"));
}

TEST(ReadFile, ReadsWhatHasNoSizeBeforehand) {
  EXPECT_THAT(read_file("/proc/self/status", 1 << 20), HasSubstr("Name:"));
  EXPECT_THROW(read_file("/dev/zero", 1 << 20), DataError);
}

TEST(ReadFile, ReadsLongFilesWhole) {
  const TempFolder folder;
  std::string content(1'000'003, '\0');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 7);
  write_file_atomic(folder.file("a"), content);
  EXPECT_EQ(read_file(folder.file("a"), 1 << 20), content);
}

TEST(MakeDirectories, MakesParentsAndIsFineTwice) {
  const TempFolder folder;
  make_directories(folder.file("a/b/c"));
  make_directories(folder.file("a/b/c"));
  make_directories(folder.file("a/b/d/"));
  write_file_atomic(folder.file("a/b/c/x"), "x");
  const std::string message =
      message_of<Error>([&] { make_directories(folder.file("a/b/c/x/y")); });
  EXPECT_THAT(message, HasSubstr(folder.file("a/b/c/x/y")));
  EXPECT_THROW(make_directories(folder.file("a/b/c/x")), Error);
}

TEST(FsyncPath, TakesFilesAndFoldersAndNamesWhatIsMissing) {
  const TempFolder folder;
  write_file_atomic(folder.file("a"), "x");
  fsync_path(folder.file("a"));
  fsync_path(folder.path());
  fsync_parent(folder.file("a"));
  EXPECT_THAT(message_of<Error>([&] { fsync_path(folder.file("b")); }),
              HasSubstr(folder.file("b")));
}

TEST(MappedFile, ShowsTheBytesAndMoves) {
  const TempFolder folder;
  write_file_atomic(folder.file("a"), "hello");
  MappedFile first(folder.file("a"));
  MappedFile second(std::move(first));
  write_file_atomic(folder.file("b"), "other");
  MappedFile third(folder.file("b"));
  third = std::move(second);
  ASSERT_EQ(third.bytes().size(), 5u);
  EXPECT_EQ(std::to_integer<char>(third.bytes()[4]), 'o');
  EXPECT_EQ(third.path(), folder.file("a"));
}

TEST(MappedFile, TakesAnEmptyFileAndRefusesTheRest) {
  const TempFolder folder;
  write_file_atomic(folder.file("a"), "");
  EXPECT_TRUE(MappedFile(folder.file("a")).bytes().empty());
  EXPECT_THAT(message_of<DataError>([&] { MappedFile(folder.file("b")); }),
              HasSubstr(folder.file("b")));
  EXPECT_THROW(MappedFile(folder.path()), DataError);
  EXPECT_THROW(MappedFile("/dev/zero"), DataError);
}

}  // namespace
}  // namespace vitrail::core

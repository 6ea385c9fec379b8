#include "vitrail/io/image_file.h"

#include <filesystem>
#include <fstream>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"

namespace vitrail::io {
namespace {

class ImageFile : public ::testing::Test {
 protected:
  ImageFile() {
    std::string name = (std::filesystem::temp_directory_path() / "vitrail_file_XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~ImageFile() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& name, size_t bytes) const {
    std::string text(bytes, ' ');
    for (size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(i * 131 + i / 251);
    const std::string path = folder_ + "/" + name;
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  std::string text(std::span<const std::byte> bytes) const {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  /// The messages of both ways of reading.
  std::pair<std::string, std::string> messages(const std::string& path, int64_t limit) const {
    std::pair<std::string, std::string> result;
    try {
      FileBuffer().read(path, limit);
    } catch (const core::DataError& error) {
      result.first = error.what();
    }
    try {
      core::read_file(path, limit);
    } catch (const core::DataError& error) {
      result.second = error.what();
    }
    return result;
  }

  std::string folder_;
};

TEST_F(ImageFile, GivesTheBytesOfOneFileAfterAnother) {
  FileBuffer buffer;
  int number = 0;
  for (const size_t bytes : {100, 0, 65535, 65536, 65537, 3, 1 << 20, 70'000}) {
    const std::string path = write(std::to_string(number++), bytes);
    EXPECT_EQ(text(buffer.read(path, 1 << 30)), core::read_file(path, 1 << 30)) << bytes;
  }
}

TEST_F(ImageFile, MemoryOfAVeryLongFileIsGivenBack) {
  FileBuffer buffer;
  buffer.read(write("long", FileBuffer::kKept + 5), 1 << 30);
  EXPECT_GT(buffer.capacity(), FileBuffer::kKept);
  const std::string small = write("small", 10);
  EXPECT_EQ(text(buffer.read(small, 1 << 30)), core::read_file(small, 1 << 30));
  EXPECT_LE(buffer.capacity(), FileBuffer::kKept);
}

TEST_F(ImageFile, ReadsAPipeToItsEnd) {
  const std::string path = folder_ + "/pipe";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  std::thread writer([&] {
    std::ofstream out(path, std::ios::binary);
    for (int i = 0; i < 50; ++i)
      out << std::string(5000, static_cast<char>('a' + i % 26)) << std::flush;
  });
  FileBuffer buffer;
  const size_t length = buffer.read(path, 1 << 30).size();
  writer.join();
  EXPECT_EQ(length, 250'000u);
}

TEST_F(ImageFile, ErrorsAreThoseOfReadFile) {
  const auto missing = messages(folder_ + "/missing", 100);
  EXPECT_THAT(missing.first, ::testing::HasSubstr("/missing: cannot be opened: No such file"));
  EXPECT_EQ(missing.first, missing.second);
  const auto folder = messages(folder_, 100);
  EXPECT_THAT(folder.first, ::testing::HasSubstr("must be a file but is a folder"));
  EXPECT_EQ(folder.first, folder.second);
  const auto large = messages(write("large", 200), 100);
  EXPECT_THAT(large.first, ::testing::HasSubstr("must be at most 100 bytes long"));
  EXPECT_EQ(large.first, large.second);
}

}  // namespace
}  // namespace vitrail::io

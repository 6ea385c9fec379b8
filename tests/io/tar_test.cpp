#include "vitrail/io/tar.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/temp_folder.h"
#include "tests/io/fuzz.h"
#include "tests/io/python.h"
#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"

namespace vitrail::io {
namespace {

using core::DataError;
using ::testing::AllOf;
using testing::as_bytes;
using ::testing::HasSubstr;
using testing::message_of;
using testing::TempFolder;

/// "offset size name" of every member, a line each.
std::string shown(const std::string& file) {
  std::string out;
  list_tar(as_bytes(file), "fuzzed", [&](const TarMember& member) {
    out += fmt::format("{} {} {}\n", member.offset, member.size, member.name);
  });
  return out;
}

std::string refusal(const std::string& file) {
  return message_of<DataError>([&] { shown(file); });
}

/// A ustar header with a right sum.
std::string header(const std::string& name, int64_t size, char type = '0') {
  std::string block(512, '\0');
  block.replace(0, name.size(), name);
  block.replace(100, 7, "0000644");
  block.replace(124, 11, fmt::format("{:011o}", size));
  block[156] = type;
  block.replace(257, 8,
                std::string("ustar\0"
                            "00",
                            8));
  block.replace(148, 8, "        ");
  int64_t sum = 0;
  for (const char letter : block) sum += static_cast<unsigned char>(letter);
  block.replace(148, 8, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
  return block;
}

std::string padded(std::string content) {
  content.resize((content.size() + 511) / 512 * 512);
  return content;
}

const std::string kEnd(1024, '\0');

TEST(Tar, ListsWhatPythonsTarfileWrote) {
  const TempFolder folder;
  const std::string said = testing::run_python(folder.path(), R"(
import io, tarfile
formats = {'ustar': tarfile.USTAR_FORMAT, 'gnu': tarfile.GNU_FORMAT, 'pax': tarfile.PAX_FORMAT}
for word, format in formats.items():
    with tarfile.open(f'{word}.tar', 'w', format=format, pax_headers={'comment': 'global'}) as tar:
        def add(name, content=b'', kind=tarfile.REGTYPE, link=''):
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(content), kind, link
            info.mtime = 1.5 if word == 'pax' else 1
            tar.addfile(info, io.BytesIO(content))
        add('folder', kind=tarfile.DIRTYPE)
        add('folder/a.jpg', b'x' * 700)
        add('empty.txt')
        add('whole.bin', b'y' * 1024)
        add('link', kind=tarfile.SYMTYPE, link='folder/a.jpg')
        add('hard', kind=tarfile.LNKTYPE, link='folder/a.jpg')
        add('d' * 90 + '/' + 'e' * 90 + '.png', b'long')
        if word != 'ustar':
            add('f/' * 200 + 'g.png', b'longer')
            add('link2', kind=tarfile.SYMTYPE, link='h' * 300)
            add('ünï.png', b'letters')
        add('last.cls', b'7')
    with tarfile.open(f'{word}.tar') as tar, open(f'{word}.txt', 'w', encoding='utf-8') as out:
        for member in tar:
            if member.isreg():
                out.write(f'{member.offset_data} {member.size} {member.name}\n')
)");
  ASSERT_EQ(said, "");
  for (const char* const word : {"ustar", "gnu", "pax"}) {
    const std::string expected = core::read_file(folder.file(std::string(word) + ".txt"), 1 << 20);
    EXPECT_EQ(shown(core::read_file(folder.file(std::string(word) + ".tar"), 1 << 20)), expected)
        << word;
    EXPECT_GT(expected.size(), 200u);
  }
}

TEST(Tar, ReadsSizesAsBinaryNumbers) {
  std::string file = header("a", 0);
  file.replace(124, 12, std::string("\x80\0\0\0\0\0\0\0\0\0\x02\x03", 12));
  file.replace(148, 8, "        ");
  int64_t sum = 0;
  for (const char letter : file) sum += static_cast<unsigned char>(letter);
  file.replace(148, 8, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
  file += padded(std::string(515, 'x')) + kEnd;
  EXPECT_EQ(shown(file), "512 515 a\n");
}

TEST(Tar, PaxSizeGoesBeforeTheHeadersAndLastsForOneMember) {
  const std::string pax = "13 size=600\n";
  EXPECT_THAT(refusal(header("p", 12, 'x') + padded(pax) + header("a", 0) + kEnd),
              HasSubstr("the pax header before byte 1024 is damaged"));
  const std::string file = header("p", 12, 'x') + padded("12 size=600\n") + header("a", 0) +
                           padded(std::string(600, 'x')) + header("b", 1) + padded("y") + kEnd;
  EXPECT_EQ(shown(file), "1536 600 a\n3072 1 b\n");
}

TEST(Tar, RefusesArchivesThatWereCutOff) {
  const std::string whole = header("a", 3) + padded("abc") + kEnd;
  EXPECT_EQ(shown(whole), "512 3 a\n");
  EXPECT_THAT(refusal(whole.substr(0, 1024)),
              HasSubstr("fuzzed: ends at byte 1024 without the block of zeros"));
  EXPECT_THAT(refusal(whole.substr(0, 514)),
              HasSubstr("must have 3 bytes but the archive ends after 2"));
  EXPECT_THAT(refusal(whole.substr(0, 300)), HasSubstr("it was cut off"));
  EXPECT_THAT(refusal(""), HasSubstr("it was cut off"));
}

TEST(Tar, RefusesAbsurdSizes) {
  EXPECT_THAT(refusal(header("a", int64_t{1} << 32) + kEnd),
              HasSubstr("must have 4294967296 bytes but the archive ends after 1024"));
  EXPECT_THAT(refusal(header("a", 1 << 20, 'L') + kEnd), HasSubstr("which is too many"));
  EXPECT_THAT(refusal(header("p", 27, 'x') + padded("27 size=999999999999999999\n") +
                      header("a", 0) + kEnd),
              HasSubstr("must have 999999999999999999 bytes"));
  EXPECT_THAT(refusal(header("p", 12, 'x') + padded("11 size=-1\n") + header("a", 0) + kEnd),
              HasSubstr("must be a number but is '-1'"));
  std::string file = header("a", 0);
  file.replace(124, 12, std::string(1, '\x80') + std::string(11, '\x7F'));
  file.replace(148, 8, "        ");
  int64_t sum = 0;
  for (const char letter : file) sum += static_cast<unsigned char>(letter);
  file.replace(148, 8, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
  EXPECT_THAT(refusal(file + kEnd), HasSubstr("the size of the member at byte 0 is no number"));
}

TEST(Tar, RefusesOtherFilesAndSaysWhatToDo) {
  EXPECT_THAT(refusal("\x1F\x8B" + std::string(1000, 'x')),
              AllOf(HasSubstr("is compressed"), HasSubstr("unpack")));
  EXPECT_THAT(refusal(std::string(2000, 'x')), HasSubstr("the header at byte 0 has a wrong sum"));
  EXPECT_THAT(refusal(header("a", 0, 'S') + kEnd), HasSubstr("sparse"));
  EXPECT_THAT(
      refusal(header("p", 22, 'x') + padded("22 GNU.sparse.major=1\n") + header("a", 0) + kEnd),
      HasSubstr("sparse"));
  EXPECT_THAT(refusal(header("a", 0) + kEnd + header("b", 0) + kEnd),
              HasSubstr("goes on at byte 1536"));
}

TEST(Tar, DamagedArchivesAreReadOrRefused) {
  const std::string file = header("p", 12, 'x') + padded("12 size=600\n") + header("a", 0) +
                           padded(std::string(600, 'x')) + header("l", 150, 'L') +
                           padded(std::string(150, 'n')) + header("b", 1) + padded("y") + kEnd;
  const auto counts = testing::fuzz<DataError>(file, 3000, [](std::span<const std::byte> bytes) {
    list_tar(bytes, "fuzzed", [&](const TarMember& member) {
      ASSERT_GE(member.offset, 512);
      ASSERT_LE(member.offset + member.size, static_cast<int64_t>(bytes.size()));
    });
  });
  EXPECT_GT(counts.refused, 100);
  EXPECT_GT(counts.read, 100);
}

}  // namespace
}  // namespace vitrail::io

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "listed_samples.h"

namespace vitrail::data {
namespace {

using test::listed;
using test::model_of;
using test::open_error;
using test::source_of;
using test::TemporaryFolder;
using test::write_bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kWrite = R"(
import os
rng = np.random.default_rng(5)
def write(path, count, label_bytes, classes, shown):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'wb') as file:
        for i in range(count):
            labels = [int(rng.integers(20))] * (label_bytes - 1) + [int(rng.integers(classes))]
            planes = rng.integers(0, 256, (3, 32, 32), dtype=np.uint8)
            file.write(bytes(labels) + planes.tobytes())
            if shown:
                print(f'{path}#{i}', labels[-1], 3, '32x32', sum_of(planes.transpose(1, 2, 0)))
)";

std::string python(const TemporaryFolder& folder, const std::string& script) {
  return testing::run_python(folder.path(), std::string(test::kPythonChecksum) + kWrite + script);
}

std::unique_ptr<Reader> open(const std::string& root, int64_t classes) {
  return open_reader(source_of("cifar", root), model_of({32, 32}, 3, classes));
}

std::string refusal(const std::string& root, int64_t classes = 100) {
  return open_error(source_of("cifar", root), model_of({32, 32}, 3, classes));
}

TEST(Cifar, AFolderIsItsTrainingFiles) {
  const TemporaryFolder folder;
  const std::string expected = python(folder, R"(
for n in [1, 2, 10]:
    write(f'c/data_batch_{n}.bin', 3, 1, 10, True)
write('c/test_batch.bin', 2, 1, 10, False)
open('c/batches.meta.txt', 'w').write('\n'.join('abcdefghij') + '\n\n')
)");
  const auto reader = open(folder.path("c"), 10);
  EXPECT_EQ(listed(*reader, folder.path()), expected);
  EXPECT_EQ(reader->size(), 9);
  EXPECT_THAT(reader->class_names(), ElementsAre("a", "b", "c", "d", "e", "f", "g", "h", "i", "j"));
  EXPECT_EQ(open(folder.path("c/test_batch.bin"), 10)->size(), 2);
  EXPECT_EQ(open(folder.path("c/data_batch_[12].bin"), 10)->size(), 6);
}

TEST(Cifar, TheLastLabelByteOfCifar100IsTheClass) {
  const TemporaryFolder folder;
  const std::string expected = python(folder, R"(
write('c/train.bin', 7, 2, 100, True)
write('c/test.bin', 2, 2, 100, False)
open('c/fine_label_names.txt', 'w').write('\n'.join(f'n{i}' for i in range(100)))
)");
  const auto reader = open(folder.path("c"), 100);
  EXPECT_EQ(listed(*reader, folder.path()), expected);
  EXPECT_EQ(reader->class_names().size(), 100u);
}

TEST(Cifar, TellsTheVersionsOfOtherNamesApartByTheirLength) {
  const TemporaryFolder folder;
  ASSERT_EQ(python(folder,
                   "write('a/mine.bin', 4, 1, 10, False)\nwrite('b/mine.bin', 4, 2, 100, False)\n"),
            "");
  EXPECT_EQ(open(folder.path("a/mine.bin"), 10)->size(), 4);
  EXPECT_EQ(open(folder.path("b/mine.bin"), 100)->size(), 4);
  EXPECT_THAT(refusal(folder.path("?/mine.bin")),
              HasSubstr("must be CIFAR-10 as the files before it but is CIFAR-100"));
}

TEST(Cifar, RefusesWhatAreNotItsRecords) {
  const TemporaryFolder folder;
  const std::string record(3073, '\x09');
  write_bytes(folder.path("cut/data_batch_1.bin"), record + record.substr(0, 3000));
  EXPECT_THAT(refusal(folder.path("cut")),
              HasSubstr("data_batch_1.bin: must be whole records of 3073 bytes"));
  write_bytes(folder.path("cut/other.bin"), record + "x");
  EXPECT_THAT(
      open_error(source_of("cifar", folder.path("cut/other.bin")), model_of({32, 32}, 3, 1)),
      HasSubstr(
          "#0: a class must be below model.num_classes = 1 but is 9"));  // a record of CIFAR-100
  write_bytes(folder.path("cut/other.bin"), record + "xy");
  EXPECT_THAT(refusal(folder.path("cut/other.bin")), HasSubstr("3075 bytes are neither"));
  write_bytes(folder.path("none/data_batch_1.bin"), "");
  EXPECT_THAT(refusal(folder.path("none")), HasSubstr("but has 0 bytes"));
  write_bytes(folder.path("none/empty.bin"), "");
  EXPECT_THAT(refusal(folder.path("none/empty.bin")), HasSubstr("0 bytes are both"));
  write_bytes(folder.path("label/data_batch_1.bin"), record + std::string(3073, '\x0A'));
  EXPECT_THAT(refusal(folder.path("label")),
              HasSubstr("data_batch_1.bin#1: a class of CIFAR-10 must be below 10 but is 10"));
  write_bytes(folder.path("few/data_batch_1.bin"), record);
  EXPECT_THAT(refusal(folder.path("few"), 5),
              HasSubstr("#0: a class must be below model.num_classes = 5 but is 9"));
  write_bytes(folder.path("few/batches.meta.txt"), "a\nb\n");
  EXPECT_THAT(refusal(folder.path("few")),
              HasSubstr("batches.meta.txt: must name the 10 classes of CIFAR-10 but names 2"));
  write_bytes(folder.path("hollow/readme"), "");
  EXPECT_THAT(refusal(folder.path("hollow")), HasSubstr("expected data_batch_*.bin"));
  EXPECT_THAT(refusal(folder.path("nowhere")), HasSubstr("nowhere"));
}

}  // namespace
}  // namespace vitrail::data

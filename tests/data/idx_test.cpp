#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "listed_samples.h"

namespace vitrail::data {
namespace {

using test::listed;
using test::message_of;
using test::model_of;
using test::open_error;
using test::source_of;
using test::TemporaryFolder;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kWrite = R"(
import gzip, os
rng = np.random.default_rng(6)
codes = {'u1': 8, 'i1': 9, 'i2': 11, 'i4': 12, 'f4': 13, 'f8': 14}
def write(path, array):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    array = np.asarray(array)
    head = bytes([0, 0, codes[array.dtype.str[1:]], array.ndim]) + np.array(array.shape, '>u4').tobytes()
    opened = gzip.open(path, 'wb') if path.endswith('.gz') else open(path, 'wb')
    with opened as file:
        file.write(head + array.astype(array.dtype.newbyteorder('>')).tobytes())
def images(n, dtype='u1'):
    return rng.integers(0, 100, (n, 5, 7)).astype(dtype)
def show(path, images, labels):
    for i, (image, label) in enumerate(zip(images, labels)):
        print(f'{path}#{i}', label, 1, '5x7', sum_of(image))
)";

std::string python(const TemporaryFolder& folder, const std::string& script) {
  return testing::run_python(folder.path(), std::string(test::kPythonChecksum) + kWrite + script);
}

TEST(Idx, ReadsMnistsFilesPackedOrNotWithTheirLabels) {
  const TemporaryFolder folder;
  const std::string expected = python(folder, R"(
x, y = images(6), np.arange(6, dtype='u1')
for path, labels in [('a/train-images-idx3-ubyte', 'a/train-labels-idx1-ubyte'),
                     ('b/train-images-idx3-ubyte.gz', 'b/train-labels-idx1-ubyte.gz'),
                     ('c/t10k-images-idx3-ubyte.gz', 'c/t10k-labels-idx1-ubyte'),
                     ('d/train-images.idx3-ubyte', 'd/train-labels.idx1-ubyte.gz')]:
    write(path, x)
    write(labels, y)
    show(path, x, y)
)");
  std::string read;
  for (const char* const root : {"a", "b/train-images-idx3-ubyte.gz", "c/t10k*", "d"})
    read += listed(*open_reader(source_of("idx", folder.path(root)), model_of({5, 7}, 1, 10)),
                   folder.path());
  EXPECT_EQ(read, expected);
}

TEST(Idx, ReadsEveryTypeAndSeveralFilesWithNamedLabels) {
  const TemporaryFolder folder;
  const std::string expected = python(folder, R"(
for i, dtype in enumerate(codes):
    x, y = images(3, dtype), np.array([3, 1, 2]).astype(dtype)
    write(f'x/{i}-images-idx3', x)
    write(f'y/{i}.gz', y)
    show(f'x/{i}-images-idx3', x, [3, 1, 2])
)");
  const auto reader =
      open_reader(source_of("idx", folder.path("x/*"), folder.path("y")), model_of({5, 7}, 1, 10));
  EXPECT_EQ(listed(*reader, folder.path()), expected);
  EXPECT_EQ(reader->decode(0).full_scale, 255);
  EXPECT_TRUE(reader->decode(3).is_float());
  EXPECT_EQ(reader->decode(3).full_scale, 1);
}

TEST(Idx, WithoutLabelsOnlyOtherModelsThanClassifiersReadIt) {
  const TemporaryFolder folder;
  ASSERT_EQ(python(folder, "write('a/train-images-idx3-ubyte', images(2))\n"), "");
  const config::Source source = source_of("idx", folder.path("a"));
  EXPECT_THAT(open_error(source, model_of({5, 7}, 1, 10)),
              AllOf(HasSubstr("train-images-idx3-ubyte"), HasSubstr("set labels")));
  config::Model model = model_of({5, 7}, 1, 10);
  model.kind.value = "mae";
  EXPECT_EQ(open_reader(source, model)->describe(1).label, -1);
}

TEST(Idx, RefusesWhatDoesNotFit) {
  const TemporaryFolder folder;
  ASSERT_EQ(python(folder, R"(
write('two/train-images-idx3-ubyte', images(2)); write('two/t10k-images-idx3-ubyte', images(2))
write('flat/a-images-idx3', images(2).reshape(2, 35))
write('hollow/a-images-idx3', images(0))
write('few/a-images-idx3', images(3)); write('few/a-labels-idx1', np.zeros(2, 'u1'))
write('deep/a-images-idx3', images(2)); write('deep/a-labels-idx1', np.zeros((2, 1), 'u1'))
write('big/a-images-idx3', images(2)); write('big/a-labels-idx1', np.array([9, 10], 'u1'))
write('minus/a-images-idx3', images(2)); write('minus/a-labels-idx1', np.array([0, -1], 'i1'))
write('half/a-images-idx3', images(2)); write('half/a-labels-idx1', np.array([0, 0.5], 'f4'))
write('nan/a-images-idx3', np.full((1, 5, 7), np.nan, 'f4')); write('nan/a-labels-idx1', np.array([0], 'u1'))
write('cut/a-images-idx3.gz', images(2)); write('cut/a-labels-idx1', np.zeros(2, 'u1'))
data = open('cut/a-images-idx3.gz', 'rb').read(); open('cut/a-images-idx3.gz', 'wb').write(data[:-12])
)"),
            "");
  const config::Model model = model_of({5, 7}, 1, 10);
  const std::pair<const char*, const char*> cases[] = {
      {"two", "must hold one file of images but holds 2; name one of them"},
      {"flat", "must have three axes (images, rows, columns), none of length 0, but has 2 x 35"},
      {"hollow", "none of length 0, but has 0 x 5 x 7"},
      {"few", "a-labels-idx1: must have a label for each of the 3 images"},
      {"deep", "its shape is 2 x 1"},
      {"big", "a-labels-idx1#1: a class must be below model.num_classes = 10 but is 10"},
      {"minus", "a-labels-idx1#1: a class must be 0 or more but is -1"},
      {"half", "a-labels-idx1#1: a class must be a whole number but is 0.5"},
      {"cut", "a-images-idx3.gz: broken gzip"},
      {"nowhere", "nowhere"},
  };
  for (const auto& [root, words] : cases)
    EXPECT_THAT(open_error(source_of("idx", folder.path(root)), model), HasSubstr(words)) << root;
  const auto reader = open_reader(source_of("idx", folder.path("nan")), model);
  EXPECT_THAT(message_of<core::DataError>([&] { reader->decode(0); }),
              HasSubstr("a-images-idx3#0: values must be finite"));
  EXPECT_THAT(open_error(source_of("idx", folder.path("big"), folder.path("big/*")), model),
              HasSubstr("expected one file of labels for each of the 1 files"));
}

}  // namespace
}  // namespace vitrail::data

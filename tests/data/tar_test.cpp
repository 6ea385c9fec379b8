#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "listed_samples.h"
#include "tests/io/fuzz.h"
#include "vitrail/data/tar_index.h"

namespace vitrail::data {
namespace {

using test::listed;
using test::message_of;
using test::model_of;
using test::open_error;
using test::segmenter;
using test::source_of;
using test::TemporaryFolder;
using test::write_bytes;
using ::testing::AllOf;
using ::testing::HasSubstr;

/// `write(path, {name: bytes})`, `png(array)`.
constexpr const char* kWrite = R"(
import io, json, os, tarfile
from PIL import Image
rng = np.random.default_rng(4)
def write(path, members, format=tarfile.PAX_FORMAT):
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    with tarfile.open(path, 'w', format=format) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
def noise(*shape):
    return rng.integers(0, 256, shape, dtype=np.uint8)
def png(array, kind='png'):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()
)";

std::string python(const TemporaryFolder& folder, const std::string& script) {
  return testing::run_python(folder.path(), std::string(test::kPythonChecksum) + kWrite + script);
}

TEST(Tar, AgreesWithTarfileAndPillowOverSeveralShards) {
  const TemporaryFolder folder;
  const std::string expected = python(folder, R"(
number = 0
for shard in range(11):
    members, shown = [], []
    for i in range(4):
        key = ['a', 'long/' * 30 + 'key', 'dotted.folder/b', 'ünï'][i] + str(i)
        array = noise(4 + i, 9, 3) if i % 2 else noise(5, 6 + i)
        label = number % 7
        classes = [('cls', str(label)), ('json', json.dumps({'label': label, 'x': [{'label': 9}]})),
                   ('cls.txt', f' {label}\n'), ('txt', f'{label}')][number % 4]
        parts = [(f'{key}.PNG' if i == 0 else f'{key}.png', png(array)), (f'{key}.{classes[0]}', classes[1].encode())]
        members += parts if number % 3 else parts[::-1]
        shown.append((key, label, array))
        number += 1
    members.insert(2, ('readme.txt', b'7'))
    members.insert(0, ('._a0.png', b'not an image'))
    write(f's/shard-{shard}.tar', members, [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT][shard % 2])
    for key, label, array in shown:
        print(f's/shard-{shard}.tar#{key}', label, array.shape[2] if array.ndim == 3 else 1,
              f'{array.shape[0]}x{array.shape[1]}', sum_of(array))
)");
  const auto reader = open_reader(source_of("tar", folder.path("s")), model_of({8, 8}, 3, 7));
  EXPECT_EQ(listed(*reader, folder.path()), expected);
  EXPECT_EQ(reader->size(), 44);
  EXPECT_EQ(open_reader(source_of("tar", folder.path("s/shard-[12].tar")), model_of({8, 8}, 3, 7))
                ->size(),
            8);
}

TEST(Tar, DecodesJpegLikeAFileOfItsOwn) {
  const TemporaryFolder folder;
  ASSERT_EQ(python(folder, R"(
data = png(noise(16, 16, 3), 'jpeg')
open('a.jpg', 'wb').write(data)
write('a.tar', [('a.jpg', data), ('a.cls', b'1'), ('b.jpeg', data), ('b.cls', b'0')])
)"),
            "");
  const auto reader = open_reader(source_of("tar", folder.path("a.tar")), model_of({8, 8}, 3, 7));
  EXPECT_EQ(reader->decode(0).values, io::read_image(folder.path("a.jpg")).pixels);
  EXPECT_EQ(reader->decode(1).values, reader->decode(0).values);
}

TEST(Tar, MasksAreClassesOfPixels) {
  const TemporaryFolder folder;
  const std::string expected = python(folder, R"(
members = []
for i, kind in enumerate(['mask.png', 'seg.png']):
    mask = rng.integers(0, 3, (6, 7), dtype=np.uint8)
    print(sum_of(mask))
    members += [(f'{i}.jpg', png(noise(6, 7, 3), 'jpeg')), (f'{i}.{kind}', png(mask))]
write('good.tar', members)
write('size.tar', [('a.png', png(noise(6, 7))), ('a.seg.png', png(noise(6, 6)))])
write('deep.tar', [('a.png', png(noise(6, 7))), ('a.seg.png', png(np.zeros((6, 7), np.uint16)))])
write('colour.tar', [('a.png', png(noise(6, 7))), ('a.seg.png', png(noise(6, 7, 3)))])
write('lacks.tar', [('a.png', png(noise(6, 7))), ('a.seg.png', png(noise(6, 7))), ('b.png', png(noise(6, 7)))])
)");
  const auto reader =
      open_reader(source_of("tar", folder.path("good.tar")), segmenter({8, 8}, 3, 3));
  ASSERT_TRUE(reader->has_masks());
  EXPECT_EQ(fmt::format("{}\n{}\n", test::checksum(reader->decode_mask(0).classes),
                        test::checksum(reader->decode_mask(1).classes)),
            expected);
  const auto mask_error = [&](const std::string& name) {
    const auto broken = open_reader(source_of("tar", folder.path(name)), segmenter({8, 8}, 3, 256));
    return message_of<core::DataError>([&] { broken->decode_mask(0); });
  };
  EXPECT_THAT(mask_error("size.tar"),
              AllOf(HasSubstr("size.tar#a (mask)"), HasSubstr("must have the sides of its image")));
  EXPECT_EQ(mask_error("deep.tar"), "");  // of 16 bits
  EXPECT_THAT(mask_error("colour.tar"),
              AllOf(HasSubstr("colour.tar#a (mask)"), HasSubstr("must be grey")));
  EXPECT_THAT(open_error(source_of("tar", folder.path("lacks.tar")), segmenter({8, 8}, 3, 256)),
              AllOf(HasSubstr("lacks.tar#b"), HasSubstr("no mask.png or seg.png")));
  config::Model mae = model_of({8, 8}, 3, 3);
  mae.kind.value = "mae";
  EXPECT_FALSE(open_reader(source_of("tar", folder.path("lacks.tar")), mae)->has_masks());
}

TEST(Tar, NamesArchiveAndKeyOfWhatIsWrong) {
  const TemporaryFolder folder;
  ASSERT_EQ(python(folder, R"(
good = png(noise(4, 4))
cases = {
    'twice': [('a.png', good), ('a.jpg', good)],
    'again': [('a.cls', b'1'), ('a.cls', b'1')],
    'empty': [('a.png', b'')],
    'text': [('a.png', good), ('a.cls', b'dog')],
    'json': [('a.png', good), ('a.json', b'{"label": ')],
    'word': [('a.png', good), ('a.json', b'{"label": "dog"}')],
    'minus': [('a.png', good), ('a.cls', b'-3')],
    'large': [('a.png', good), ('a.cls', b'7')],
    'unlabelled': [('a.png', good), ('a.cls', b'3'), ('b.png', good), ('b.txt', b'a dog')],
    'hollow': [('a.cls', b'3')],
    'control': [('a\n.png', good)],
}
for name, members in cases.items():
    write(name + '.tar', members)
)"),
            "");
  const std::pair<const char*, const char*> cases[] = {
      {"twice", "twice.tar#a: holds two members of the kind 'jpg'"},
      {"again", "again.tar#a: holds two members of the kind 'cls'"},
      {"empty", "empty.tar#a: the member 'png' is empty"},
      {"text", "text.tar#a: the class must be a whole number but is 'dog'"},
      {"json", "json.tar#a: must be JSON"},
      {"word", "word.tar#a: 'label' of the json member must be a whole number"},
      {"minus", "minus.tar#a: the class must be 0 or more but is -3"},
      {"large", "large.tar#a: a class must be below model.num_classes = 7 but is 7"},
      {"unlabelled", "unlabelled.tar#b: a classifier needs a class"},
      {"hollow", "hollow.tar: holds no .jpg, .jpeg or .png image"},
      {"control", "control.tar#a\\x0a: a key must not hold control characters"},
  };
  const config::Model model = model_of({4, 4}, 1, 7);
  for (const auto& [name, words] : cases)
    EXPECT_THAT(open_error(source_of("tar", folder.path(std::string(name) + ".tar")), model),
                HasSubstr(words));
  write_bytes(folder.path("x/y.tar"), "not an archive");
  EXPECT_THAT(open_error(source_of("tar", folder.path("x")), model),
              HasSubstr("y.tar: ends at byte 14"));
  EXPECT_THAT(open_error(source_of("tar", folder.path("nowhere")), model), HasSubstr("nowhere"));
}

TEST(Tar, ABrokenImageIsNamedWhenItIsRead) {
  const TemporaryFolder folder;
  ASSERT_EQ(python(folder, R"(
good = png(noise(16, 16, 3), 'jpeg')
write('a.tar', [('a.jpg', good), ('a.cls', b'1'), ('x/b.jpg', good[:200]), ('x/b.cls', b'1'), ('c.png', b'text'), ('c.cls', b'1')])
)"),
            "");
  const auto reader = open_reader(source_of("tar", folder.path("a.tar")), model_of({8, 8}, 3, 7));
  EXPECT_EQ(reader->decode(0).values.size(), 768u);
  EXPECT_THAT(message_of<core::DataError>([&] { reader->decode(1); }), HasSubstr("a.tar#x/b: "));
  EXPECT_THAT(message_of<core::DataError>([&] { reader->decode(2); }), HasSubstr("a.tar#c: "));
}

TEST(Tar, ThreadsReadTheSameAsOne) {
  const TemporaryFolder folder;
  ASSERT_EQ(python(folder, R"(
for s in range(3):
    write(f's/{s}.tar', [(f'{i}.{kind}', png(noise(12, 11, 3)) if kind == 'png' else b'2') for i in range(20) for kind in ['png', 'cls']])
)"),
            "");
  const auto reader = open_reader(source_of("tar", folder.path("s")), model_of({8, 8}, 3, 7));
  const std::string alone = listed(*reader, folder.path());
  std::vector<std::string> said(4);
  {
    std::vector<std::jthread> threads;
    for (std::string& text : said)
      threads.emplace_back([&] { text = listed(*reader, folder.path()); });
  }
  for (const std::string& text : said) EXPECT_EQ(text, alone);
}

TEST(Tar, DamagedShardsAreIndexedOrRefused) {
  const TemporaryFolder folder;
  ASSERT_EQ(python(folder,
                   "write('a.tar', [('a.png', png(noise(4, 4))), ('a.cls', b'1'), ('b.json', "
                   "b'{\"label\": 2}'), ('b.png', b'x')])\n"),
            "");
  std::ifstream stream(folder.path("a.tar"), std::ios::binary);
  std::string file{std::istreambuf_iterator<char>(stream), {}};
  file.resize(5 * 1024);  // of 10 KiB most are zeros
  const auto counts =
      testing::fuzz<core::DataError>(file, 3000, [](std::span<const std::byte> bytes) {
        for (const TarSample& sample : index_tar(bytes, "fuzzed").samples)
          ASSERT_LE(sample.image.offset + sample.image.size, static_cast<int64_t>(bytes.size()));
      });
  EXPECT_GT(counts.refused, 100);
  EXPECT_GT(counts.read, 20);
}

}  // namespace
}  // namespace vitrail::data

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "listed_samples.h"
#include "tests/io/fuzz.h"
#include "vitrail/data/image_list_manifest.h"

namespace vitrail::data {
namespace {

using test::config_error;
using test::listed;
using test::message_of;
using test::model_of;
using test::open_error;
using test::segmenter;
using test::source_of;
using test::TemporaryFolder;
using test::write_bytes;
using test::write_grey;
using test::write_image;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

config::Model regressor(int64_t values) {
  config::Model model = model_of({4, 4}, 3, values);
  model.loss.value = "mse";
  return model;
}

TEST(ImageList, AgreesWithPythonsCsvAndPillow) {
  const TemporaryFolder folder;
  const std::string expected =
      testing::run_python(folder.path(), std::string(test::kPythonChecksum) + R"(
import csv, random
from PIL import Image
rng = np.random.default_rng(3)
random.seed(3)
names = ['zebra', 'Ant', 'bee, large', 'a "quoted" one', 'ünï']
rows = []
import os
os.makedirs('lists'); os.makedirs('images/sub dir')
for i in range(12):
    path = ['../images', '../images/sub dir'][i % 2] + f'/{i},x.png'
    array = rng.integers(0, 256, (3 + i, 20 - i, 3) if i % 3 else (3 + i, 20 - i), dtype=np.uint8)
    Image.fromarray(array).save('lists/' + path)
    rows.append((f'patient {i}', path, random.choice(names)))
with open('lists/train.csv', 'w', newline='', encoding='utf-8-sig') as file:
    writer = csv.writer(file, lineterminator='\r\n')
    writer.writerow(['patient', 'path', 'label'])
    writer.writerows(rows)
with open('lists/train.csv', newline='', encoding='utf-8-sig') as file:
    read = list(csv.DictReader(file))
classes = sorted({row['label'] for row in read}, key=lambda name: name.encode())
for row in read:
    image = np.asarray(Image.open('lists/' + row['path']))
    channels = image.shape[2] if image.ndim == 3 else 1
    print('lists/' + row['path'], classes.index(row['label']), channels,
          f'{image.shape[0]}x{image.shape[1]}', sum_of(image))
)");
  const auto reader =
      open_reader(source_of("image_list", folder.path("lists/train.csv")), model_of({4, 4}, 3, 10));
  EXPECT_EQ(listed(*reader, folder.path()), expected);
  EXPECT_EQ(reader->size(), 12);
}

TEST(ImageList, JsonAndJsonLinesAndTabsGiveWhatCsvGives) {
  const std::string name = "list";
  const Manifest csv = parse_image_manifest(
      "path,label,mask,value0,value1,note\na.png,cat,m/a.png,1.5,-2,x\nb "
      "c.png,Dog,m/b.png,3,4e2,\n",
      name + ".csv");
  const Manifest tabs = parse_image_manifest(
      "image\tvalue1\tlabel\tmask\tvalue0\na.png\t-2\tcat\tm/a.png\t1.5\n b c.png "
      "\t4e2\tDog\tm/b.png\t3",
      name + ".tsv");
  const Manifest json = parse_image_manifest(
      R"([{"path": "a.png", "label": "cat", "mask": "m/a.png", "value": [1.5, -2], "more": {"x": [1]}},
          {"image": "b c.png", "label": "Dog", "mask": "m/b.png", "value0": 3, "value1": 4e2}])",
      name + ".json");
  const Manifest lines = parse_image_manifest(
      "{\"path\": \"a.png\", \"label\": \"cat\", \"mask\": \"m/a.png\", \"value\": [1.5, -2]}\r\n\n"
      "{\"path\": \"b c.png\", \"label\": \"Dog\", \"mask\": \"m/b.png\", \"value\": [3, 400], "
      "\"x\": [{\"path\": \"no\"}]}",
      name + ".jsonl");
  for (const Manifest* manifest : {&csv, &tabs, &json, &lines}) {
    EXPECT_THAT(manifest->class_names, ElementsAre("Dog", "cat"));
    EXPECT_THAT(manifest->values, ElementsAre(1.5f, -2.f, 3.f, 400.f));
    EXPECT_EQ(manifest->num_values, 2);
    ASSERT_EQ(manifest->images.size(), 2u);
    EXPECT_EQ(manifest->images[0].path, "a.png");
    EXPECT_EQ(manifest->images[1].path, "b c.png");
    EXPECT_EQ(manifest->images[1].mask, "m/b.png");
    EXPECT_EQ(manifest->images[0].label, 1);
    EXPECT_EQ(manifest->images[1].label, 0);
  }
  EXPECT_EQ(csv.images[1].where, "list.csv:3");
  EXPECT_EQ(json.images[1].where, "list.json: [1]");
  EXPECT_EQ(lines.images[1].where, "list.jsonl:3");
}

TEST(ImageList, LabelsThatAreAllWholeNumbersAreClassesAsTheyAre) {
  const Manifest numbers = parse_image_manifest("path,label\na,7\nb,03\n", "x.csv");
  EXPECT_TRUE(numbers.class_names.empty());
  EXPECT_EQ(numbers.images[0].label, 7);
  EXPECT_EQ(numbers.images[1].label, 3);
  const Manifest mixed = parse_image_manifest("path,label\na,7\nb,03\nc,x\n", "x.csv");
  EXPECT_THAT(mixed.class_names, ElementsAre("03", "7", "x"));
  const Manifest json = parse_image_manifest(R"([{"path": "a", "label": 2}])", "x.json");
  EXPECT_EQ(json.images[0].label, 2);
}

TEST(ImageList, ValuesAndMasksReachTheSample) {
  const TemporaryFolder folder;
  write_image(folder.path("a.png"), {4, 5}, 3, 1);
  write_grey(folder.path("mask.png"), {4, 5}, std::vector<uint8_t>(20, 255));
  write_grey(folder.path("small.png"), {4, 4}, std::vector<uint8_t>(16, 255));
  write_bytes(folder.path("l.csv"),
              "path,mask,value0,value1\na.png,mask.png,0.25,-1\na.png,small.png,1,2\n");
  const auto learnt = open_reader(source_of("image_list", folder.path("l.csv")), regressor(2));
  EXPECT_THAT(learnt->describe(0).values, ElementsAre(0.25f, -1.f));
  EXPECT_THAT(learnt->describe(1).values, ElementsAre(1.f, 2.f));
  EXPECT_EQ(learnt->describe(0).label, -1);
  config::Source source = source_of("image_list", folder.path("l.csv"));
  source.label_values = {0, 255};
  const auto segments = open_reader(source, segmenter({4, 4}, 3, 2));
  ASSERT_TRUE(segments->has_masks());
  EXPECT_EQ(segments->decode_mask(0).classes, std::vector<int32_t>(20, 1));
  EXPECT_THAT(message_of<core::DataError>([&] { segments->decode_mask(1); }),
              AllOf(HasSubstr("small.png"), HasSubstr("must have the sides of its image")));
}

TEST(ImageList, NamesFileAndLineOfWhatIsWrong) {
  const auto refusal = [](const std::string& text, const std::string& name) {
    return message_of<core::DataError>([&] { parse_image_manifest(text, name); });
  };
  const std::pair<std::string, std::string> tables[] = {
      {"", "l.csv: lists no image"},
      {"path,label\n", "l.csv: lists no image"},
      {"file,label\na,1\n",
       "l.csv:1: the first row must name a column 'path' or 'image' but names 'file, label'"},
      {"path,label,label\n", "l.csv:1: the column 'label' must be there once"},
      {"path,label\na,1\nb\n", "l.csv:3: must have 2 columns as the first row but has 1"},
      {"path,label\na,1\n,2\n", "l.csv:3: has no path"},
      {"path,label\na,1\nb,\n", "l.csv:3: lacks a label but the entries before it have one"},
      {"path,label\na,\nb,1\n", "l.csv:3: has a label but the entries before it have none"},
      {"path,mask\na,m\nb,\n", "l.csv:3: lacks a mask"},
      {"path,value\na,x\n", "l.csv:2: a value must be a finite number but is 'x'"},
      {"path,value\na,\n", "l.csv:2: a value must be a finite number but is ''"},
      {"path,value\na,nan\n", "l.csv:2: a value must be a finite number but is 'nan'"},
      {"path,value\na,1e300\n", "l.csv:2: a value must be a finite number"},
      {"path,value,value0\n", "l.csv:1: the columns value and value0 exclude each other"},
      {"path,value0,value2\n", "l.csv:1: there must be a column value1 before value2"},
      {"path\n\"a\nb\"\n", "l.csv:2: a path must not hold control characters but is 'a\\x0ab'"},
      {"path\n\"a\n", "l.csv:2: the quote that opens here is never closed"},
  };
  for (const auto& [text, words] : tables)
    EXPECT_THAT(refusal(text, "l.csv"), HasSubstr(words)) << text;
  const std::pair<std::string, std::string> lists[] = {
      {"[]", "l.json: lists no image"},
      {"{\"path\": \"a\"}", "l.json: must be a list of objects"},
      {"{\"images\": [{\"path\": \"a\"}]}", "l.json: must be a list of objects"},
      {"[{\"path\": \"a\"}, 3]", "l.json: [1]: must be an object"},
      {"[{\"path\": \"a\"}, {}]", "l.json: [1]: has no path"},
      {"[{\"path\": 3}]", "l.json: [0]: 'path' must be a text"},
      {"[{\"path\": \"a\", \"label\": 1.5}]", "l.json: [0]: 'label' must be a text"},
      {"[{\"path\": \"a\", \"value\": \"x\"}]", "l.json: [0]: 'value' must be a number or a list"},
      {"[{\"path\": \"a\", \"value\": [1]}, {\"path\": \"b\", \"value\": [1, 2]}]",
       "l.json: [1]: must have 1 values as the entries before it but has 2"},
      {"[{\"path\": \"a\"}", "l.json: must be JSON"},
  };
  for (const auto& [text, words] : lists)
    EXPECT_THAT(refusal(text, "l.json"), HasSubstr(words)) << text;
  EXPECT_THAT(refusal("{\"path\": \"a\"}\n[1]\n", "l.jsonl"), HasSubstr("l.jsonl:2"));
  EXPECT_THAT(refusal("{\"path\": \"a\"}\n{\"path\"}\n", "l.jsonl"),
              HasSubstr("l.jsonl:2: must be JSON"));
}

TEST(ImageList, SaysWhichColumnTheModelLacks) {
  const TemporaryFolder folder;
  write_bytes(folder.path("l.csv"), "path,labels\na.png,1\n");
  const config::Source source = source_of("image_list", folder.path("l.csv"));
  EXPECT_THAT(open_error(source, model_of({4, 4}, 3, 10)),
              AllOf(HasSubstr("l.csv"), HasSubstr("'label'"), HasSubstr("path, labels")));
  EXPECT_THAT(open_error(source, segmenter({4, 4}, 3, 10)), HasSubstr("'mask'"));
  EXPECT_THAT(open_error(source, regressor(2)), HasSubstr("model.num_classes = 2 values"));
  write_bytes(folder.path("l.csv"), "path,label\na.png,9\nb.png,10\n");
  EXPECT_THAT(open_error(source, model_of({4, 4}, 3, 10)),
              HasSubstr("l.csv:3: a class must be below model.num_classes = 10 but is 10"));
  write_bytes(folder.path("l.csv"), "path,label\na.png,-1\n");
  EXPECT_THAT(open_error(source, model_of({4, 4}, 3, 10)),
              HasSubstr("l.csv:2: a class must be 0 or more"));
  EXPECT_THAT(config_error(source, model_of({4, 4, 4}, 3, 10)),
              HasSubstr("model.image_size has 3"));
  EXPECT_THAT(open_error(source_of("image_list", folder.path("no.csv")), model_of({4, 4}, 3, 10)),
              HasSubstr("no.csv"));
}

TEST(ImageList, NamesAMissingImageWhenItIsRead) {
  const TemporaryFolder folder;
  write_bytes(folder.path("l.csv"), "path,label\nnowhere.png,1\n");
  const auto reader =
      open_reader(source_of("image_list", folder.path("l.csv")), model_of({4, 4}, 3, 10));
  EXPECT_THAT(message_of<core::DataError>([&] { reader->decode(0); }), HasSubstr("nowhere.png"));
}

TEST(ImageList, DamagedManifestsAreReadOrRefused) {
  const std::pair<const char*, const char*> manifests[] = {
      {"fuzzed.csv", "path,label,mask,value0\na.png,cat,m,1\n\"b, \"\"c\"\"\",dog,m,3\n"},
      {"fuzzed.json",
       R"([{"path": "a", "label": 1, "value": 2}, {"path": "b", "label": "x", "value0": 1}])"},
      {"fuzzed.jsonl", "{\"path\": \"a\", \"label\": 1}\n\n{\"image\": \"b\", \"label\": 2}\r\n"},
  };
  for (const auto& [name, text] : manifests) {
    const auto counts =
        testing::fuzz<core::DataError>(text, 2000, [&](std::span<const std::byte> bytes) {
          parse_image_manifest({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, name);
        });
    EXPECT_GT(counts.refused, 100);
    EXPECT_GT(counts.read, 0);
  }
}

}  // namespace
}  // namespace vitrail::data

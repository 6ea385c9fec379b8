#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "listed_samples.h"
#include "tests/io/fuzz.h"
#include "vitrail/data/voc_annotation.h"

namespace vitrail::data {
namespace {

using test::listed;
using test::message_of;
using test::model_of;
using test::open_error;
using test::source_of;
using test::TemporaryFolder;
using test::write_bytes;
using test::write_image;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string object(const std::string& name, const std::string& corners) {
  return "<object><name>" + name + "</name><difficult>1</difficult><bndbox>" + corners +
         "</bndbox><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>\n";
}

std::string corners(int xmin, int ymin, int xmax, int ymax) {
  return fmt::format("<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>", xmin, ymin,
                     xmax, ymax);
}

std::string annotation(const std::string& inside) {
  return "<annotation>\n<filename>x.png</filename>\n<size><width>10</width><height>8</height></"
         "size>\n" +
         inside + "</annotation>\n";
}

std::string box_line(const LabelledBox& box) {
  return fmt::format("{:.9g} {:.9g} {:.9g} {:.9g} {}\n", box.x0, box.y0, box.x1, box.y1, box.label);
}

constexpr const char* kPython = R"(
import os, random
import xml.etree.ElementTree as tree
from PIL import Image
rng = np.random.default_rng(9)
for folder in ['voc/JPEGImages', 'voc/Annotations', 'voc/ImageSets/Main']:
    os.makedirs(folder)
names = ['zebra', 'Ant', 'bee & co', 'ünï']
for i in range(8):
    width, height = int(rng.integers(8, 40)), int(rng.integers(8, 40))
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(f'voc/JPEGImages/i{i}.png')
    root = tree.Element('annotation', verified='yes')
    tree.SubElement(root, 'filename').text = f'i{i}.png'
    if i != 3:
        size = tree.SubElement(root, 'size')
        tree.SubElement(size, 'width').text = str(width if i != 4 else 0)
        tree.SubElement(size, 'height').text = str(height if i != 4 else 0)
    for k in range(int(rng.integers(0, 6)) if i != 5 else 0):
        item = tree.SubElement(root, 'object')
        tree.SubElement(item, 'name').text = names[int(rng.integers(4))]
        tree.SubElement(item, 'difficult').text = str(k % 2)
        box = tree.SubElement(item, 'bndbox')
        for key, side in [('xmax', width), ('xmin', width), ('ymin', height), ('ymax', height)]:
            value = rng.uniform(-2, side * 0.7) if 'min' in key else rng.uniform(side * 0.3, side + 4)
            tree.SubElement(box, key).text = f' {value:.3f} ' if k % 2 else str(int(value))
    tree.ElementTree(root).write(f'voc/Annotations/i{i}.xml', encoding='utf-8', xml_declaration=True)
open('voc/ImageSets/Main/val.txt', 'w').write('i6\ni1 \r\n\n')
Image.new('RGB', (3, 3)).save('voc/JPEGImages/without.jpg')

classes, all_boxes, empty = set(), {}, 0
for i in range(8):
    root = tree.parse(f'voc/Annotations/i{i}.xml').getroot()
    width, height = Image.open(f'voc/JPEGImages/i{i}.png').size
    boxes = []
    for item in root.iter('object'):
        name = item.find('name').text
        classes.add(name)
        low, high = (tuple(float(item.find(f'bndbox/{a}{m}').text) for a in 'xy') for m in ['min', 'max'])
        values = [low[0] - 1, low[1] - 1, high[0], high[1]]
        box = [np.float32(min(max(v, 0.0), float(s))) for v, s in zip(values, [width, height] * 2)]
        if box[2] > box[0] and box[3] > box[1]:
            boxes.append((box, name))
    all_boxes[i] = boxes
classes = sorted(classes, key=lambda name: name.encode())
def show(chosen):
    for i in chosen:
        image = np.asarray(Image.open(f'voc/JPEGImages/i{i}.png'))
        print(f'voc/JPEGImages/i{i}.png', -1, 3, f'{image.shape[0]}x{image.shape[1]}', sum_of(image))
    for i in chosen:
        for box, name in all_boxes[i]:
            print(' '.join(f'{v:.9g}' for v in box), classes.index(name))
    print('most', max(len(all_boxes[i]) for i in chosen), classes)
show(range(8))
show([1, 6])
)";

TEST(Voc, AgreesWithPythonsReadingOfTheSameFolder) {
  const TemporaryFolder folder;
  const std::string expected =
      testing::run_python(folder.path(), std::string(test::kPythonChecksum) + kPython);
  std::string read;
  for (const char* const labels : {"", "val"}) {
    const auto reader =
        open_reader(source_of("voc", folder.path("voc"), labels), model_of({8, 8}, 3, 4));
    read += listed(*reader, folder.path());
    for (int64_t i = 0; i < reader->size(); ++i)
      for (const LabelledBox& box : reader->boxes(i)) read += box_line(box);
    std::string names;
    for (const std::string& name : reader->class_names())
      names += (names.empty() ? "'" : ", '") + name + "'";
    read += fmt::format("most {} [{}]\n", reader->max_boxes(), names);
  }
  EXPECT_EQ(read, expected);
}

TEST(Voc, CountsPixelsFromOneAndTheLastOneIn) {
  const TemporaryFolder folder;
  write_image(folder.path("a/x.png"), {8, 10}, 3);
  write_bytes(folder.path("a/x.xml"),
              annotation(object("b", corners(1, 1, 10, 8)) + object("a", corners(3, 4, 3, 4)) +
                         object("a", corners(0, -5, 99, 2)) + object("a", corners(5, 5, 3, 9)) +
                         object("a", corners(11, 1, 12, 2))));
  const auto reader = open_reader(source_of("voc", folder.path()), model_of({8, 8}, 3, 4));
  std::string boxes;
  for (const LabelledBox& box : reader->boxes(0)) boxes += box_line(box);
  EXPECT_EQ(boxes, "0 0 10 8 1\n2 3 3 4 0\n0 0 10 2 0\n");
  EXPECT_THAT(reader->class_names(), ElementsAre("a", "b"));  // "head" is a part of an object
}

TEST(Voc, ImagesAndAnnotationsMayLieSideBySideAtAnyDepth) {
  const TemporaryFolder folder;
  for (const char* const name : {"b/x", "b/y.z", "a/x"}) {
    write_image(folder.path(std::string(name) + ".PNG"), {8, 10}, 3);
    write_bytes(folder.path(std::string(name) + ".xml"),
                annotation(object(name[0] == 'a' ? "one" : "two", corners(1, 1, 2, 2))));
  }
  const auto reader = open_reader(source_of("voc", folder.path()), model_of({8, 8}, 3, 4));
  ASSERT_EQ(reader->size(), 3);
  EXPECT_EQ(reader->describe(0).path, folder.path("a/x.PNG"));
  EXPECT_EQ(reader->boxes(0).at(0).label, 0);
  EXPECT_EQ(reader->describe(2).path, folder.path("b/y.z.PNG"));
  write_bytes(folder.path("list.txt"), "b/x\nb/y.z\n");
  EXPECT_EQ(
      open_reader(source_of("voc", folder.path(), folder.path("list.txt")), model_of({8, 8}, 3, 4))
          ->size(),
      2);
}

TEST(Voc, NamesFileAndLineOfWhatIsWrong) {
  const std::string good = corners(1, 1, 2, 2);
  const std::pair<std::string, std::string> cases[] = {
      {"<other/>", "fuzzed:1: the outermost element must be <annotation> but is <other>"},
      {"<annotation><object>", "fuzzed:1: ends before"},
      {annotation("<object></object>"), "fuzzed:4: <object> must hold a <name>"},
      {annotation("<object><name>a</name></object>"), "fuzzed:4: <object> must hold a <bndbox>"},
      {annotation(object("", good)), "the name of an object must be a short text but is ''"},
      {annotation(object("a\nb", good)), "must be a short text but is 'a\\x0ab'"},
      {annotation(object("a", "<xmin>1</xmin>")), "<bndbox> must hold a <ymin>"},
      {annotation(object("a", "<xmin>one</xmin>")),
       "<xmin> must be a number of at most 1048576 but is 'one'"},
      {annotation(object("a", "<xmin>nan</xmin>")), "but is 'nan'"},
      {annotation(object("a", "<xmin>1e30</xmin>")), "but is '1e30'"},
      {annotation("<size><width>3</width></size>"), ""},  // the first <size> counts
      {"<annotation><size><width>3</width></size></annotation>", "<size> must hold a <height>"},
      {"<annotation><size><width>3.5</width><height>1</height></size></annotation>",
       "<width> must be a whole number"},
      {"<annotation><size><width>-3</width><height>1</height></size></annotation>",
       "<width> must be a whole number"},
      {"<!DOCTYPE x><annotation/>", "document types"},
  };
  for (const auto& [text, words] : cases)
    EXPECT_THAT(message_of<core::DataError>([&] { parse_voc(text, "fuzzed"); }), HasSubstr(words))
        << text;
}

TEST(Voc, RefusesFoldersThatDoNotFit) {
  const TemporaryFolder folder;
  const config::Model model = model_of({8, 8}, 3, 4);
  const auto refusal = [&](const std::string& labels = "") {
    return open_error(source_of("voc", folder.path("v"), labels), model);
  };
  EXPECT_THAT(refusal(), HasSubstr("no such folder"));
  write_image(folder.path("v/x.png"), {8, 11}, 3);
  EXPECT_THAT(refusal(), HasSubstr("holds no .xml file"));
  write_bytes(folder.path("v/x.xml"), annotation(""));
  const auto reader = open_reader(source_of("voc", folder.path("v")), model);
  EXPECT_THAT(message_of<core::DataError>([&] { reader->decode(0); }),
              AllOf(HasSubstr("x.png"), HasSubstr("must have 8 x 10 pixels"), HasSubstr("x.xml"),
                    HasSubstr("8 x 11")));
  EXPECT_EQ(reader->max_boxes(), 0);
  write_bytes(folder.path("list.txt"), "x\nnowhere\n");
  EXPECT_THAT(refusal(folder.path("list.txt")),
              AllOf(HasSubstr("list.txt"), HasSubstr("names 'nowhere', which has no annotation")));
  write_bytes(folder.path("list.txt"), "x -1\n");
  EXPECT_THAT(refusal(folder.path("list.txt")),
              HasSubstr("list.txt:1: a line must be the name of one image"));
  write_bytes(folder.path("list.txt"), "\n");
  EXPECT_THAT(refusal(folder.path("list.txt")), HasSubstr("names no image"));
  EXPECT_THAT(refusal("no_list"), HasSubstr("no_list"));
  write_image(folder.path("v/x.jpg"), {8, 10}, 3);
  EXPECT_THAT(refusal(), HasSubstr("has the same annotation as"));
  std::filesystem::remove(folder.path("v/x.jpg"));
  write_bytes(folder.path("v/y.xml"), annotation(""));
  EXPECT_THAT(refusal(), AllOf(HasSubstr("y.xml"), HasSubstr("has no image y.jpg, .jpeg or .png")));
}

TEST(Voc, DamagedFilesAreReadOrRefused) {
  const std::string text =
      annotation(object("cell", corners(1, 2, 5, 7)) + object("dust", corners(3, 3, 4, 4)));
  const auto counts =
      testing::fuzz<core::DataError>(text, 3000, [](std::span<const std::byte> bytes) {
        parse_voc({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, "fuzzed");
      });
  EXPECT_GT(counts.refused, 100);
  EXPECT_GT(counts.read, 10);
}

}  // namespace
}  // namespace vitrail::data

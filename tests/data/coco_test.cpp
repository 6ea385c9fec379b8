#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "listed_samples.h"
#include "tests/io/fuzz.h"
#include "vitrail/data/coco_annotations.h"

namespace vitrail::data {
namespace {

using test::config_error;
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

std::string refusal(const std::string& text) {
  return message_of<core::DataError>([&] { parse_coco(text, "fuzzed"); });
}

/// A document of one image of 10 x 8 pixels (width x height) and two categories.
std::string document(const std::string& annotations) {
  return R"({"images": [{"id": 5, "file_name": "a.png", "width": 10, "height": 8}],
             "categories": [{"id": 9, "name": "cell"}, {"id": 2, "name": "dust"}],
             "annotations": [)" +
         annotations + "]}";
}

TEST(Coco, AgreesWithPythonsReadingOfTheSameFile) {
  const TemporaryFolder folder;
  const std::string expected =
      testing::run_python(folder.path(), std::string(test::kPythonChecksum) + R"(
import json, os
from PIL import Image
rng = np.random.default_rng(8)
os.makedirs('images/sub')
images, annotations = [], []
for i in range(9):
    width, height = int(rng.integers(5, 40)), int(rng.integers(5, 40))
    name = ('sub/' if i % 3 == 0 else '') + f'{i * 7}.png'
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save('images/' + name)
    images.append({'id': 1000 - i, 'file_name': name, 'width': width, 'height': height, 'license': 1})
for i in range(120):
    image = images[int(rng.integers(8))]  # the last one has none
    x, y, w, h = rng.uniform(-6, 25, 4).round(2).tolist()
    annotations.append({'id': i, 'image_id': image['id'], 'category_id': [3, 17, 44][i % 3], 'bbox': [x, y, w, h],
                        'iscrowd': int(i % 10 == 0), 'area': 1.5,
                        'segmentation': [[1, 2, 3]] if i % 2 else {'counts': [1, 2], 'size': [3, 4]}})
with open('instances.json', 'w') as file:
    json.dump({'info': {'year': 2017}, 'licenses': [{'id': 1, 'name': 'free'}], 'annotations': annotations,
               'images': images, 'categories': [{'id': c, 'name': f'n{c}', 'supercategory': 's'} for c in [44, 3, 99, 17]]}, file)

read = json.load(open('instances.json'))
classes = {c['id']: k for k, c in enumerate(sorted(read['categories'], key=lambda c: c['id']))}
lines, crowds, empty, most = [], 0, 0, 0
def natural(image):  # "sub/..." comes after every number
    head, _, name = image['file_name'].rpartition('/')
    return head != '', int(name.split('.')[0])
for image in sorted(read['images'], key=natural):
    array = np.asarray(Image.open('images/' + image['file_name']))
    print('images/' + image['file_name'], -1, 3, f'{array.shape[0]}x{array.shape[1]}', sum_of(array))
    kept = 0
    for a in read['annotations']:
        if a['image_id'] != image['id']:
            continue
        if a['iscrowd']:
            crowds += 1
            continue
        x, y, w, h = a['bbox']
        box = [np.float32(min(max(v, 0.0), float(side))) for v, side in
               zip([x, y, x + w, y + h], [image['width'], image['height']] * 2)]
        if box[2] > box[0] and box[3] > box[1]:
            kept += 1
            lines.append(' '.join(f'{v:.9g}' for v in box) + f' {classes[a["category_id"]]}')
        else:
            empty += 1
    most = max(most, kept)
print('\n'.join(lines))
print('crowds', crowds, 'empty', empty, 'most', most)
)");
  const auto reader =
      open_reader(source_of("coco", folder.path("images"), folder.path("instances.json")),
                  model_of({8, 8}, 3, 4));
  std::string read = listed(*reader, folder.path());
  for (int64_t i = 0; i < reader->size(); ++i)
    for (const LabelledBox& box : reader->boxes(i))
      read += fmt::format("{:.9g} {:.9g} {:.9g} {:.9g} {}\n", box.x0, box.y0, box.x1, box.y1,
                          box.label);
  std::ifstream file(folder.path("instances.json"));
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const CocoAnnotations parsed = parse_coco(text, "x");
  read +=
      fmt::format("crowds {} empty {} most {}\n", parsed.crowds, parsed.empty, reader->max_boxes());
  EXPECT_EQ(read, expected);
  EXPECT_GT(parsed.crowds, 5);
  EXPECT_GT(parsed.empty, 5);
  EXPECT_GT(parsed.boxes.size(), 20u);
  EXPECT_THAT(reader->class_names(), ElementsAre("n3", "n17", "n44", "n99"));
}

TEST(Coco, CutsBoxesAtTheEdgesAndCountsCategoriesByTheirIds) {
  const CocoAnnotations read =
      parse_coco(document(R"({"image_id": 5, "category_id": 9, "bbox": [-2, 1.5, 100, 3]},
                  {"image_id": 5, "category_id": 2, "bbox": [10, 0, 3, 3]},
                  {"image_id": 5, "category_id": 2, "bbox": [1, 1, 0, 3]},
                  {"image_id": 5, "category_id": 2, "bbox": [5, 5, -2, 3]},
                  {"image_id": 5, "category_id": 2, "iscrowd": 1, "segmentation": {"counts": [1]}})"),
                 "x");
  EXPECT_THAT(read.class_names, ElementsAre("dust", "cell"));
  ASSERT_EQ(read.boxes.size(), 1u);
  EXPECT_EQ(read.boxes[0].label, 1);
  EXPECT_EQ(read.boxes[0].x0, 0);
  EXPECT_EQ(read.boxes[0].x1, 10);
  EXPECT_EQ(read.boxes[0].y0, 1.5f);
  EXPECT_EQ(read.boxes[0].y1, 4.5f);
  EXPECT_EQ(read.empty, 3);
  EXPECT_EQ(read.crowds, 1);
}

TEST(Coco, NamesThePlaceOfWhatIsWrong) {
  const std::string good = R"("image_id": 5, "category_id": 9)";
  const std::pair<std::string, std::string> cases[] = {
      {"[]", "'images' lists no image"},
      {"[{}]", "must be an object with 'images'"},
      {"{}", "'images' lists no image"},
      {"{\"images\": 3}", "'images' lists no image"},
      {"{\"images\": [{\"id\": 1}]}", "images[0]: 'file_name' must be a text"},
      {R"({"images": [{"id": "1", "file_name": "a"}]})", "images[0]: 'id' must be a whole number"},
      {R"({"images": [{"id": 1, "file_name": "a", "width": 3}]})",
       "images[0]: 'height' must be a whole number"},
      {R"({"images": [{"id": 1, "file_name": "a", "width": 0, "height": 3}]})",
       "width and height must be 1 to 1048576 but are 0 and 3"},
      {R"({"images": [{"id": 1, "file_name": "a", "width": 3, "height": 99999999}]})",
       "but are 3 and 99999999"},
      {R"({"images": [{"id": 1, "file_name": "a\nb", "width": 3, "height": 3}]})",
       "must not hold control characters but is 'a\\x0ab'"},
      {R"({"images": [{"id": 1, "file_name": "a", "width": 3, "height": 3}, {"id": 1, "file_name": "b", "width": 3, "height": 3}]})",
       "images[1]: the id 1 must be given once"},
      {document("{" + good + "}"), "annotations[0]: 'bbox' must be four numbers"},
      {document("{" + good + ", \"bbox\": [1, 2, 3]}"),
       "annotations[0]: 'bbox' must be four numbers"},
      {document("{" + good + ", \"bbox\": [1, 2, 3, null]}"),
       "annotations[0]: 'bbox' must be four numbers"},
      {document("{" + good + ", \"bbox\": [1, 2, 3, 1e999]}"), "must be JSON"},
      {document(R"({"image_id": 6, "category_id": 9, "bbox": [1, 2, 3, 4]})"),
       "annotations[0]: the image 6 is not among 'images'"},
      {document(
           "{" + good +
           R"(, "bbox": [1, 2, 3, 4]}, {"image_id": 5, "category_id": 1, "bbox": [1, 2, 3, 4]})"),
       "annotations[1]: the category 1 is not among 'categories'"},
      {document("").substr(0, 80), "must be JSON"},
      {R"({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]})",
       "categories[1]: the id 1 must be given once"},
  };
  for (const auto& [text, words] : cases)
    EXPECT_THAT(refusal(text), AllOf(HasSubstr("fuzzed"), HasSubstr(words))) << text;
}

TEST(Coco, RefusesAnImageOfAnotherSizeThanTheFileSays) {
  const TemporaryFolder folder;
  write_image(folder.path("a.png"), {8, 9}, 3);
  write_bytes(folder.path("l.json"), document(""));
  const auto reader =
      open_reader(source_of("coco", folder.path(), folder.path("l.json")), model_of({8, 8}, 3, 4));
  const auto words =
      AllOf(HasSubstr("a.png"), HasSubstr("must have 8 x 10 pixels (height x width)"),
            HasSubstr("l.json"), HasSubstr("8 x 9"));
  EXPECT_THAT(message_of<core::DataError>([&] { reader->decode(0); }), words);
  EXPECT_THAT(message_of<core::DataError>([&] { reader->shape(0); }), words);
  EXPECT_TRUE(reader->boxes(0).empty());
}

TEST(Coco, NamesWhatIsMissing) {
  const TemporaryFolder folder;
  const config::Model model = model_of({8, 8}, 3, 4);
  EXPECT_THAT(open_error(source_of("coco", folder.path("no"), "x"), model),
              HasSubstr("no such folder"));
  EXPECT_THAT(open_error(source_of("coco", folder.path(), folder.path("no.json")), model),
              HasSubstr("no.json"));
  EXPECT_THAT(config_error(source_of("coco", folder.path()), model),
              HasSubstr("labels must name COCO's"));
}

TEST(Coco, DamagedFilesAreReadOrRefused) {
  const std::string text =
      document(R"({"image_id": 5, "category_id": 9, "bbox": [1, 1, 2, 3], "iscrowd": 0},
                                       {"image_id": 5, "category_id": 2, "bbox": [0, 0, 20, 20]})");
  const auto counts =
      testing::fuzz<core::DataError>(text, 3000, [](std::span<const std::byte> bytes) {
        const CocoAnnotations read =
            parse_coco({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, "fuzzed");
        for (const LabelledBox& box : read.boxes)
          ASSERT_TRUE(box.x0 >= 0 && box.x1 > box.x0 && box.label >= 0);
      });
  EXPECT_GT(counts.refused, 100);
  EXPECT_GT(counts.read, 10);
}

}  // namespace
}  // namespace vitrail::data

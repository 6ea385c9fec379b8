#pragma once
/// Pictures of coloured shapes with their boxes, in COCO's form, for tests of detection.

#include <algorithm>
#include <array>
#include <filesystem>
#include <string>

#include <fmt/format.h>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/philox.h"
#include "vitrail/io/image.h"

namespace vitrail::train {

/// Squares (class 0), discs (1) and triangles (2), one to three in a picture of `side` pixels, of any colour, on a noisy
/// grey ground; they do not overlap. Writes images/NNN.png and instances.json into `folder`; the same for the same seed.
inline void write_shapes(const std::string& folder, int count, int side, uint64_t seed) {
  namespace fs = std::filesystem;
  fs::create_directories(fs::path(folder) / "images");
  std::string images, annotations;
  int boxes = 0;
  for (int i = 0; i < count; ++i) {
    uint32_t next = 0;
    const auto draw = [&](int low, int high) {  // [low, high]
      const double share =
          core::uniform({seed, core::Stream::test, 0, 0}, static_cast<uint64_t>(i), next++);
      return std::min(high, low + static_cast<int>(share * (high - low + 1)));
    };
    io::Image picture;
    picture.height = picture.width = side, picture.channels = 3;
    picture.pixels.resize(static_cast<size_t>(side) * side * 3);
    for (uint8_t& value : picture.pixels) value = static_cast<uint8_t>(draw(90, 130));
    std::vector<std::array<int, 4>> taken;
    for (int shape = draw(1, 3), tries = 0; shape > 0 && tries < 50; ++tries) {
      const int edge = draw(side / 4, side / 2), x = draw(0, side - edge), y = draw(0, side - edge);
      const bool is_free = std::none_of(taken.begin(), taken.end(), [&](const auto& box) {
        return x < box[2] && y < box[3] && x + edge > box[0] && y + edge > box[1];
      });
      if (!is_free) continue;
      --shape;
      taken.push_back({x, y, x + edge, y + edge});
      const int kind = draw(0, 2), colour[3] = {draw(0, 255), draw(0, 40), draw(160, 255)};
      const int turn = draw(0, 2);
      for (int row = 0; row < edge; ++row)
        for (int column = 0; column < edge; ++column) {
          const double u = (column + 0.5) / edge - 0.5, v = (row + 0.5) / edge - 0.5;
          const bool is_inside = kind == 0 || (kind == 1 && u * u + v * v <= 0.25) ||
                                 (kind == 2 && std::abs(u) <= (v + 0.5) / 2);
          if (!is_inside) continue;
          uint8_t* pixel = &picture.pixels[(static_cast<size_t>(y + row) * side + x + column) * 3];
          for (int c = 0; c < 3; ++c) pixel[c] = static_cast<uint8_t>(colour[(c + turn) % 3]);
        }
      annotations += fmt::format(
          "{}{{\"id\": {}, \"image_id\": {}, \"category_id\": {}, \"bbox\": [{}, {}, {}, {}], "
          "\"area\": {}, \"iscrowd\": 0}}",
          boxes > 0 ? ",\n" : "", boxes + 1, i, kind, x, y, edge, edge, edge * edge);
      ++boxes;
    }
    const std::string name = fmt::format("{:04}.png", i);
    core::write_file_atomic((fs::path(folder) / "images" / name).string(), io::encode_png(picture));
    images += fmt::format("{}{{\"id\": {}, \"file_name\": \"{}\", \"width\": {}, \"height\": {}}}",
                          i > 0 ? ",\n" : "", i, name, side, side);
  }
  core::write_file_atomic(
      (fs::path(folder) / "instances.json").string(),
      fmt::format("{{\"images\": [{}], \"annotations\": [{}],\n\"categories\": [{{\"id\": 0, "
                  "\"name\": \"square\"}}, {{\"id\": 1, \"name\": \"disc\"}}, {{\"id\": 2, "
                  "\"name\": \"triangle\"}}]}}\n",
                  images, annotations));
}

}  // namespace vitrail::train

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

// libjpeg's header needs stdio first.
#include <jpeglib.h>

#include "tests/core/temp_folder.h"
#include "vitrail/core/error.h"
#include "vitrail/core/philox.h"
#include "vitrail/io/image.h"

namespace vitrail::io {
namespace {

using ::testing::HasSubstr;

uint32_t draw(uint64_t place, uint32_t number) {
  return core::draw({7, core::Stream::test, 0, 0}, place, number);
}

/// Edges and colours everywhere, so that a pixel that was interpolated otherwise shows.
Image pattern(int width, int height, int channels) {
  Image image{width, height, channels, {}};
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < channels; ++c)
        image.pixels.push_back(
            static_cast<uint8_t>(128 + 100 * std::sin(0.7 * x + c) * std::cos(0.5 * y * (c + 1)) +
                                 (x / 7 % 2 ? 20 : 0)));
  return image;
}

struct Kind {
  int horizontal, vertical;  // samples of brightness for one of colour
  bool progressive;
  int restart;  // blocks between restart markers; 0 = none
};

std::string jpeg_of(const Image& image, const Kind& kind) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &bytes, &size);
  info.image_width = static_cast<JDIMENSION>(image.width);
  info.image_height = static_cast<JDIMENSION>(image.height);
  info.input_components = image.channels;
  info.in_color_space = image.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, 92, TRUE);
  info.comp_info[0].h_samp_factor = kind.horizontal;
  info.comp_info[0].v_samp_factor = kind.vertical;
  info.restart_interval = static_cast<unsigned>(kind.restart);
  if (kind.progressive) jpeg_simple_progression(&info);
  jpeg_start_compress(&info, TRUE);
  while (info.next_scanline < info.image_height) {
    JSAMPROW row =
        const_cast<uint8_t*>(image.pixels.data()) +
        info.next_scanline * static_cast<size_t>(image.width) * static_cast<size_t>(image.channels);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  std::string file(reinterpret_cast<char*>(bytes), size);
  jpeg_destroy_compress(&info);
  std::free(bytes);
  return file;
}

Image cut(const Image& image, const ImageBox& box) {
  Image part{box.width, box.height, image.channels, {}};
  for (int y = box.y; y < box.y + box.height; ++y) {
    const auto row = image.pixels.begin() + (y * image.width + box.x) * image.channels;
    part.pixels.insert(part.pixels.end(), row, row + box.width * image.channels);
  }
  return part;
}

int expect_parts_equal(const std::string& file, uint64_t place, int boxes) {
  const auto bytes = std::as_bytes(std::span(file));
  const Image whole = decode_image(bytes, "whole");
  for (int b = 0; b < boxes; ++b) {
    const auto at = [&](uint32_t n, int end) {
      return static_cast<int>(draw(place, static_cast<uint32_t>(b) * 4 + n) %
                              static_cast<uint32_t>(end));
    };
    ImageBox box;
    box.width = 1 + at(0, whole.width);
    box.height = 1 + at(1, whole.height);
    box.x = at(2, whole.width - box.width + 1);
    box.y = at(3, whole.height - box.height + 1);
    const Image part = decode_image_box(bytes, "part", box);
    EXPECT_EQ(part.width, box.width);
    EXPECT_EQ(part.height, box.height);
    EXPECT_EQ(part.pixels, cut(whole, box).pixels)
        << whole.width << " x " << whole.height << ": " << box.width << " x " << box.height
        << " from " << box.x << ", " << box.y;
  }
  return boxes;
}

TEST(ImageBox, APartOfAJpegEqualsThatPartOfTheWhole) {
  int boxes = 0;
  uint64_t place = 0;
  for (const auto& [h, v] : {std::pair(1, 1), {2, 1}, {2, 2}, {1, 2}, {4, 1}, {4, 2}})
    for (const bool progressive : {false, true})
      for (const int restart : {0, 5})
        for (const auto& [width, height] :
             {std::pair(1, 1), {9, 9}, {64, 48}, {33, 47}, {131, 100}, {17, 90}, {300, 70}})
          boxes += expect_parts_equal(
              jpeg_of(pattern(width, height, 3), {h, v, progressive, restart}), ++place, 30);
  for (const auto& [width, height] : {std::pair(5, 3), {64, 48}, {131, 100}})
    boxes += expect_parts_equal(jpeg_of(pattern(width, height, 1), {1, 1, false, 0}), ++place, 30);
  std::printf("  %d parts\n", boxes);
}

TEST(ImageBox, APartOfAPngEqualsThatPartOfTheWhole) {
  for (const int channels : {1, 3})
    expect_parts_equal(encode_png(pattern(40, 30, channels)), 1000, 20);
}

TEST(ImageBox, WhatFollowsThePartIsNotLookedAt) {
  const Image image = pattern(64, 640, 3);
  const std::string file = jpeg_of(image, {2, 2, false, 0});
  const std::string half = file.substr(0, file.size() / 2);
  const ImageBox top{3, 2, 50, 100}, bottom{3, 500, 50, 100};
  EXPECT_EQ(decode_image_box(std::as_bytes(std::span(half)), "half", top).pixels,
            decode_image_box(std::as_bytes(std::span(file)), "file", top).pixels);
  try {
    decode_image_box(std::as_bytes(std::span(half)), "half", bottom);
    FAIL() << "a part that is not in the file must be an error";
  } catch (const core::DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("half: broken JPEG"));
  }
}

TEST(ImageBox, APartOutsideTheImageIsRefused) {
  const std::string jpeg = jpeg_of(pattern(20, 10, 3), {1, 1, false, 0});
  const std::string png = encode_png(pattern(20, 10, 3));
  for (const std::string& file : {jpeg, png})
    for (const ImageBox& box : {ImageBox{-1, 0, 5, 5},
                                {0, -1, 5, 5},
                                {16, 0, 5, 5},
                                {0, 6, 5, 5},
                                {0, 0, 0, 5},
                                {0, 0, 5, 0},
                                {5, 5, 2147483647, 1}})
      EXPECT_THROW(decode_image_box(std::as_bytes(std::span(file)), "file", box), core::DataError);
}

TEST(ImageBox, FilesAreReadLikeBytes) {
  const testing::TempFolder folder;
  const std::string path = folder.file("a.jpg");
  const std::string file = jpeg_of(pattern(33, 47, 3), {2, 2, false, 0});
  std::FILE* out = std::fopen(path.c_str(), "wb");
  std::fwrite(file.data(), 1, file.size(), out);
  std::fclose(out);
  const ImageSize size = read_image_size(path);
  EXPECT_EQ(size.width, 33);
  EXPECT_EQ(size.height, 47);
  EXPECT_EQ(size.channels, 3);
  EXPECT_EQ(read_image_box(path, {4, 5, 20, 30}).pixels,
            cut(read_image(path), {4, 5, 20, 30}).pixels);
}

}  // namespace
}  // namespace vitrail::io

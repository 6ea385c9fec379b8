#include "tests/fuzz/hostile_cases.h"

#include <stdexcept>

namespace vitrail::testing {
namespace {

const std::vector<int64_t> kImage{12, 10}, kVolume{6, 7, 8};

Seed image(const std::string& format, const std::string& file, int64_t channels) {
  Seed seed{format, format, file, "images", file, kImage, channels};
  if (format == "jpeg") seed.header = 640;  // its tables come before its sides
  return seed;
}

Seed volume(const std::string& format, const std::string& file) {
  Seed seed{format, format, file, format, file, kVolume};
  if (format == "tiff") seed.header = 512;
  return seed;
}

Seed text(Seed seed) {
  seed.is_text = true;
  return seed;
}

/// Metadata and one chunk of an array in a folder.
void add_container(const std::string& format, const std::string& array, const std::string& metadata,
                   const std::string& chunk, std::vector<Seed>& all) {
  const std::string folder = format + "/" + array;
  all.push_back(text({format, folder, metadata, format, "", kVolume}));
  all.push_back({format, folder, chunk, format, "", kVolume});
}

std::vector<Seed> make_seeds() {
  std::vector<Seed> all{
      image("jpeg", "grey.jpg", 1),
      image("jpeg", "colour.jpg", 3),
      image("jpeg", "progressive.jpg", 3),
      image("jpeg", "restart.jpg", 3),
      image("png", "grey.png", 1),
      image("png", "colour.png", 3),
      image("png", "palette.png", 3),
      image("png", "bits.png", 1),
      volume("nifti", "plain.nii"),
      volume("nifti", "packed.nii.gz"),
      volume("nifti", "second.nii"),
      volume("nifti", "pair.hdr"),
      {"nifti", "nifti", "pair.img", "nifti", "pair.hdr", kVolume},
      volume("npy", "floats.npy"),
      volume("npy", "fortran.npy"),
      {"npy", "npz", "stored.npz", "npy", "stored.npz", kVolume},
      {"npz", "npz", "packed.npz", "npy", "packed.npz", kVolume},
      volume("tiff", "plain.tif"),
      volume("tiff", "big.tif"),
      volume("tiff", "imagej.tif"),
      {"tiff", "tiff", "tiled.tif", "tiff", "tiled.tif", {6, 21, 24}},
      {"tiff", "tiff", "deflate.tif", "tiff", "deflate.tif", kImage, 3},
      {"tiff", "tiff", "lzw.tif", "tiff", "lzw.tif", kImage, 3},
      {"tiff", "tiff", "packbits.tif", "tiff", "packbits.tif", kImage, 3},
      text({"image_list", "image_list", "train.csv", "image_list", "train.csv", kImage, 3}),
      text({"image_list", "image_list", "train.json", "image_list", "train.json", kImage, 3}),
      {"png", "image_list", "a.png", "image_list", "train.csv", kImage, 3},
      {"cifar", "cifar", "data_batch_1.bin", "cifar", "", {32, 32}, 3},
      {"idx", "idx", "train-images-idx3-ubyte", "idx", "train-images-idx3-ubyte", kImage},
      {"idx", "idx", "train-labels-idx1-ubyte", "idx", "train-images-idx3-ubyte", kImage},
      text({"digits", "digits", "digits.csv.gz", "digits", "digits.csv.gz", {8, 8}}),
      text({"voc", "voc", "Annotations/a.xml", "voc", "", kImage, 3}),
      {"jpeg", "voc", "JPEGImages/a.jpg", "voc", "", kImage, 3},
      {"tar", "tar", "shard.tar", "tar", "shard.tar", kImage, 3},
  };
  Seed raw = volume("raw", "plain.raw");
  raw.adjust = [](config::Source& source, const std::string&) {
    source.dtype = "uint16";
    source.shape = kVolume;
  };
  all.push_back(raw);
  Seed coco = text({"coco", "coco", "instances.json", "coco", "images", kImage, 3});
  coco.adjust = [](config::Source& source, const std::string& folder) {
    source.labels = folder + "/instances.json";
  };
  all.push_back(coco);
  for (const char* codec : {"blosc", "zstd", "lz4", "gzip", "zlib", "bz2"})
    add_container("zarr", std::string("two_") + codec + ".zarr", ".zarray", "0.0.0", all);
  for (const char* name : {"zstd", "blosc", "crc", "transpose", "shard"})
    add_container("zarr", std::string("three_") + name + ".zarr", "zarr.json", "c/0/0/0", all);
  all.push_back(text({"zarr", "zarr/ome.zarr", ".zattrs", "zarr", "", kVolume}));
  add_container("n5", "plain.n5", "attributes.json", "0/0/0", all);
  return all;
}

}  // namespace

const std::vector<Seed>& seeds() {
  static const std::vector<Seed> all = make_seeds();
  return all;
}

const MemoryLimit& limit_of(const std::string& format) {
  constexpr int64_t kMiB = int64_t{1} << 20;
  static const std::vector<MemoryLimit> limits{
      {"jpeg", 512 * 12, 8 * kMiB, "8 blocks of 64 values a byte; libjpeg's coefficients, pixels"},
      {"png", 1032 * 25, 8 * kMiB, "deflate 1032, 8 pixels of a bit a byte, 3 bytes a pixel"},
      {"nifti", 1032 * 9, 8 * kMiB, "deflate 1032, floats of bytes twice"},
      {"npy", 16, 8 * kMiB, "floats of bytes, twice"},
      {"npz", 1032 * 9, 8 * kMiB, "deflate 1032, floats of bytes twice"},
      {"raw", 16, 8 * kMiB, "floats of bytes, twice"},
      {"tiff", 2048 * 9, 256 * kMiB, "io/tiff.h"},
      {"image_list", 200, 8 * kMiB, "data/image_list_manifest.h"},
      {"cifar", 16, 8 * kMiB, "records"},
      {"idx", 16, 8 * kMiB, "floats of bytes, twice"},
      {"digits", 1032 * 20, 8 * kMiB, "deflate 1032, a double for two letters"},
      {"voc", 256, 8 * kMiB, "io/xml.h"},
      {"tar", 200, 8 * kMiB, "names"},
      {"coco", 200, 8 * kMiB, "data/coco_annotations.h"},
      {"zarr", 0, 512 * kMiB,
       "a box is as large as asked for; chunks that are not there are values"},
      {"n5", 0, 512 * kMiB, "as zarr"},
  };
  for (const MemoryLimit& limit : limits)
    if (limit.format == format) return limit;
  throw std::logic_error("no limit for " + format);
}

}  // namespace vitrail::testing

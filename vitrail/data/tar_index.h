#pragma once
/// What lies where in a shard of samples: a tar archive whose members are named as WebDataset
/// names them.
///
/// Format   the key of a member is its path up to the first dot of its last part, what follows is
///          its kind (in capitals or not): jpg, jpeg, png = image; cls = class as text; json = an
///          object whose `label` is the class; txt, cls.txt = class as text, in txt only if it is
///          a whole number; mask.png, seg.png = classes of the pixels. Other kinds are ignored.
/// Errors   DataError naming "archive.tar#key".
/// Memory   about 100 bytes a sample and its key; of images only the headers are touched.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace vitrail::data {

/// Bytes of a member; size 0 = there is none.
struct TarSpan {
  int64_t offset = 0, size = 0;
};

struct TarSample {
  std::string key;
  TarSpan image, mask;
  int64_t label = -1;
};

struct TarIndex {
  std::vector<TarSample> samples;  // in the order of their first members
  int64_t without_image = 0;       // keys left out
};

/// `name` is the archive's.
TarIndex index_tar(std::span<const std::byte> file, const std::string& name);

}  // namespace vitrail::data

#pragma once
/// The JSON of a safetensors file, read strictly; part of io/safetensors.h.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "vitrail/io/safetensors.h"

namespace vitrail::io {

struct SafetensorsHeader {
  std::vector<std::pair<std::string, SafetensorsInfo>> tensors;  // in the order of the header
  SafetensorsMetadata metadata;
};

/// Reads the JSON without building a tree, so that memory is bounded by the header and a key given
/// twice is seen. Offsets are checked for sign only. throws   CheckpointError naming `file`.
SafetensorsHeader parse_safetensors_header(std::string_view json, const std::string& file);

}  // namespace vitrail::io

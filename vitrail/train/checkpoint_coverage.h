#pragma once
/// Exact covering: every element of a tensor lies in one region, every byte of a file in one region or its header.

#include <string>

#include "vitrail/train/checkpoint_manifest.h"

namespace vitrail::train {

constexpr int64_t kMaxTensorBytes = 1ll
                                    << 60;  // of one tensor or file: sums of a few never overflow
constexpr size_t kMaxBoxes = 4096;          // of one tensor

/// A name from a file, fit for a terminal.
std::string printable(std::string name);
/// Neither too long nor with characters that move a terminal's cursor.
bool is_plain_file_name(const std::string& name);
bool has_control_characters(const std::string& name);

/// Boxes lie in the tensor, share no element and fill it; regions follow one another and fill every box.
void check_regions(const TensorEntry& entry, const Manifest& manifest, const std::string& where);
/// So the checksums cover all of every file.
void check_files(const Manifest& manifest, const std::string& where);

}  // namespace vitrail::train

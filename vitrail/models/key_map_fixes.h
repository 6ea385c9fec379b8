#pragma once
/// What a change of names needs besides the tables: the differences between programs that lie in values.
///
/// Shapes   L patches, D width, R registers, k axes.

#include "vitrail/models/key_map.h"
#include "vitrail/models/key_map_rules.h"

namespace vitrail::models {

/// throws CheckpointError naming what our blocks cannot express (DINOv3's rotary positions).
void refuse_what_cannot_be_read(const std::vector<nn::NamedTensor>& theirs, Naming from);

/// Zero rows for class and register tokens where the program's position table has none: adding zero changes nothing.
void insert_position_rows(Renamed& ours, PositionRows theirs);
/// The way back: a row that the program has no place for is added to its token.
void remove_position_rows(Renamed& ours, PositionRows theirs);

/// fc1 [2 * hidden, D] of a SwiGLU becomes fc1_g (first half) and fc1_x.
void unpack_gates(std::vector<nn::NamedTensor>& ours);

/// UCF-VIT's state holds its patch embedding twice (patch_embed, token_embeds), with variables once more for each.
/// throws CheckpointError when the copies differ.
void remove_copies(std::vector<nn::NamedTensor>& theirs);
void add_copies(std::vector<nn::NamedTensor>& theirs);

/// UCF-VIT feeds (size, centre) in pixels to the adaptive position layer, the last axis first; ours reads parts of the
/// image's sides, axes in order. Exact for sides that are powers of two. throws CheckpointError without image_size.
void from_pixel_positions(Renamed& ours, const std::vector<int64_t>& image_size);
void to_pixel_positions(Renamed& ours, const std::vector<int64_t>& image_size);

/// MONAI's blocks hold a norm for a cross attention that these models lack; its strict reader wants it.
void add_cross_norms(std::vector<nn::NamedTensor>& theirs);

}  // namespace vitrail::models

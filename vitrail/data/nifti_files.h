#pragma once
/// NIfTI volumes of a source, and labels in NIfTI files.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"
#include "vitrail/data/label_files.h"
#include "vitrail/io/nifti.h"

namespace vitrail::data {

inline constexpr const char* kNiftiKinds = ".nii, .nii.gz or .hdr";

/// Sides of a volume as a reader gives them: files of one slice are images to a model of images.
std::vector<int64_t> nifti_sides(const io::NiftiHeader& header, bool drops_depth);
bool drops_depth(const config::Source& source, const config::Model& model);

/// A box of a file in memory or, for plain .nii, of a mapped one: [box..., C].
/// Memory   a packed file is unpacked whole.
Pixels read_nifti_pixels(const std::string& path, const Box& box);

/// source.labels: volumes of whole numbers, or of values.
std::unique_ptr<LabelFiles> open_nifti_labels(const config::Source& source,
                                              const config::Model& model);
/// source.label_maps: a probability per class.
std::unique_ptr<LabelFiles> open_nifti_maps(const config::Source& source,
                                            const config::Model& model);

}  // namespace vitrail::data

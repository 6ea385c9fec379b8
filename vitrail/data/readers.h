#pragma once
/// The formats: one function a file, one line each in readers.cpp.

#include <memory>

#include "vitrail/data/reader.h"

namespace vitrail::data {

/// A folder a class, sorted by name; images of any mix of .jpg, .jpeg and .png at any depth below
/// it.
std::unique_ptr<Reader> open_image_folder(const config::Source& source, const config::Model& model);
/// Images without classes, with or without a mask image each; both in natural order.
std::unique_ptr<Reader> open_images(const config::Source& source, const config::Model& model);
/// Volumes [D, H, W] as folders of 2-D images in natural order, with or without masks of the same
/// form.
std::unique_ptr<Reader> open_image_stack(const config::Source& source, const config::Model& model);
/// NIfTI volumes, with or without integer masks or probability maps; all in natural order.
std::unique_ptr<Reader> open_nifti(const config::Source& source, const config::Model& model);
/// Images named by a CSV or JSON manifest, with a class, a mask or numbers each.
std::unique_ptr<Reader> open_image_list(const config::Source& source, const config::Model& model);
/// CIFAR-10 and CIFAR-100 in their binary version: files of records.
std::unique_ptr<Reader> open_cifar(const config::Source& source, const config::Model& model);
/// IDX files (MNIST): images of bytes, labels in a second file.
std::unique_ptr<Reader> open_idx(const config::Source& source, const config::Model& model);
/// Arrays of which boxes can be read without the rest: npy, npz, raw, tiff, zarr, n5 (array_reader.h).
std::unique_ptr<Reader> open_arrays(const config::Source& source, const config::Model& model);
/// Images with the boxes of a COCO instances file.
std::unique_ptr<Reader> open_coco(const config::Source& source, const config::Model& model);
/// Images with the boxes of Pascal VOC annotations.
std::unique_ptr<Reader> open_voc(const config::Source& source, const config::Model& model);
/// Samples inside tar files, named as WebDataset names them.
std::unique_ptr<Reader> open_tar(const config::Source& source, const config::Model& model);
/// scikit-learn's digits.csv.gz (the file, or a folder that holds it): 64 values 0..16, then the
/// label.
std::unique_ptr<Reader> open_digits(const config::Source& source, const config::Model& model);
/// Uniform noise of model.image_size with uniform labels (masks for models that segment), a function
/// of the sample's number; for measurements.
std::unique_ptr<Reader> open_random(const config::Source& source, const config::Model& model);

}  // namespace vitrail::data

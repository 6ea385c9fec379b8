#pragma once
/// Filling what a rank keeps from whatever regions hold it.

#include <string>
#include <vector>

#include "vitrail/train/checkpoint_manifest.h"
#include "vitrail/train/checkpoint_regions.h"

namespace vitrail::train {

/// "exp_avg", "ema", or nothing for a parameter: the kind of state a name belongs to.
std::string kind_of(const std::string& name);

/// Elements of a tensor and the host memory they go to.
struct Part {
  const parallel::BoxRange* range = nullptr;
  char* out = nullptr;
};
/// Reads every part from the regions that share elements with it; each region is gone through once.
void read_parts(const TensorEntry& entry, const std::string& name, const std::vector<Part>& parts,
                RegionReader& regions);
/// Fills pieces that fit the manifest, on any device.
void fill_pieces(const Manifest& manifest, const std::vector<StatePiece>& pieces,
                 RegionReader& regions);

/// Names, shapes and dtypes that any rank of the group has are those of the checkpoint, and none is left over; otherwise
/// an error on every rank that names the first differences and what usually causes them.
void check_fit(const Manifest& manifest, const std::string& path,
               const std::vector<StatePiece>& pieces, comm::Communicator& group);
/// Throws the first rank's error on every rank; `error` is empty on ranks that have none.
void throw_together(comm::Communicator& group, const std::string& error);

}  // namespace vitrail::train

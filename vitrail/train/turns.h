#pragma once
/// Pieces of work that ranks share without needing each other: piece i is done by rank i mod R.

#include <cstdint>
#include <functional>
#include <string>

#include "vitrail/comm/communicator.h"

namespace vitrail::train {

/// Calls `make` for this rank's pieces of 0, 1, ... pieces - 1. Returns the texts of all, one after another, on every
/// rank. Ranks meet after each of their turns, so that one that fails is noticed. Every rank calls it.
std::string in_turns(comm::Communicator& world, int64_t pieces,
                     const std::function<std::string(int64_t piece)>& make);

}  // namespace vitrail::train

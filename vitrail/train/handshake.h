#pragma once
/// What all ranks of a run must have in common, compared before anything else is done.

#include <string>

#include <c10/core/Device.h>

#include "vitrail/comm/communicator.h"
#include "vitrail/config/recipe.h"

namespace vitrail::train {

/// What one rank brings along.
struct Identity {
  std::string version;  // of the program
  std::string device;   // "cpu" or "cuda"
  std::string recipe;   // resolved, as YAML
};

/// Every rank of `world` calls it; all return or all throw the same message, which names the ranks that differ from
/// rank 0 and what differs: of recipes the first line.
/// Errors   ConfigError for recipes, CommError for versions and devices.
void handshake(comm::Communicator& world, const Identity& mine);
void handshake(comm::Communicator& world, const config::ResolvedRecipe& recipe,
               const std::string& version, at::Device device);

}  // namespace vitrail::train

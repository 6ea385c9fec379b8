#include "vitrail/train/turns.h"

namespace vitrail::train {

std::string in_turns(comm::Communicator& world, int64_t pieces,
                     const std::function<std::string(int64_t piece)>& make) {
  std::string all;
  for (int64_t first = 0; first < pieces; first += world.size()) {
    const int64_t mine = first + world.rank();
    const std::string text = mine < pieces ? make(mine) : std::string();
    for (const std::string& piece : comm::gather_strings(world, text)) all += piece;
  }
  return all;
}

}  // namespace vitrail::train

// Features of nn::ShuffleNet from a file to a file, for tests/parity/mixed_resolution.py: WEIGHTS INPUT OUTPUT, where the
// input holds 'image' [B, 3, H, W] and the output 'features'.

#include <cstdio>
#include <exception>

#include "vitrail/models/weights.h"
#include "vitrail/nn/shufflenet.h"

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: shufflenet_features WEIGHTS INPUT OUTPUT\n");
    return 2;
  }
  try {
    const vitrail::nn::ShuffleNet network(vitrail::models::read_tensors(argv[1]), argv[1]);
    for (const auto& entry : vitrail::models::read_tensors(argv[2]))
      if (entry.name == "image")
        vitrail::models::write_tensors(argv[3], {{"features", network.features(entry.tensor)}}, {});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}

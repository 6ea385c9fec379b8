// Edge maps of raw bytes, for comparison with OpenCV. Lines "INPUT CHANNELS HEIGHT WIDTH BLUR LOW HIGH OUTPUT" come in;
// INPUT holds bytes [C, H, W], OUTPUT gets the map [H, W].

#include <cstdio>
#include <fstream>
#include <iostream>
#include <sstream>

#include "vitrail/core/error.h"
#include "vitrail/patching/edges.h"

namespace {

void write_edges(const std::string& line) {
  std::istringstream words(line);
  std::string input, output;
  int64_t channels = 0, height = 0, width = 0;
  vitrail::patching::EdgeOptions options;
  words >> input >> channels >> height >> width >> options.blur >> options.low >> options.high >>
      output;
  std::ifstream in(input, std::ios::binary);
  const std::vector<char> bytes(std::istreambuf_iterator<char>(in), {});
  std::vector<uint8_t> edges(static_cast<size_t>(height * width));
  vitrail::patching::edge_map({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()},
                              channels, std::vector<int64_t>{height, width}, options, edges);
  std::ofstream(output, std::ios::binary)
      .write(reinterpret_cast<const char*>(edges.data()), std::ssize(edges));
}

}  // namespace

int main() {
  try {
    for (std::string line; std::getline(std::cin, line);) write_edges(line);
  } catch (const vitrail::core::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}

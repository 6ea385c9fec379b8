#pragma once
/// Damaged files by the thousand: each must be read or refused by an exception of the right kind,
/// nothing else.

#include <cstdio>
#include <exception>
#include <functional>
#include <span>
#include <string>

#include <gtest/gtest.h>

#include "vitrail/core/philox.h"

namespace vitrail::testing {

inline std::span<const std::byte> as_bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

/// A copy of `file` with one to eight of: a flipped bit, a byte set to an extreme, a stretch
/// removed or doubled, the end cut off. A function of (file, round).
inline std::string damaged(const std::string& file, uint32_t round) {
  uint32_t element = 0;
  const auto random = [&](uint64_t below) {
    return core::draw({99, core::Stream::test, round, 0}, 0, element++) % (below > 0 ? below : 1);
  };
  std::string copy = file;
  for (uint64_t changes = 1 + random(8); changes > 0 && !copy.empty(); --changes) {
    // Half of the changes near the start, where the structure is.
    const size_t at =
        random(2) == 0 ? random(copy.size()) : random(std::min<size_t>(copy.size(), 100));
    switch (random(8)) {
      case 0:
        copy.resize(at);
        break;
      case 1:
        copy.erase(at, 1 + random(16));
        break;
      case 2:
        copy.insert(at, copy.substr(at, 1 + random(16)));
        break;
      case 3:
        copy[at] = static_cast<char>(0xFF);
        break;
      case 4:
        copy[at] = 0;
        break;
      default:
        copy[at] = static_cast<char>(copy[at] ^ (1 << random(8)));
    }
  }
  return copy;
}

struct FuzzCounts {
  int read = 0, refused = 0;
};

/// Reads every shortened form of `file` (at most 2,000) and `rounds` damaged ones. The copies have
/// exactly the size of their content, so that AddressSanitizer sees a read beyond the end.
template <class Kind>
FuzzCounts fuzz(const std::string& file, uint32_t rounds,
                const std::function<void(std::span<const std::byte>)>& read) {
  FuzzCounts counts;
  const auto attempt = [&](const std::string& content) {
    const std::vector<std::byte> exact(as_bytes(content).begin(), as_bytes(content).end());
    try {
      read(exact);
      ++counts.read;
    } catch (const Kind& error) {
      ++counts.refused;
      const std::string message = error.what();
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
      EXPECT_NE(message.find("fuzzed"), std::string::npos) << "does not name the file: " << message;
    } catch (const std::exception& error) {
      ADD_FAILURE() << "another kind of exception: " << error.what();
    }
  };
  const size_t step = file.size() / 2000 + 1;
  for (size_t length = 0; length < file.size(); length += step) attempt(file.substr(0, length));
  for (uint32_t round = 0; round < rounds; ++round) attempt(damaged(file, round));
  std::printf("%d damaged files: %d refused, %d read\n", counts.read + counts.refused,
              counts.refused, counts.read);
  return counts;
}

}  // namespace vitrail::testing

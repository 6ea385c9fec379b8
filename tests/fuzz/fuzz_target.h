#pragma once
/// What a libFuzzer target does with a parser: whatever the bytes, it returns or throws the error of
/// its kind in one line that names the file.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

#include "vitrail/core/error.h"

namespace vitrail::fuzz {

inline const std::string kName = "fuzzed";

/// parse(bytes), its exceptions of `Kind` checked; any other ends the program.
template <class Kind, class Parse>
int try_parse(const uint8_t* data, size_t size, const Parse& parse) {
  try {
    parse(std::span(reinterpret_cast<const std::byte*>(data), size));
  } catch (const Kind& error) {
    const std::string_view message = error.what();
    if (message.find(kName) == message.npos) std::abort();
    if (message.find('\n') != message.npos) std::abort();
  }
  return 0;
}

inline std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Numbers that choose what is parsed, in front of the bytes.
struct Choices {
  std::span<const std::byte> rest;
  unsigned take(unsigned below) {
    if (rest.empty()) return 0;
    const auto value = static_cast<unsigned>(rest[0]);
    rest = rest.subspan(1);
    return value % below;
  }
};

}  // namespace vitrail::fuzz

#pragma once
/// Broken copies of a good file: cut off, with lies in their headers, with bits turned. A function
/// of the file alone.

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "tests/io/fuzz.h"

namespace vitrail::testing {

struct Broken {
  std::string how;  // for messages
  std::string bytes;
};

/// A number of Size bytes at `offset`, high byte first if asked.
template <class Number>
std::string with_number(std::string file, size_t offset, Number number, bool big_endian = false) {
  char raw[sizeof(Number)];
  std::memcpy(raw, &number, sizeof(Number));
  if (big_endian)
    for (size_t i = 0; i < sizeof(Number) / 2; ++i) std::swap(raw[i], raw[sizeof(Number) - 1 - i]);
  if (offset + sizeof(Number) <= file.size()) file.replace(offset, sizeof(Number), raw, sizeof raw);
  return file;
}

/// The first `from` replaced by `to`; the file itself where there is none.
inline std::string with_text(std::string file, std::string_view from, std::string_view to) {
  const size_t at = file.find(from);
  return at == std::string::npos ? file : file.replace(at, from.size(), to);
}

/// Cut off at 0, 1, 2, 4, 8, ... bytes, at every 32nd part, and one byte before the end.
inline void add_cut_off(const std::string& file, std::vector<Broken>& all) {
  std::vector<size_t> lengths{0};
  for (size_t length = 1; length < file.size(); length *= 2) lengths.push_back(length);
  for (size_t part = 1; part < 32; ++part) lengths.push_back(file.size() * part / 32);
  if (!file.empty()) lengths.push_back(file.size() - 1);
  std::sort(lengths.begin(), lengths.end());
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  for (const size_t length : lengths)
    all.push_back({fmt::format("cut off after {} bytes", length), file.substr(0, length)});
}

/// Every 2-, 4- and 8-byte place of the first `header` and the last 64 bytes set to numbers that
/// lie: formats keep their tables at either end.
inline void add_lies(const std::string& file, size_t header, std::vector<Broken>& all) {
  const size_t tail = file.size() - std::min<size_t>(file.size(), 64);
  for (size_t offset = 0; offset + 2 <= file.size(); offset += 2) {
    if (offset >= header && offset < tail) continue;
    for (const uint16_t number : {0, 0x7FFF, 0x8000, 0xFFFF})
      all.push_back({fmt::format("{:#x} in 2 bytes at {}", number, offset),
                     with_number(file, offset, number)});
    if (offset % 4 == 0)
      for (const uint32_t number : {0u, 0x40000000u, 0x7FFFFFFFu, 0x80000000u, 0xFFFFFFFFu})
        for (const bool swap : {false, true})
          all.push_back({fmt::format("{:#x} in 4 bytes at {}, swapped {}", number, offset, swap),
                         with_number(file, offset, number, swap)});
    if (offset % 8 == 0)
      for (const uint64_t number :
           {uint64_t{1} << 62, uint64_t{1} << 63, ~uint64_t{0}, uint64_t{1} << 33})
        for (const bool swap : {false, true})
          all.push_back({fmt::format("{:#x} in 8 bytes at {}, swapped {}", number, offset, swap),
                         with_number(file, offset, number, swap)});
  }
}

/// Every number in a text replaced by numbers that lie.
inline void add_lying_text(const std::string& file, std::vector<Broken>& all) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  for (size_t at = 0; at < file.size() && at < 4096;) {
    size_t end = at;
    while (end < file.size() && is_digit(file[end])) ++end;
    if (end > at)
      for (const char* number : {"0", "-1", "2147483647", "9223372036854775807",
                                 "99999999999999999999999", "1e300", "null", "\"x\""})
        all.push_back({fmt::format("{} for the number at {}", number, at),
                       file.substr(0, at) + number + file.substr(end)});
    at = end + 1;
  }
}

inline void add_random(const std::string& file, uint32_t rounds, std::vector<Broken>& all) {
  for (uint32_t round = 0; round < rounds; ++round)
    all.push_back({fmt::format("damaged at random, round {}", round), damaged(file, round)});
}

}  // namespace vitrail::testing

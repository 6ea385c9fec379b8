#include "vitrail/core/text.h"

#include <cmath>

#include <fmt/format.h>

namespace vitrail::core {

std::string format_count(int64_t count) {
  std::string digits = fmt::format("{}", count);
  const size_t first = count < 0 ? 1 : 0;
  for (size_t place = digits.size(); place > first + 3;) digits.insert(place -= 3, 1, ',');
  return digits;
}

std::string format_bytes(int64_t bytes) {
  if (std::abs(static_cast<double>(bytes)) < 1024.0) return fmt::format("{} B", bytes);
  auto amount = static_cast<double>(bytes);
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  int unit = 0;
  // 1023.95 would be rounded to 1024.0 of the smaller unit.
  while (std::abs(amount) >= 1023.95 && unit < 6) amount /= 1024.0, ++unit;
  return fmt::format("{:.1f} {}", amount, units[unit]);
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0.0 || seconds > 1e15) return "-";
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string printable(std::string_view text) {
  constexpr size_t kLongest = 120;
  std::string result;
  for (const char letter : text.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(letter);
    if (byte < 0x20 || byte == 0x7F)
      result += fmt::format("\\x{:02x}", byte);
    else
      result += letter;
  }
  return text.size() > kLongest ? result + "..." : result;
}

}  // namespace vitrail::core

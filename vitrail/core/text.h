#pragma once
/// Numbers and names for people.

#include <cstdint>
#include <string>
#include <string_view>

namespace vitrail::core {

/// "51,230".
std::string format_count(int64_t count);

/// "512 B", "1.5 KiB", "80.0 GiB".
std::string format_bytes(int64_t bytes);

/// Hours, minutes, seconds, rounded to the second: "0:01:52", "26:00:00"; "-" for what is not a
/// time.
std::string format_duration(double seconds);

/// A name out of a file, fit for one line of an error message: control characters as \xNN, cut
/// after 120 bytes.
std::string printable(std::string_view text);

}  // namespace vitrail::core

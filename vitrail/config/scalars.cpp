#include "vitrail/config/scalars.h"

#include <algorithm>
#include <cctype>

#include <fmt/format.h>

namespace vitrail::config {

namespace {

bool is_plain(const std::string& text) {
  static const char* const kWords[] = {"null", "Null",  "NULL",  "true",  "True",
                                       "TRUE", "false", "False", "FALSE", "yes",
                                       "no",   "on",    "off",   "y",     "n"};
  if (text.empty() || std::find(std::begin(kWords), std::end(kWords), text) != std::end(kWords))
    return false;
  const auto is_safe = [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '.' || c == '/';
  };
  // The first letter keeps numbers and signs out; '-' and ':' are harmless inside a word that ends
  // otherwise.
  const auto is_inner = [&](unsigned char c) {
    return is_safe(c) || c == '-' || c == ':' || c == '+' || c == '=';
  };
  const auto first = static_cast<unsigned char>(text.front());
  return (std::isalpha(first) != 0 || first == '/' || first == '_') &&
         is_safe(static_cast<unsigned char>(text.back())) &&
         std::all_of(text.begin(), text.end(), is_inner);
}

}  // namespace

std::string to_flow(const std::string& value) {
  if (is_plain(value)) return value;
  std::string text = "\"";
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      text += fmt::format("\\{}", c);
    else if (byte < 0x20 || byte == 0x7F)
      text += fmt::format("\\x{:02x}", byte);
    else
      text += c;
  }
  return text + "\"";
}

std::string to_flow(const Choice& value) { return to_flow(value.value); }
std::string to_flow(bool value) { return value ? "true" : "false"; }
std::string to_flow(int64_t value) { return std::to_string(value); }
std::string to_flow(double value) { return fmt::format("{}", value); }

}  // namespace vitrail::config

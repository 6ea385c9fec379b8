#include "vitrail/io/tar.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

#include "vitrail/core/error.h"
#include "vitrail/core/text.h"

namespace vitrail::io {
namespace {

constexpr int64_t kBlock = 512;
constexpr int64_t kMaxNameBytes = 1 << 16, kMaxPaxBytes = 1 << 20;

/// A field of a header, up to its first zero byte.
std::string_view text_at(std::string_view block, size_t at, size_t length) {
  const std::string_view field = block.substr(at, length);
  return field.substr(0, std::min(field.find('\0'), field.size()));
}

/// Octal digits, or GNU's big-endian number after a byte of 0x80.
std::optional<int64_t> number_at(std::string_view block, size_t at, size_t length) {
  const std::string_view field = block.substr(at, length);
  if (static_cast<unsigned char>(field[0]) == 0x80) {
    uint64_t value = 0;
    for (const char letter : field.substr(1)) {
      if (value >> 55 != 0) return std::nullopt;
      value = value << 8 | static_cast<unsigned char>(letter);
    }
    return static_cast<int64_t>(value);
  }
  std::string_view digits = text_at(block, at, length);
  while (digits.starts_with(' ')) digits.remove_prefix(1);
  while (digits.ends_with(' ')) digits.remove_suffix(1);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 8);
  const bool whole = error == std::errc() && end == digits.data() + digits.size() && value >= 0;
  if (!digits.empty() && !whole) return std::nullopt;
  return value;
}

class TarList {
 public:
  TarList(std::span<const std::byte> file, const std::string& name)
      : file_(reinterpret_cast<const char*>(file.data()), file.size()), name_(name) {
    if (file_.starts_with("\x1F\x8B") || file_.starts_with("\x28\xB5\x2F\xFD"))
      refuse("is compressed; unpack it to a plain .tar, whose members can be read in any order");
  }

  void walk(const std::function<void(const TarMember&)>& take) {
    for (;;) {
      const std::string_view header = take_block();
      if (header.find_first_not_of('\0') == std::string_view::npos) break;
      check_sum(header);
      const char type = header[156];
      const std::optional<int64_t> stored = number_at(header, 124, 12);
      if (!stored) refuse("the size of the member at byte {} is no number", at_ - kBlock);
      if (type == 'L' || type == 'x' || type == 'g' || type == 'K') {
        take_extension(type, *stored);
        continue;
      }
      take_member(header, type, *stored, take);
    }
    check_rest();
  }

 private:
  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    core::fail<core::DataError>("[data] {}: {}", name_,
                                fmt::format(format, std::forward<Args>(args)...));
  }

  int64_t size() const { return static_cast<int64_t>(file_.size()); }

  std::string_view take_block() {
    if (size() - at_ < kBlock)
      refuse("ends at byte {} without the block of zeros that closes a tar archive; it was cut off",
             size());
    at_ += kBlock;
    return file_.substr(static_cast<size_t>(at_ - kBlock), kBlock);
  }

  /// Some old programs summed signed bytes.
  void check_sum(std::string_view header) const {
    int64_t plain = 0, with_sign = 0;
    for (size_t i = 0; i < header.size(); ++i) {
      const char letter = i >= 148 && i < 156 ? ' ' : header[i];
      plain += static_cast<unsigned char>(letter);
      with_sign += static_cast<signed char>(letter);
    }
    const std::optional<int64_t> stored = number_at(header, 148, 8);
    if (stored != plain && stored != with_sign)
      refuse("the header at byte {} has a wrong sum; this is no tar archive or it is damaged",
             at_ - kBlock);
  }

  /// The bytes of a member, filled up to whole blocks.
  std::string_view take_bytes(int64_t bytes) {
    if (bytes > size() - at_)
      refuse("the member at byte {} must have {} bytes but the archive ends after {}", at_ - kBlock,
             bytes, size() - at_);
    const std::string_view content =
        file_.substr(static_cast<size_t>(at_), static_cast<size_t>(bytes));
    const int64_t padding = (kBlock - bytes % kBlock) % kBlock;
    at_ += std::min(bytes + padding, size() - at_);
    return content;
  }

  void take_extension(char type, int64_t bytes) {
    if (bytes > (type == 'L' ? kMaxNameBytes : kMaxPaxBytes))
      refuse("the extended header at byte {} has {} bytes, which is too many", at_ - kBlock, bytes);
    const std::string_view content = take_bytes(bytes);
    if (type == 'L') next_name_ = std::string(text_at(content, 0, content.size()));
    if (type == 'x' || type == 'g') take_pax(content, type == 'x');
  }

  /// Lines "LENGTH KEY=VALUE\n", the length counting all of the line. What a global header says of
  /// names and sizes can only be nonsense.
  void take_pax(std::string_view content, bool is_for_next) {
    while (!content.empty() && content.front() != '\0') {
      size_t length = 0;
      const auto [end, error] =
          std::from_chars(content.data(), content.data() + content.size(), length);
      const auto digits = static_cast<size_t>(end - content.data());
      const bool fits = error == std::errc() && length > digits + 1 && length <= content.size() &&
                        content[digits] == ' ' && content[length - 1] == '\n';
      if (!fits) refuse("the pax header before byte {} is damaged", at_);
      const std::string_view line = content.substr(digits + 1, length - digits - 2);
      const size_t equals = line.find('=');
      if (equals == std::string_view::npos) refuse("the pax header before byte {} is damaged", at_);
      if (is_for_next) take_pax_value(line.substr(0, equals), line.substr(equals + 1));
      content.remove_prefix(length);
    }
  }

  void take_pax_value(std::string_view key, std::string_view value) {
    if (key.starts_with("GNU.sparse.")) refuse("sparse members are not read");
    if (key == "path") {
      if (static_cast<int64_t>(value.size()) > kMaxNameBytes)
        refuse("the name of the member at byte {} has {} bytes, which is too many", at_,
               value.size());
      next_name_ = std::string(value);
    } else if (key == "size") {
      int64_t bytes = -1;
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), bytes);
      if (error != std::errc() || end != value.data() + value.size() || bytes < 0)
        refuse("the pax size of the member at byte {} must be a number but is '{}'", at_,
               core::printable(value));
      next_size_ = bytes;
    }
  }

  void take_member(std::string_view header, char type, int64_t stored,
                   const std::function<void(const TarMember&)>& take) {
    if (type == 'S') refuse("sparse members are not read");
    const std::string member = next_name_ ? *next_name_ : header_name(header);
    const int64_t bytes = next_size_.value_or(stored);
    next_name_.reset();
    next_size_.reset();
    const bool has_no_bytes = type >= '1' && type <= '6';  // links, devices, folders, pipes
    if (has_no_bytes) return;
    // Before ustar a folder was a file whose name ends so.
    const bool is_file = (type == '0' || type == '\0' || type == '7') && !member.ends_with('/');
    const int64_t offset = at_;
    take_bytes(bytes);
    if (is_file) take({member, offset, bytes});
  }

  static std::string header_name(std::string_view header) {
    std::string member(text_at(header, 0, 100));
    // GNU's own kind ("ustar  ") keeps times where ustar keeps the first part of a long path.
    const bool has_prefix = header.substr(257, 6) == std::string_view("ustar\0", 6);
    const std::string_view prefix = has_prefix ? text_at(header, 345, 155) : "";
    return prefix.empty() ? member : std::string(prefix) + "/" + member;
  }

  /// Archives glued behind each other would lose all but the first.
  void check_rest() const {
    const size_t other = file_.find_first_not_of('\0', static_cast<size_t>(at_));
    if (other != std::string_view::npos)
      refuse(
          "goes on at byte {} after the block of zeros that closes it; is it several archives "
          "behind each other?",
          other);
  }

  std::string_view file_;
  const std::string& name_;
  int64_t at_ = 0;
  std::optional<std::string> next_name_;
  std::optional<int64_t> next_size_;
};

}  // namespace

void list_tar(std::span<const std::byte> file, const std::string& name,
              const std::function<void(const TarMember&)>& take) {
  TarList(file, name).walk(take);
}

}  // namespace vitrail::io

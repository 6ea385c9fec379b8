#include "vitrail/io/npz.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <fmt/ranges.h>
#include <zlib.h>

#include "vitrail/core/error.h"
#include "vitrail/core/mapped_file.h"
#include "vitrail/core/text.h"
#include "vitrail/io/npy.h"

namespace vitrail::io {
namespace {

// APPNOTE.TXT of PKWARE: signatures and lengths of the records.
constexpr uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50,
                   kEnd64 = 0x06064b50, kLocator64 = 0x07064b50;
constexpr size_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56,
                 kLocator64Bytes = 20, kMaxComment = 65535;
constexpr uint64_t kIn64 = 0xFFFFFFFF;  // the true number stands in the 64-bit extension
constexpr int64_t kMaxExpansion = 1032;
constexpr size_t kMaxPart = 1u << 30;  // zlib counts in 32 bits

/// The archive's bytes, each access checked.
class Bytes {
 public:
  Bytes(std::span<const std::byte> file, const std::string& name) : file_(file), name_(name) {}

  [[noreturn]] void refuse(std::string_view what) const {
    core::fail<core::DataError>("[data] {}: broken .npz: {}", name_, what);
  }
  std::span<const std::byte> part(uint64_t offset, uint64_t bytes) const {
    if (offset > file_.size() || bytes > file_.size() - offset) refuse("the file ends early");
    return file_.subspan(static_cast<size_t>(offset), static_cast<size_t>(bytes));
  }
  uint64_t number(uint64_t offset, int bytes) const {
    const std::span<const std::byte> part = this->part(offset, static_cast<uint64_t>(bytes));
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; --i)
      value = value << 8 | std::to_integer<uint64_t>(part[static_cast<size_t>(i)]);
    return value;
  }
  bool has(uint64_t offset, uint32_t signature) const { return number(offset, 4) == signature; }
  uint64_t size() const { return file_.size(); }

 private:
  std::span<const std::byte> file_;
  const std::string& name_;
};

struct Directory {
  uint64_t members = 0, offset = 0;
};

/// Where the end record lies: behind everything, before a comment of at most 65535 bytes.
uint64_t find_end(const Bytes& bytes) {
  if (bytes.size() < kEndBytes) bytes.refuse("it is shorter than an empty archive");
  const uint64_t last = bytes.size() - kEndBytes;
  for (uint64_t back = 0; back <= std::min<uint64_t>(last, kMaxComment); ++back)
    if (bytes.has(last - back, kEnd) && bytes.number(last - back + 20, 2) == back)
      return last - back;
  bytes.refuse("it does not end like a ZIP archive");
}

Directory find_directory(const Bytes& bytes) {
  const uint64_t end = find_end(bytes);
  Directory directory{bytes.number(end + 10, 2), bytes.number(end + 16, 4)};
  const bool is_64 = end >= kLocator64Bytes && bytes.has(end - kLocator64Bytes, kLocator64);
  if (is_64) {
    const uint64_t end64 = bytes.number(end - kLocator64Bytes + 8, 8);
    bytes.part(end64, kEnd64Bytes);
    if (!bytes.has(end64, kEnd64)) bytes.refuse("its 64-bit end record is not where it should be");
    directory = {bytes.number(end64 + 32, 8), bytes.number(end64 + 48, 8)};
  }
  if (directory.members > bytes.size() / kCentralBytes)
    bytes.refuse("it has fewer bytes than members");
  return directory;
}

/// Replaces numbers that read "see the extension" by those of the 64-bit extra field.
void read_extension(const Bytes& bytes, uint64_t extra, uint64_t length, uint64_t& size,
                    uint64_t& packed, uint64_t& offset) {
  for (const uint64_t end = extra + length; extra + 4 <= end;) {
    const uint64_t id = bytes.number(extra, 2), count = bytes.number(extra + 2, 2);
    uint64_t at = extra + 4;
    const uint64_t field_end = at + count;
    if (field_end > end) bytes.refuse("an extra field is too long");
    if (id == 1)
      for (uint64_t* value : {&size, &packed, &offset})
        if (*value == kIn64) {
          if (at + 8 > field_end) bytes.refuse("a 64-bit size is missing");
          *value = bytes.number(at, 8);
          at += 8;
        }
    extra = field_end;
  }
}

/// The members that are .npy files; `at` moves behind the record.
NpzMember parse_member(const Bytes& bytes, uint64_t& at, const std::string& file) {
  if (!bytes.has(at, kCentral)) bytes.refuse("a member's record does not start like one");
  bytes.part(at, kCentralBytes);
  const uint64_t name_bytes = bytes.number(at + 28, 2), extra_bytes = bytes.number(at + 30, 2),
                 comment_bytes = bytes.number(at + 32, 2);
  uint64_t packed = bytes.number(at + 20, 4), size = bytes.number(at + 24, 4),
           offset = bytes.number(at + 42, 4);
  const auto text = bytes.part(at + kCentralBytes, name_bytes);
  NpzMember member;
  member.name.assign(reinterpret_cast<const char*>(text.data()), text.size());
  member.method = static_cast<uint16_t>(bytes.number(at + 10, 2));
  member.crc32 = static_cast<uint32_t>(bytes.number(at + 16, 4));
  read_extension(bytes, at + kCentralBytes + name_bytes, extra_bytes, size, packed, offset);
  VT_REQUIRE(DataError, (bytes.number(at + 8, 2) & 1) == 0,
             "[data] {}: member '{}' is encrypted; save it without", file,
             core::printable(member.name));
  if (packed > bytes.size() || offset > bytes.size() || size > (uint64_t{1} << 62))
    bytes.refuse("a member's size or place lies beyond the file");
  member.packed_bytes = static_cast<int64_t>(packed);
  member.bytes = static_cast<int64_t>(size);
  member.header_offset = static_cast<int64_t>(offset);
  at += kCentralBytes + name_bytes + extra_bytes + comment_bytes;
  return member;
}

/// The member's bytes as they lie in the archive.
std::span<const std::byte> packed_bytes(const Bytes& bytes, const NpzMember& member) {
  const auto at = static_cast<uint64_t>(member.header_offset);
  if (!bytes.has(at, kLocal)) bytes.refuse("a member does not start like one");
  const uint64_t skipped = kLocalBytes + bytes.number(at + 26, 2) + bytes.number(at + 28, 2);
  return bytes.part(at + skipped, static_cast<uint64_t>(member.packed_bytes));
}

struct Inflater {
  z_stream stream{};
  ~Inflater() { ::inflateEnd(&stream); }
};

std::vector<std::byte> unpack(std::span<const std::byte> packed, const NpzMember& member,
                              const std::string& name, const NpzLimits& limits) {
  VT_REQUIRE(DataError,
             member.bytes <= limits.max_member_bytes &&
                 member.bytes / kMaxExpansion <= member.packed_bytes,
             "[data] {}: member '{}' must unpack to at most {} bytes, and to at most {} times its "
             "{} packed ones, but claims {}; save it with numpy.savez, which does not pack",
             name, core::printable(member.name), limits.max_member_bytes, kMaxExpansion,
             member.packed_bytes, member.bytes);
  std::vector<std::byte> result(static_cast<size_t>(member.bytes));
  Inflater inflater;
  z_stream& stream = inflater.stream;
  VT_CHECK(::inflateInit2(&stream, -MAX_WBITS) == Z_OK, "[npz] zlib cannot start");
  size_t used = 0, got = 0;
  int status = Z_OK;
  std::byte spare;  // so that zlib can see the end of a member that fills `result`
  while (status == Z_OK) {
    if (stream.avail_in == 0) {
      const size_t part = std::min(packed.size() - used, kMaxPart);
      stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(packed.data() + used));
      stream.avail_in = static_cast<uInt>(part);
      used += part;
    }
    const size_t room = std::min(result.size() - got, kMaxPart);
    stream.next_out = reinterpret_cast<Bytef*>(room > 0 ? result.data() + got : &spare);
    stream.avail_out = static_cast<uInt>(std::max<size_t>(room, 1));
    status = ::inflate(&stream, Z_NO_FLUSH);
    got += std::max<size_t>(room, 1) - stream.avail_out;
    if (got > result.size()) break;
  }
  VT_REQUIRE(DataError, status == Z_STREAM_END && got == result.size(),
             "[data] {}: broken .npz: member '{}' does not unpack to {} bytes: {}", name,
             core::printable(member.name), member.bytes,
             stream.msg != nullptr ? stream.msg : "it ends elsewhere");
  uLong sum = ::crc32(0, nullptr, 0);
  for (size_t at = 0; at < result.size(); at += kMaxPart)
    sum = ::crc32(sum, reinterpret_cast<const Bytef*>(result.data() + at),
                  static_cast<uInt>(std::min(result.size() - at, kMaxPart)));
  VT_REQUIRE(DataError, sum == member.crc32,
             "[data] {}: broken .npz: member '{}' has another sum than the archive says", name,
             core::printable(member.name));
  return result;
}

const NpzMember& find_member(const std::vector<NpzMember>& members, const std::string& array,
                             const std::string& name) {
  std::vector<std::string> names;
  for (const NpzMember& member : members) names.push_back(core::printable(member.name));
  std::string wanted = array;
  if (wanted.ends_with(".npy")) wanted.resize(wanted.size() - 4);
  const auto found = std::find_if(members.begin(), members.end(), [&](const NpzMember& member) {
    return wanted.empty() ? members.size() == 1 : member.name == wanted;
  });
  if (names.size() > 20) {
    names.resize(20);
    names.emplace_back("...");
  }
  VT_REQUIRE(DataError, found != members.end(),
             "[data] {}: holds the arrays [{}]; set array to one of them{}", name,
             fmt::join(names, ", "),
             array.empty() ? "" : fmt::format(" instead of '{}'", core::printable(array)));
  return *found;
}

}  // namespace

std::vector<NpzMember> list_npz(std::span<const std::byte> file, const std::string& name) {
  const Bytes bytes(file, name);
  const Directory directory = find_directory(bytes);
  std::vector<NpzMember> members;
  uint64_t at = directory.offset;
  for (uint64_t i = 0; i < directory.members; ++i) {
    NpzMember member = parse_member(bytes, at, name);
    if (!member.name.ends_with(".npy")) continue;
    member.name.resize(member.name.size() - 4);
    members.push_back(std::move(member));
  }
  return members;
}

std::unique_ptr<ArrayFile> parse_npz(std::span<const std::byte> file,
                                     std::shared_ptr<const void> owner, const std::string& name,
                                     const std::string& array, const NpzLimits& limits) {
  const std::vector<NpzMember> members = list_npz(file, name);
  const NpzMember& member = find_member(members, array, name);
  const std::span<const std::byte> packed = packed_bytes(Bytes(file, name), member);
  const std::string full_name = name + "#" + core::printable(member.name);
  if (member.method == 0) return parse_npy(packed, std::move(owner), full_name);
  VT_REQUIRE(DataError, member.method == Z_DEFLATED,
             "[data] {}: members must be stored or deflated but '{}' has method {}", name,
             core::printable(member.name), member.method);
  auto unpacked =
      std::make_shared<const std::vector<std::byte>>(unpack(packed, member, name, limits));
  const std::span<const std::byte> content(*unpacked);
  return parse_npy(content, std::move(unpacked), full_name);
}

std::unique_ptr<ArrayFile> open_npz(const std::string& path, const std::string& array,
                                    const NpzLimits& limits) {
  auto map = std::make_shared<const core::MappedFile>(path);
  const std::span<const std::byte> bytes = map->bytes();
  return parse_npz(bytes, std::move(map), path, array, limits);
}

}  // namespace vitrail::io

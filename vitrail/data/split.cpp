#include "vitrail/data/split.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <sstream>
#include <string_view>
#include <unordered_map>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include "vitrail/core/philox.h"
#include "vitrail/data/reader.h"

namespace vitrail::data {
namespace {

constexpr int64_t kMaxListBytes = int64_t{1} << 32;

bool take_prefix(std::string_view& text, const std::string& folder) {
  if (folder.empty() || !text.starts_with(folder)) return false;
  std::string_view rest = text.substr(folder.size());
  if (folder.back() != '/') {
    if (!rest.starts_with('/')) return false;
    rest.remove_prefix(1);
  }
  text = rest;
  return true;
}

std::string parent_of(const std::string& path) {
  return std::filesystem::path(path).parent_path().string();
}

void check_keys(const config::Source& source) {
  const bool has_list = !source.split_list.empty(), has_hash = source.split_hash.has_value();
  const bool has_range = !source.split.empty(), has_part = !(source.split_part == "all");
  const std::string name = source_name(source);
  VT_REQUIRE(ConfigError, !(has_list && (has_hash || has_range)),
             "[data] source '{}': split_list excludes split and split_hash", name);
  VT_REQUIRE(ConfigError, !has_part || has_hash,
             "[data] source '{}': split_part {} needs split_hash", name, source.split_part.value);
  VT_REQUIRE(ConfigError, !(has_part && has_range),
             "[data] source '{}': split_part {} and split exclude each other", name,
             source.split_part.value);
}

/// The part of [0, 1) that the hash of a sample must fall into.
std::pair<double, double> hash_range(const config::Source& source) {
  if (source.split_part == "train") return {0.0, 0.8};
  if (source.split_part == "val") return {0.8, 0.9};
  if (source.split_part == "test") return {0.9, 1.0};
  if (source.split.empty()) return {0.0, 1.0};
  VT_REQUIRE(ConfigError,
             source.split.size() == 2 && source.split[0] >= 0 &&
                 source.split[0] < source.split[1] && source.split[1] <= 1,
             "[data] source '{}': split must be [start, end] with 0 <= start < end <= 1",
             source_name(source));
  return {source.split[0], source.split[1]};
}

/// A list's lines as places.
class NamedSamples {
 public:
  NamedSamples(const config::Source& source, int64_t size,
               const std::function<std::string(int64_t)>& path_of)
      : root_(source.root), size_(size) {
    for (int64_t i = 0; i < size; ++i) places_.emplace(split_name(root_, path_of(i)), i);
  }

  /// -1 = no sample of that name or number.
  int64_t find(const std::string& line) const {
    if (const auto found = places_.find(line); found != places_.end()) return found->second;
    if (const auto found = places_.find(split_name(root_, line)); found != places_.end())
      return found->second;
    int64_t number = -1;
    const char* end = line.data() + line.size();
    const auto [last, error] = std::from_chars(line.data(), end, number);
    return error == std::errc() && last == end && number >= 0 && number < size_ ? number : -1;
  }

 private:
  std::string root_;
  int64_t size_;
  std::unordered_map<std::string, int64_t> places_;
};

std::vector<int64_t> places_of_list(const config::Source& source, int64_t size,
                                    const std::function<std::string(int64_t)>& path_of) {
  const std::string& path = source.split_list;
  const NamedSamples samples(source, size, path_of);
  std::vector<int64_t> line_of(static_cast<size_t>(size), 0);
  std::istringstream text(core::read_file(path, kMaxListBytes));
  int64_t number = 0;
  for (std::string line; std::getline(text, line);) {
    ++number;
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (line.empty()) continue;
    const int64_t place = samples.find(line);
    VT_REQUIRE(DataError, place >= 0,
               "[data] {}:{}: '{}' must be one of the {} samples of {}, by its path relative to it "
               "or by its number from 0 on",
               path, number, line, size, source.root);
    int64_t& first = line_of[static_cast<size_t>(place)];
    VT_REQUIRE(DataError, first == 0, "[data] {}:{}: '{}' names the sample of line {} again", path,
               number, line, first);
    first = number;
  }
  std::vector<int64_t> places;
  for (int64_t i = 0; i < size; ++i)
    if (line_of[static_cast<size_t>(i)] > 0) places.push_back(i);
  return places;
}

}  // namespace

SplitRange split_range(const config::Source& source, int64_t size, const std::string& path) {
  const std::vector<double>& split = source.split;
  if (split.empty() || chooses_by_name(source)) return {0, size};
  VT_REQUIRE(ConfigError,
             split.size() == 2 && split[0] >= 0 && split[0] < split[1] && split[1] <= 1,
             "[data] source '{}': split must be [start, end] with 0 <= start < end <= 1",
             source_name(source));
  const auto n = static_cast<double>(size);
  const SplitRange range{std::llround(split[0] * n), std::llround(split[1] * n)};
  VT_REQUIRE(DataError, range.first < range.last,
             "[data] {}: split [{}, {}] of {} samples is empty", path, split[0], split[1], size);
  return range;
}

std::string split_name(const std::string& root, const std::string& path) {
  std::string_view name = path;
  if (take_prefix(name, root)) return std::string(name);
  const size_t wildcard = root.find_first_of("*?[");
  if (take_prefix(name, parent_of(root.substr(0, wildcard)))) return std::string(name);
  return path;
}

double split_unit(const std::string& name, int64_t number) {
  uint64_t hash = 0xCBF29CE484222325ull ^ core::mix64(static_cast<uint64_t>(number));
  for (const char letter : name)
    hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001B3ull;
  return static_cast<double>(core::mix64(hash) >> 11) * 0x1p-53;
}

bool chooses_by_name(const config::Source& source) {
  return !source.split_list.empty() || source.split_hash.has_value() ||
         !(source.split_part == "all");
}

std::vector<int64_t> split_places(const config::Source& source, int64_t size,
                                  const std::function<std::string(int64_t)>& path_of) {
  check_keys(source);
  std::vector<int64_t> places;
  if (!source.split_list.empty()) {
    places = places_of_list(source, size, path_of);
    VT_REQUIRE(DataError, !places.empty(), "[data] {}: names no sample of {}", source.split_list,
               source.root);
    return places;
  }
  const auto [low, high] = hash_range(source);
  for (int64_t i = 0; i < size; ++i) {
    const double unit = split_unit(split_name(source.root, path_of(i)), *source.split_hash);
    if (unit >= low && unit < high) places.push_back(i);
  }
  VT_REQUIRE(DataError, !places.empty(),
             "[data] {}: none of its {} samples falls into [{}, {}) of split_hash {}; take another "
             "part or number",
             source.root, size, low, high, *source.split_hash);
  return places;
}

}  // namespace vitrail::data

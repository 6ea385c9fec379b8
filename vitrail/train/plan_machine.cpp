#include "vitrail/train/plan_machine.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/config/yaml.h"
#include "vitrail/core/did_you_mean.h"
#include "vitrail/core/error.h"

namespace vitrail::train {
namespace {

namespace fs = std::filesystem;
using config::Node;
using config::Problems;

/// Reads one map; what stays unread at its end is a problem.
class MapReader {
 public:
  MapReader(const Node* node, std::string path, Problems& problems)
      : node_(node), path_(std::move(path)), problems_(problems) {
    if (node_ && !node_->is_map()) {
      problems_.add(node_->place,
                    fmt::format("{} must be a map but got {}", path_, describe(*node_)));
      node_ = nullptr;
    }
  }
  ~MapReader() {
    if (!node_) return;
    const std::vector<std::string> known(known_.begin(), known_.end());
    for (const config::Entry& entry : node_->entries) {
      if (known_.contains(entry.key)) continue;
      const std::string near = core::nearest_word(entry.key, known);
      problems_.add(entry.key_place,
                    fmt::format("{} is not a known key{}", full(entry.key),
                                near.empty() ? "" : "; did you mean '" + near + "'?"));
    }
  }
  MapReader(const MapReader&) = delete;
  MapReader& operator=(const MapReader&) = delete;

  const Node* node(const std::string& key) {
    known_.insert(key);
    const Node* found = node_ ? node_->find(key) : nullptr;
    return found && found->is_null() ? nullptr : found;
  }
  void text(const std::string& key, std::string& field) {
    const Node* found = node(key);
    if (found && found->is_scalar()) field = found->text;
  }
  void number(const std::string& key, double& field, bool needed = false) {
    const Node* found = node(key);
    if (found)
      field = number_of(*found, full(key));
    else if (needed && node_)
      problems_.add(node_->place, fmt::format("{} must be given", full(key)));
  }
  void whole(const std::string& key, int64_t& field) {
    double value = static_cast<double>(field);
    number(key, value);
    const Node* found = node(key);
    if (found && (value != std::floor(value) || value < 1 || value > 1e9))
      problems_.add(found->place, fmt::format("{} must be a whole number from 1 but got {}",
                                              full(key), describe(*found)));
    else
      field = static_cast<int64_t>(value);
  }
  /// {768: 641, 1024: 661}: keys and values above 0.
  void curve(const std::string& key, std::vector<RatePoint>& field) {
    const Node* found = node(key);
    if (!found) return;
    if (!found->is_map()) {
      problems_.add(found->place, fmt::format("{} must be a map of sizes and rates but got {}",
                                              full(key), describe(*found)));
      return;
    }
    for (const config::Entry& entry : found->entries) {
      Node at = config::make_scalar(entry.key, entry.key_place);
      field.push_back({number_of(at, full(key)), number_of(entry.value, full(key))});
    }
    std::ranges::sort(field, {}, &RatePoint::at);
  }
  std::string full(const std::string& key) const { return path_.empty() ? key : path_ + "." + key; }

 private:
  double number_of(const Node& node, const std::string& path) {
    double value = 0;
    const char *first = node.text.data(), *last = first + node.text.size();
    const auto [end, error] = std::from_chars(first, last, value);
    if (!node.is_scalar() || error != std::errc() || end != last || !(value >= 0) ||
        !std::isfinite(value)) {
      problems_.add(node.place, fmt::format("{} must be a number of at least 0 but got {}", path,
                                            describe(node)));
      return 0;
    }
    return value;
  }

  const Node* node_;
  std::string path_;
  Problems& problems_;
  std::set<std::string> known_;
};

void read_link(MapReader& map, const std::string& key, Link& link, Problems& problems) {
  MapReader reader(map.node(key), map.full(key), problems);
  reader.number("latency_us", link.latency_us);
  reader.number("gb_s", link.gb_s);
}

void read_collectives(const Node* list, Machine& machine, Problems& problems) {
  if (!list) return;
  if (!list->is_list()) {
    problems.add(list->place, "collectives must be a list but got " + describe(*list));
    return;
  }
  for (size_t i = 0; i < list->items.size(); ++i) {
    MapReader reader(&list->items[i], fmt::format("collectives[{}]", i), problems);
    MeasuredCollective one;
    reader.text("kind", one.kind);
    reader.whole("ranks", one.ranks);
    reader.whole("hosts", one.hosts);
    reader.number("latency_us", one.latency_us);
    reader.number("bus_gb_s", one.bus_gb_s);
    machine.collectives.push_back(one);
  }
}

void check_machine(const Machine& machine, const Node& root, Problems& problems) {
  const auto must = [&](bool holds, const char* text) {
    if (!holds) problems.add(root.place, text);
  };
  must(machine.memory_gib > 0, "memory_gib must be above 0");
  must(machine.copy_gb_s > 0, "copy_gb_s must be above 0");
  must(machine.in_host.gb_s > 0, "links.in_host.gb_s must be above 0");
  must(!machine.gemm_bf16.empty() && !machine.gemm_fp32.empty(), "gemm must have bf16 and fp32");
  must(!machine.attention.empty(), "attention.by_head_width must be given");
  for (const std::vector<RatePoint>* curve :
       {&machine.gemm_bf16, &machine.gemm_fp32, &machine.attention, &machine.attention_of_tokens})
    for (const RatePoint& point : *curve)
      must(point.at > 0 && point.value > 0, "sizes and rates of curves must be above 0");
}

std::string curve_text(const std::vector<RatePoint>& curve) {
  std::vector<std::string> points;
  for (const RatePoint& point : curve)
    points.push_back(fmt::format("{:g}: {:g}", point.at, point.value));
  return fmt::format("{{{}}}", fmt::join(points, ", "));
}

std::string quoted(std::string text) {
  std::erase_if(text, [](char c) { return c == '"' || c == '\\' || c == '\n'; });
  return '"' + text + '"';
}

}  // namespace

double rate_at(const std::vector<RatePoint>& curve, double at) {
  if (curve.empty()) return 1.0;
  if (at <= curve.front().at) return curve.front().value;
  for (size_t i = 1; i < curve.size(); ++i) {
    if (at > curve[i].at) continue;
    const RatePoint &a = curve[i - 1], &b = curve[i];
    const double share = std::log(at / a.at) / std::log(b.at / a.at);
    return a.value + share * (b.value - a.value);
  }
  return curve.back().value;
}

Machine parse_machine(const std::string& yaml, const std::string& name) {
  Problems problems;
  const Node root = config::parse_yaml(yaml, name, problems);
  problems.throw_if_any();
  VT_REQUIRE(ConfigError, root.is_map(),
             "[plan] {} must be a map (a table of one machine) but is {}", name, describe(root));
  Machine machine;
  {
    MapReader map(&root, "", problems);
    map.text("name", machine.name), map.text("device", machine.device);
    map.text("date", machine.date), map.text("source", machine.source);
    map.whole("gpus_per_host", machine.gpus_per_host);
    map.number("memory_gib", machine.memory_gib, true);
    map.number("context_gib", machine.context_gib),
        map.number("workspace_gib", machine.workspace_gib);
    map.number("copy_gb_s", machine.copy_gb_s, true), map.number("passes", machine.passes);
    map.number("gradient_bytes", machine.gradient_bytes);
    map.number("host_ms_per_block", machine.host_ms_per_block);
    map.number("host_link_gb_s", machine.host_link_gb_s);
    {
      MapReader peak(map.node("peak_tflops"), "peak_tflops", problems);
      peak.number("bf16", machine.peak_bf16), peak.number("fp32", machine.peak_fp32);
      MapReader gemm(map.node("gemm"), "gemm", problems);
      gemm.curve("bf16", machine.gemm_bf16), gemm.curve("fp32", machine.gemm_fp32);
      MapReader attention(map.node("attention"), "attention", problems);
      attention.curve("by_head_width", machine.attention);
      attention.curve("by_tokens", machine.attention_of_tokens);
      MapReader links(map.node("links"), "links", problems);
      read_link(links, "in_host", machine.in_host, problems);
      read_link(links, "between_hosts", machine.between_hosts, problems);
    }
    read_collectives(map.node("collectives"), machine, problems);
  }
  if (problems.empty()) check_machine(machine, root, problems);
  problems.throw_if_any();
  return machine;
}

std::vector<std::string> machine_folders() {
  std::vector<std::string> folders{"bench/machines"};
  std::error_code error;
  fs::path place = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (int level = 0; level < 6 && !place.empty() && place != place.root_path(); ++level) {
    folders.push_back((place / "bench/machines").string());
    folders.push_back((place / "share/vitrail/machines").string());
    place = place.parent_path();
  }
  return folders;
}

Machine load_machine(const std::string& name, const std::vector<std::string>& folders) {
  std::error_code error;
  std::vector<std::string> candidates{name}, known;
  for (const std::string& folder : folders) candidates.push_back(folder + "/" + name + ".yaml");
  for (const std::string& path : candidates) {
    if (!fs::is_regular_file(path, error)) continue;
    VT_REQUIRE(ConfigError,
               fs::file_size(path, error) <= static_cast<uintmax_t>(config::kMaxFileBytes),
               "[plan] {} must be a table of at most {} MiB", path, config::kMaxFileBytes >> 20);
    std::ifstream file(path, std::ios::binary);
    VT_REQUIRE(ConfigError, file.is_open(), "[plan] {} must be readable", path);
    Machine machine = parse_machine(std::string(std::istreambuf_iterator<char>(file), {}), path);
    if (machine.name.empty()) machine.name = fs::path(path).stem().string();
    return machine;
  }
  for (const std::string& folder : folders)
    for (const fs::directory_entry& entry : fs::directory_iterator(folder, error))
      if (entry.path().extension() == ".yaml") known.push_back(entry.path().stem().string());
  std::ranges::sort(known);
  known.erase(std::unique(known.begin(), known.end()), known.end());
  const std::string near = core::nearest_word(name, known);
  core::fail<core::ConfigError>(
      "[plan] --machine must be a file or one of the tables {} but got '{}'{}",
      known.empty() ? "(none found; run inside the source folder)"
                    : fmt::format("{}", fmt::join(known, ", ")),
      config::printable(name), near.empty() ? "" : "; did you mean '" + near + "'?");
}

std::string to_yaml(const Machine& m) {
  std::string text = fmt::format(
      "name: {}\ndevice: {}\ndate: {}\nsource: {}\ngpus_per_host: {}\nmemory_gib: "
      "{:g}\ncontext_gib: "
      "{:g}\nworkspace_gib: {:g}\npeak_tflops: {{bf16: {:g}, fp32: {:g}}}\ngemm:\n  bf16: {}\n  "
      "fp32: "
      "{}\nattention:\n  by_head_width: {}\n  by_tokens: {}\ncopy_gb_s: {:g}\npasses: "
      "{:g}\nhost_ms_per_block: "
      "{:g}\nhost_link_gb_s: {:g}\nlinks:\n  in_host: {{latency_us: {:g}, gb_s: {:g}}}\n  "
      "between_hosts: "
      "{{latency_us: {:g}, gb_s: {:g}}}\n",
      quoted(m.name), quoted(m.device), quoted(m.date), quoted(m.source), m.gpus_per_host,
      m.memory_gib, m.context_gib, m.workspace_gib, m.peak_bf16, m.peak_fp32,
      curve_text(m.gemm_bf16), curve_text(m.gemm_fp32), curve_text(m.attention),
      curve_text(m.attention_of_tokens), m.copy_gb_s, m.passes, m.host_ms_per_block,
      m.host_link_gb_s, m.in_host.latency_us, m.in_host.gb_s, m.between_hosts.latency_us,
      m.between_hosts.gb_s);
  text += fmt::format("gradient_bytes: {:g}\n", m.gradient_bytes);
  if (m.collectives.empty()) return text;
  text += "collectives:\n";
  for (const MeasuredCollective& one : m.collectives)
    text += fmt::format(
        "  - {{kind: {}, ranks: {}, hosts: {}, latency_us: {:.4g}, bus_gb_s: {:.4g}}}\n", one.kind,
        one.ranks, one.hosts, one.latency_us, one.bus_gb_s);
  return text;
}

double wire_bytes(const std::string& kind, double bytes, int64_t ranks) {
  if (ranks <= 1) return 0;
  const double share = static_cast<double>(ranks - 1) / static_cast<double>(ranks);
  if (kind == "all_reduce") return 2 * bytes * share;
  if (kind == "all_gather" || kind == "reduce_scatter" || kind == "all_to_all")
    return bytes * share;
  return bytes;
}

namespace {

/// Hops one after the other, in microseconds. Gather and scatter go round a ring; an all-reduce of few bytes goes up and
/// down a tree over the hosts.
double latency_us(const Machine& machine, const std::string& kind, const GroupShape& group) {
  const auto n = static_cast<double>(group.ranks), h = static_cast<double>(group.hosts);
  const double inside = machine.in_host.latency_us, between = machine.between_hosts.latency_us;
  const double ring = (n - h) * inside + (h - 1) * between;
  if (kind == "all_gather" || kind == "reduce_scatter") return ring;
  const double tree =
      std::ceil(std::log2(std::max(1.0, n / h))) * inside + std::ceil(std::log2(h)) * between;
  if (kind == "all_reduce") return std::min(2 * ring, 2 * tree);
  if (kind == "all_to_all" || kind == "broadcast") return tree;
  return h > 1 ? between : inside;
}

}  // namespace

double collective_seconds(const Machine& machine, const std::string& kind, double bytes,
                          const GroupShape& group) {
  if (group.ranks <= 1) return 0;
  const double wire = wire_bytes(kind, bytes, group.ranks);
  for (const MeasuredCollective& one : machine.collectives)
    if (one.kind == kind && one.ranks == group.ranks && one.hosts == group.hosts &&
        one.bus_gb_s > 0)
      return one.latency_us * 1e-6 + wire / (one.bus_gb_s * 1e9);
  double rate = machine.in_host.gb_s, crossing = wire;
  if (group.hosts > 1) {
    // All GPUs of a host run groups like this one at once and share its way out. A ring passes each border once.
    const double per_host = static_cast<double>(group.ranks) / static_cast<double>(group.hosts);
    const bool is_ring = kind == "all_reduce" || kind == "all_gather" || kind == "reduce_scatter";
    const double sharing = static_cast<double>(machine.gpus_per_host) / (is_ring ? per_host : 1.0);
    if (kind == "all_to_all")
      crossing =
          bytes * (static_cast<double>(group.ranks) - per_host) / static_cast<double>(group.ranks);
    rate = std::min(rate, machine.between_hosts.gb_s / sharing * wire / std::max(1.0, crossing));
  }
  return latency_us(machine, kind, group) * 1e-6 + wire / (std::max(rate, 1e-6) * 1e9);
}

}  // namespace vitrail::train

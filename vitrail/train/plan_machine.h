#pragma once
/// What a machine can do, as `vitrail plan` needs it: measured rates and links, read from a YAML table
/// (bench/machines/*.yaml) that says when and where they were measured.

#include <cstdint>
#include <string>
#include <vector>

namespace vitrail::train {

/// A point of a measured curve; between points values are interpolated over the logarithm of `at`, outside held.
struct RatePoint {
  double at = 0, value = 0;
};
double rate_at(const std::vector<RatePoint>& curve, double at);

/// One level of links.
struct Link {
  double latency_us = 0;  // of one hop of a collective
  double gb_s =
      0;  // in_host: bus bandwidth of a GPU; between_hosts: of all GPUs of a host together
};

/// What `bench comm` fitted for one collective: seconds = latency + wire bytes / bandwidth.
struct MeasuredCollective {
  std::string kind;  // all_reduce, all_gather, reduce_scatter, all_to_all, send_receive, broadcast
  int64_t ranks = 0, hosts = 1;
  double latency_us = 0, bus_gb_s = 0;
};

struct Machine {
  std::string name, device, date, source;
  int64_t gpus_per_host = 8;
  double memory_gib = 0;     // of one GPU
  double context_gib = 0;    // taken by driver, libraries and communicators, outside the allocator
  double workspace_gib = 0;  // of libraries, inside the allocator
  double peak_bf16 = 0, peak_fp32 = 0;          // TFLOP/s; utilisation is a share of it
  std::vector<RatePoint> gemm_bf16, gemm_fp32;  // TFLOP/s of a trunk's products by width
  std::vector<RatePoint> attention;             // TFLOP/s, forward and backward, by head width
  std::vector<RatePoint> attention_of_tokens;   // factor on it by tokens
  double copy_gb_s = 0;                         // read and write of the GPU's memory
  double gradient_bytes = 0;  // moved for a parameter's gradient in each pass, products aside
  double passes =
      0;  // reads or writes of the tokens by everything else in a block, forward and backward
  double host_ms_per_block = 0;  // least time of a block, forward and backward: the host's launches
  double host_link_gb_s = 0;     // GPU to host memory, one way
  Link in_host, between_hosts;
  std::vector<MeasuredCollective> collectives;
};

/// throws ConfigError naming every problem with its place.
Machine parse_machine(const std::string& yaml, const std::string& name);
/// `name` is a file, or the name of a table in one of `folders` ("h200-8" -> FOLDER/h200-8.yaml).
/// throws ConfigError naming the tables there are.
Machine load_machine(const std::string& name, const std::vector<std::string>& folders);
/// Folders that hold tables: bench/machines below the working folder, and beside the program.
std::vector<std::string> machine_folders();
std::string to_yaml(const Machine& machine);

/// Ranks of a group and over how many hosts they lie, evenly.
struct GroupShape {
  int64_t ranks = 1, hosts = 1;
};

/// Bytes that a rank sends for one collective over a buffer of `bytes` (of the whole: the gathered, the unreduced).
/// all_reduce 2 S (n-1)/n; all_gather, reduce_scatter, all_to_all S (n-1)/n; send_receive, broadcast S.
double wire_bytes(const std::string& kind, double bytes, int64_t ranks);
/// Seconds of one collective: a measured fit where the table has that kind for the same group, else the sum of its hops'
/// latencies and wire bytes over the narrowest link, which the GPUs of a host share.
double collective_seconds(const Machine& machine, const std::string& kind, double bytes,
                          const GroupShape& group);

}  // namespace vitrail::train

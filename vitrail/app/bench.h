#pragma once
/// What the verbs of `vitrail bench` share.

#include <string>

#include <c10/core/Device.h>

#include "vitrail/app/output.h"
#include "vitrail/app/verbs.h"

namespace vitrail::app {

/// The line for people goes to stdout; the object to `json` when that names a file, to stdout
/// instead when it is "-".
void publish(const std::string& line, const std::string& object, const std::string& json);

/// auto, cpu or cuda. throws ConfigError: cuda without a visible GPU.
at::Device bench_device(const std::string& name);

void add_bench_attention(CLI::App& bench, Program& program);
void add_bench_comm(CLI::App& bench, Program& program);
void add_bench_gemm(CLI::App& bench, Program& program);
void add_bench_loader(CLI::App& bench, Program& program);
void add_bench_patch(CLI::App& bench, Program& program);

}  // namespace vitrail::app

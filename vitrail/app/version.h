#pragma once
/// What this program was built from and what it runs with.

#include <string>

namespace vitrail::app {

/// "0.1.0 (1a2b3c4)"
std::string program_version();
/// Several lines: program, torch, CUDA, cuDNN, NCCL, MPI.
std::string version_text();

}  // namespace vitrail::app

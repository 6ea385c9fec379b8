#pragma once
/// The libraries this process really has loaded, asked through their own version functions.

#include <string>
#include <vector>

namespace vitrail::app {

struct Library {
  std::string name;     // "cuda", "cudnn", "nccl", "mpi", ...
  std::string version;  // empty when not loaded
  std::string path;     // of the shared object
};
std::vector<Library> loaded_libraries();

struct Gpu {
  std::string name;
  double memory_gib = 0;
};
/// GPUs that the driver reports, whether or not this build can use them.
std::vector<Gpu> visible_gpus();
/// GPUs that this process can use; 0 in a CPU-only build.
int usable_gpu_count();

}  // namespace vitrail::app

#include "vitrail/app/libraries.h"

#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <fmt/format.h>

namespace vitrail::app {

namespace {

/// A function of a library that may or may not be there; null when it is not.
template <class Function>
Function* find_function(const char* name, void* handle = RTLD_DEFAULT) {
  return reinterpret_cast<Function*>(dlsym(handle, name));
}

template <class Function>
std::string path_of(Function* function) {
  Dl_info info{};
  return function && dladdr(reinterpret_cast<void*>(function), &info) ? info.dli_fname : "";
}

/// CUDA writes 13.0 as 13000.
std::string cuda_form(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

Library cuda_runtime() {
  Library library{"cuda", "", ""};
  if (auto* get = find_function<int(int*)>("cudaRuntimeGetVersion")) {
    int runtime = 0, driver = 0;
    get(&runtime);
    library.path = path_of(get);
    if (auto* get_driver = find_function<int(int*)>("cudaDriverGetVersion")) get_driver(&driver);
    library.version =
        fmt::format("runtime {}, {}", cuda_form(runtime),
                    driver ? "driver up to " + cuda_form(driver) : std::string("no driver"));
  }
  return library;
}

/// 91002 -> "9.10.2"
std::string dotted(size_t version) {
  return fmt::format("{}.{}.{}", version / 10000, version % 10000 / 100, version % 100);
}

Library cudnn() {
  Library library{"cudnn", "", ""};
  if (auto* get = find_function<size_t()>("cudnnGetVersion")) {
    library = {"cudnn", dotted(get()), path_of(get)};
  }
  return library;
}

Library cublaslt() {
  Library library{"cublas", "", ""};
  if (auto* get = find_function<size_t()>("cublasLtGetVersion")) {
    library = {"cublas", dotted(get()), path_of(get)};
  }
  return library;
}

Library nccl() {
  Library library{"nccl", "", ""};
  if (auto* get = find_function<int(int*)>("ncclGetVersion")) {
    int version = 0;
    get(&version);
    library = {"nccl", dotted(static_cast<size_t>(version)), path_of(get)};
  }
  return library;
}

Library mpi() {
  Library library{"mpi", "", ""};
  if (auto* get = find_function<int(char*, int*)>("MPI_Get_library_version")) {
    char text[1 << 14] = {};  // larger than MPI_MAX_LIBRARY_VERSION_STRING of any implementation
    int length = 0;
    get(text, &length);
    std::string version(text, static_cast<size_t>(length));
    library = {"mpi", version.substr(0, version.find_first_of(",\n")), path_of(get)};
  }
  return library;
}

Library torch() {
  const std::string path = path_of(&at::get_num_threads);
  return {"libtorch", path.empty() ? "" : "loaded", path};
}

}  // namespace

std::vector<Library> loaded_libraries() {
  return {torch(), cuda_runtime(), cublaslt(), cudnn(), nccl(), mpi()};
}

std::vector<Gpu> visible_gpus() {
  std::vector<Gpu> gpus;
  void* nvml = dlopen("libnvidia-ml.so.1", RTLD_LAZY);
  if (!nvml) return gpus;
  struct Memory {
    unsigned long long total, free, used;
  };
  auto* init = find_function<int()>("nvmlInit_v2", nvml);
  auto* count = find_function<int(unsigned*)>("nvmlDeviceGetCount_v2", nvml);
  auto* handle = find_function<int(unsigned, void**)>("nvmlDeviceGetHandleByIndex_v2", nvml);
  auto* name = find_function<int(void*, char*, unsigned)>("nvmlDeviceGetName", nvml);
  auto* memory = find_function<int(void*, Memory*)>("nvmlDeviceGetMemoryInfo", nvml);
  unsigned devices = 0;
  if (init && count && handle && name && memory && init() == 0 && count(&devices) == 0) {
    for (unsigned i = 0; i < devices; ++i) {
      void* device = nullptr;
      char text[96] = {};
      Memory bytes{};
      if (handle(i, &device) != 0 || name(device, text, sizeof text) != 0 ||
          memory(device, &bytes) != 0)
        continue;
      gpus.push_back({text, static_cast<double>(bytes.total) / (1ull << 30)});
    }
  }
  dlclose(nvml);
  return gpus;
}

int usable_gpu_count() {
  auto* torch_cuda = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
  auto* get = find_function<int(int*)>("cudaGetDeviceCount");
  int count = 0;
  return torch_cuda && get && get(&count) == 0 ? count : 0;
}

}  // namespace vitrail::app

# Links LibTorch out of the Python wheel. find_package(Torch) adds global flags and fails without a CUDA toolkit,
# so the libraries are named here one by one.
#   VITRAIL_PYTHON     interpreter that holds torch (default: the checkout's .venv, else python3)
#   result             target torch_wheel; variables TORCH_DIR, TORCH_SITE (folder that holds torch/ and nvidia/)
if(NOT VITRAIL_PYTHON)
  if(EXISTS "${CMAKE_SOURCE_DIR}/.venv/bin/python3")
    set(VITRAIL_PYTHON "${CMAKE_SOURCE_DIR}/.venv/bin/python3")
  else()
    find_program(VITRAIL_PYTHON python3 REQUIRED)
  endif()
endif()
execute_process(
  COMMAND "${VITRAIL_PYTHON}" -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
  OUTPUT_VARIABLE TORCH_DIR OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE torch_missing ERROR_QUIET)
if(torch_missing OR NOT EXISTS "${TORCH_DIR}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "torch was not found through ${VITRAIL_PYTHON}; run ./script/setup or set -DVITRAIL_PYTHON=/path/to/python3")
endif()
get_filename_component(TORCH_SITE "${TORCH_DIR}" DIRECTORY)
file(STRINGS "${TORCH_DIR}/version.py" torch_version_line REGEX "^__version__")
string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+[^'\"]*" TORCH_VERSION "${torch_version_line}")

add_library(torch_wheel INTERFACE)
# The wheel's include folder carries its own, newer fmt without a library; ours must be found first.
get_target_property(fmt_include fmt::fmt INTERFACE_INCLUDE_DIRECTORIES)
set(own_fmt "${CMAKE_SOURCE_DIR}/build/own-fmt")
file(MAKE_DIRECTORY "${own_fmt}")
file(CREATE_LINK "${fmt_include}/fmt" "${own_fmt}/fmt" SYMBOLIC)
target_include_directories(torch_wheel SYSTEM INTERFACE "${own_fmt}")
target_include_directories(torch_wheel SYSTEM INTERFACE "${TORCH_DIR}/include" "${TORCH_DIR}/include/torch/csrc/api/include")
target_link_directories(torch_wheel INTERFACE "${TORCH_DIR}/lib")
target_link_libraries(torch_wheel INTERFACE torch_cpu c10)
# at::parallel_for is written out in its header and runs on one thread in sources compiled without OpenMP.
find_package(OpenMP COMPONENTS CXX)
if(OpenMP_CXX_FOUND)
  target_link_libraries(torch_wheel INTERFACE OpenMP::OpenMP_CXX)
endif()
if(VITRAIL_CUDA_ENABLED)
  # libtorch_cuda registers its kernels when loaded; the linker must keep it although no symbol is named.
  target_link_libraries(torch_wheel INTERFACE -Wl,--push-state,--no-as-needed torch_cuda c10_cuda -Wl,--pop-state)
endif()
message(STATUS "torch ${TORCH_VERSION} in ${TORCH_DIR}")

# Libraries of the fused engine, taken from where LibTorch takes them so that a process loads one copy of each.
#   cuBLASLt        the wheel's, else the toolkit's; needed by a CUDA build
#   cuDNN           headers and library of the wheel, with cudnn-frontend's headers (PyPI nvidia-cudnn-frontend); optional
#   CUTLASS         headers (PyPI nvidia-cutlass); optional
# results: CUDA_RUNTIME, GPU_LIBRARIES, GPU_INCLUDES, VITRAIL_CUDNN_ENABLED, VITRAIL_CUTLASS_ENABLED
option(VITRAIL_CUDNN "attention through cudnn-frontend where it is found; else the trunk uses LibTorch's" ON)
# Off: a minute of compilation for what only `vitrail bench gemm` runs yet.
option(VITRAIL_CUTLASS "fused matrix products through CUTLASS where its headers are found" OFF)
set(VITRAIL_CUDNN_ENABLED OFF)
set(VITRAIL_CUTLASS_ENABLED OFF)
set(GPU_LIBRARIES "")
set(GPU_INCLUDES "")
set(CUDA_RUNTIME "")
if(NOT VITRAIL_CUDA_ENABLED)
  return()
endif()

# In the wheel a library lies under its run-time name alone; its folder is named after the major version.
set(cuda_major ${CUDAToolkit_VERSION_MAJOR})
set(wheel_cuda "${TORCH_SITE}/nvidia/cu${cuda_major}/lib")
find_library(CUBLASLT_LIBRARY NAMES libcublasLt.so.${cuda_major} HINTS "${wheel_cuda}" NO_DEFAULT_PATH)
if(NOT CUBLASLT_LIBRARY)
  set(CUBLASLT_LIBRARY CUDA::cublasLt)
endif()
# The run-time library from the same folder: of two folders that hold the same names no search path is in order.
find_library(CUDART_LIBRARY NAMES libcudart.so.${cuda_major} HINTS "${wheel_cuda}" NO_DEFAULT_PATH)
set(CUDA_RUNTIME CUDA::cudart)
if(CUDART_LIBRARY)
  set(CUDA_RUNTIME CUDA::toolkit "${CUDART_LIBRARY}")
endif()
list(APPEND GPU_LIBRARIES "${CUBLASLT_LIBRARY}")

if(VITRAIL_CUDNN)
  find_path(CUDNN_FRONTEND_INCLUDE cudnn_frontend.h HINTS "${TORCH_SITE}/include")
  find_path(CUDNN_INCLUDE cudnn.h HINTS "${TORCH_SITE}/nvidia/cudnn/include")
  find_library(CUDNN_LIBRARY NAMES libcudnn.so.9 HINTS "${TORCH_SITE}/nvidia/cudnn/lib" "${TORCH_DIR}/lib")
  find_library(NVRTC_LIBRARY NAMES libnvrtc.so.${cuda_major} HINTS "${wheel_cuda}" "${CUDAToolkit_LIBRARY_DIR}")
  if(CUDNN_FRONTEND_INCLUDE AND CUDNN_INCLUDE AND CUDNN_LIBRARY AND NVRTC_LIBRARY)
    set(VITRAIL_CUDNN_ENABLED ON)
    list(APPEND GPU_LIBRARIES "${CUDNN_LIBRARY}" "${NVRTC_LIBRARY}")
    # cuDNN's own folder first: a toolkit may hold another version's cudnn.h.
    list(APPEND GPU_INCLUDES "${CUDNN_INCLUDE}" "${CUDNN_FRONTEND_INCLUDE}")
  endif()
endif()

if(VITRAIL_CUTLASS)
  find_path(CUTLASS_INCLUDE cutlass/cutlass.h HINTS "${TORCH_SITE}/cutlass_library/source/include")
  if(CUTLASS_INCLUDE AND "${CMAKE_CUDA_ARCHITECTURES}" MATCHES "90a")
    set(VITRAIL_CUTLASS_ENABLED ON)
    list(APPEND GPU_INCLUDES "${CUTLASS_INCLUDE}" "${CUTLASS_INCLUDE}/../tools/util/include")
  endif()
endif()

if(VITRAIL_CUDNN_ENABLED)
  message(STATUS "attention: cuDNN through ${CUDNN_FRONTEND_INCLUDE}")
else()
  message(STATUS "attention: LibTorch's (cudnn-frontend not found or VITRAIL_CUDNN=OFF; ./script/setup installs it)")
endif()
message(STATUS "cuBLASLt: ${CUBLASLT_LIBRARY}  CUTLASS: ${VITRAIL_CUTLASS_ENABLED}")

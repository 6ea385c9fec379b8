# CUDA kernels run on the CPU (docs/kernels.md): program test_emulation from *_test.cpp. Each NAME_test.cpp brings the
# kernel sources vitrail/kernels/cuda/NAME.cu and NAME_*.cu, compiled by the C++ compiler against include/, into one
# shared library (static_shared.h says why shared).
set(EMULATION "${CMAKE_CURRENT_LIST_DIR}")
file(GLOB emulation_tests CONFIGURE_DEPENDS "${EMULATION}/*_test.cpp")
if(VITRAIL_TEST_FILES)
  list(FILTER emulation_tests INCLUDE REGEX "${VITRAIL_TEST_FILES}")
endif()
set(emulated_sources "")
foreach(test ${emulation_tests})
  get_filename_component(name "${test}" NAME_WE)
  string(REGEX REPLACE "_test$" "" name "${name}")
  file(GLOB kernels CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/vitrail/kernels/cuda/${name}.cu"
       "${CMAKE_SOURCE_DIR}/vitrail/kernels/cuda/${name}_*.cu")
  list(APPEND emulated_sources ${kernels})
endforeach()
list(REMOVE_DUPLICATES emulated_sources)

# A wrapper includes each source: the CUDA build of the same file is not touched.
set(emulation_wrappers "")
foreach(source ${emulated_sources})
  get_filename_component(name "${source}" NAME_WE)
  set(wrapper "${CMAKE_BINARY_DIR}/emulation/${name}.cpp")
  file(CONFIGURE OUTPUT "${wrapper}" CONTENT "#include \"vitrail/kernels/cuda/${name}.cu\"\n" @ONLY)
  list(APPEND emulation_wrappers "${wrapper}")
endforeach()

file(GLOB plain_sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/vitrail/kernels/*.cpp")
add_library(emulation_plain STATIC ${plain_sources})
target_link_libraries(emulation_plain PUBLIC vitrail_flags vitrail_core)

add_library(emulation_kernels SHARED "${EMULATION}/emulator.cpp" "${EMULATION}/faulty_kernels.cpp" "${EMULATION}/fiber.cpp"
            "${EMULATION}/static_shared.cpp" ${emulation_wrappers})
target_include_directories(emulation_kernels BEFORE PUBLIC "${EMULATION}" "${EMULATION}/include")
# nvcc compiles the same source with fewer warnings. Fused multiply-adds are the kernels' own choice (fmaf), as they are in the plain loops.
target_compile_options(emulation_kernels PRIVATE -Wno-unknown-pragmas -Wno-sign-compare -ffp-contract=off)
target_link_libraries(emulation_kernels PRIVATE emulation_plain)

if(emulation_tests)
  add_executable(test_emulation ${emulation_tests})
  target_compile_options(test_emulation PRIVATE -Wno-unknown-pragmas)
  target_link_libraries(test_emulation PRIVATE emulation_kernels emulation_plain torch_wheel GTest::gtest_main
                                               GTest::gmock)
  vitrail_add_parts(test_emulation 4)
endif()

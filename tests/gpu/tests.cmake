# Tests that need a GPU: one program, built with CUDA only. Run with `ctest -L gpu` on a machine
# that has one; label gpu2 needs two.
if(VITRAIL_CUDA_ENABLED)
  file(GLOB gpu_sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/*_test.cpp")
  add_executable(test_gpu ${gpu_sources})
  target_link_libraries(test_gpu PRIVATE vitrail_train GTest::gtest_main GTest::gmock)
  # Not gtest_discover_tests: the program cannot list its tests on a build machine without a driver.
  add_test(NAME gpu COMMAND test_gpu --gtest_filter=-GpuDdp.*:GpuSequence2.*:GpuPipeline.*)
  set_tests_properties(gpu PROPERTIES LABELS gpu TIMEOUT 600)
  add_test(NAME gpu2 COMMAND test_gpu --gtest_filter=GpuDdp.*:GpuSequence2.*:GpuStrategies.*)
  set_tests_properties(gpu2 PROPERTIES LABELS gpu2 TIMEOUT 900)
  if(MPI_C_FOUND)
    add_test(NAME gpu2.pipeline
             COMMAND mpirun --allow-run-as-root --oversubscribe -n 2 $<TARGET_FILE:test_gpu> --gtest_filter=GpuPipeline.*)
    set_tests_properties(gpu2.pipeline PROPERTIES LABELS gpu2 TIMEOUT 600)
  endif()
endif()

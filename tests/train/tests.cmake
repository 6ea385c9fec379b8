# A checkpoint of an older program, read from the source tree.
if(TARGET test_train)
  target_compile_definitions(test_train PRIVATE VITRAIL_SOURCE="${CMAKE_SOURCE_DIR}")
endif()

# A minute of training, so it is no unit test.
add_executable(detection_run "${CMAKE_CURRENT_LIST_DIR}/detection_run.cpp")
target_link_libraries(detection_run PRIVATE vitrail_train GTest::gtest_main GTest::gmock)
add_test(NAME train.detection_run COMMAND detection_run)
set_tests_properties(train.detection_run PROPERTIES LABELS program TIMEOUT 900)

# A checkpoint of an older program, read from the source tree.
if(TARGET test_train)
  target_compile_definitions(test_train PRIVATE VITRAIL_SOURCE="${CMAKE_SOURCE_DIR}")
endif()

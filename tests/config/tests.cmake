# Where the tests find recipes/ and docs/.
if(TARGET test_config)
  target_compile_definitions(test_config PRIVATE VITRAIL_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
endif()

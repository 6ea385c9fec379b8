# The tests of file formats compare with the Python libraries that define them.
if(TARGET test_io)
  target_compile_definitions(test_io PRIVATE VITRAIL_PYTHON="${VITRAIL_PYTHON}")
endif()

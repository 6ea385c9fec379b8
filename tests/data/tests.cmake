# Percentiles, nearest pixels and NIfTI sources are compared with NumPy, torch and nibabel.
if(TARGET test_data)
  target_compile_definitions(test_data PRIVATE VITRAIL_PYTHON="${VITRAIL_PYTHON}")
endif()

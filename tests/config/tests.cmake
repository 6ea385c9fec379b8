# Where the tests find recipes/ and docs/.
if(TARGET test_config)
  target_compile_definitions(test_config PRIVATE VITRAIL_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
endif()

# Foreign settings, as a user runs them.
if(MPI_C_FOUND)
  foreach(deepspeed_case files_run_unchanged the_batch_identity_is_refused convert_writes_a_recipe)
    add_test(NAME deepspeed.${deepspeed_case}
             COMMAND "${VITRAIL_PYTHON}" "${CMAKE_CURRENT_SOURCE_DIR}/app/deepspeed_test.py" ${deepspeed_case})
    set_tests_properties(deepspeed.${deepspeed_case} PROPERTIES LABELS program TIMEOUT 300
                         ENVIRONMENT "VITRAIL=$<TARGET_FILE:vitrail>")
  endforeach()
endif()

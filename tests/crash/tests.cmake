# The whole program killed at random moments, alone and one of two ranks.
add_test(NAME crash.thirty_kills_change_no_bit
         COMMAND "${VITRAIL_PYTHON}" "${CMAKE_CURRENT_SOURCE_DIR}/crash/kill_resume.py" --kills 30 --steps 2000)
set_tests_properties(crash.thirty_kills_change_no_bit PROPERTIES LABELS program TIMEOUT 400
                     ENVIRONMENT "VITRAIL=$<TARGET_FILE:vitrail>")
if(VITRAIL_MPI_ENABLED OR MPI_C_FOUND)
  add_test(NAME crash.a_killed_rank_changes_no_bit
           COMMAND "${VITRAIL_PYTHON}" "${CMAKE_CURRENT_SOURCE_DIR}/crash/kill_resume.py" --kills 6 --ranks 2 --steps 120)
  set_tests_properties(crash.a_killed_rank_changes_no_bit PROPERTIES LABELS program TIMEOUT 400
                       ENVIRONMENT "VITRAIL=$<TARGET_FILE:vitrail>")
endif()

set(here "${CMAKE_CURRENT_SOURCE_DIR}/comm")
if(MPI_C_FOUND)
  add_executable(test_comm_mpi "${here}/mpi_program.cpp")
  target_link_libraries(test_comm_mpi PRIVATE vitrail_comm GTest::gtest)
  foreach(ranks 1 2 3 4)
    set(label mpi4)
    if(ranks LESS 3)
      set(label mpi2)
    endif()
    add_test(NAME comm.mpi.${ranks}_ranks
             COMMAND mpirun --allow-run-as-root --oversubscribe -n ${ranks} $<TARGET_FILE:test_comm_mpi> ${ranks})
    set_tests_properties(comm.mpi.${ranks}_ranks PROPERTIES LABELS ${label} TIMEOUT 300)
  endforeach()
  # One rank goes wrong while the others wait for it: the whole job ends soon, with a failure.
  foreach(how throw exit abort mismatch)
    set(text "")
    set(code "")
    if(how STREQUAL "mismatch")
      set(text "999 x f32.*1000 x f32|1000 x f32.*999 x f32")
    elseif(how STREQUAL "abort")
      set(code 4)
    endif()
    add_test(NAME comm.mpi.job_ends_after_${how}
             COMMAND ${CMAKE_COMMAND} -DSECONDS=30 "-DTEXT=${text}" "-DCODE=${code}"
                     "-DCOMMAND=mpirun;--allow-run-as-root;--oversubscribe;-n;4;$<TARGET_FILE:test_comm_mpi>;4;${how}"
                     -P "${here}/fails_soon.cmake")
    set_tests_properties(comm.mpi.job_ends_after_${how} PROPERTIES LABELS mpi4 TIMEOUT 60)
  endforeach()
  add_test(NAME comm.mpi.watchdog_names_the_missing_rank
           COMMAND ${CMAKE_COMMAND} -E env VITRAIL_COMM_TIMEOUT_S=2
                   ${CMAKE_COMMAND} -DSECONDS=25 "-DTEXT=waited 2 s.*for rank 3.*all_reduce #0"
                   "-DCOMMAND=mpirun;--allow-run-as-root;--oversubscribe;-n;4;$<TARGET_FILE:test_comm_mpi>;4;watchdog"
                   -P "${here}/fails_soon.cmake")
  set_tests_properties(comm.mpi.watchdog_names_the_missing_rank PROPERTIES LABELS mpi4 TIMEOUT 60)
endif()
if(VITRAIL_NCCL_ENABLED AND MPI_C_FOUND)
  add_executable(test_nccl "${here}/nccl_program.cpp")
  target_link_libraries(test_nccl PRIVATE vitrail_comm GTest::gtest)
  add_test(NAME comm.nccl.2_ranks
           COMMAND mpirun --allow-run-as-root --oversubscribe -n 2 $<TARGET_FILE:test_nccl> 2)
  set_tests_properties(comm.nccl.2_ranks PROPERTIES LABELS gpu2 TIMEOUT 300)
endif()
add_executable(test_comm_failures "${here}/failure_program.cpp")
target_link_libraries(test_comm_failures PRIVATE vitrail_comm)
foreach(backend mpi tcp thread)
  foreach(how exit kill stall)
    if((backend STREQUAL "mpi" AND NOT MPI_C_FOUND) OR (backend STREQUAL "thread" AND how STREQUAL "kill"))
      continue()
    endif()
    add_test(NAME comm.failures.${backend}.${how}
             COMMAND "${VITRAIL_PYTHON}" "${here}/failures_test.py" ${backend} ${how})
    set_tests_properties(comm.failures.${backend}.${how} PROPERTIES LABELS mpi4 TIMEOUT 300
                         ENVIRONMENT "PROGRAM=$<TARGET_FILE:test_comm_failures>")
  endforeach()
endforeach()

# Tests of many ranks update weights as training does (ranks.h).
if(TARGET test_parallel)
  target_link_libraries(test_parallel PRIVATE vitrail_train)
endif()
if(MPI_C_FOUND)
  add_executable(test_parallel_mpi "${CMAKE_CURRENT_SOURCE_DIR}/parallel/mpi_program.cpp")
  target_link_libraries(test_parallel_mpi PRIVATE vitrail_train)
  foreach(ranks 2 4 8)
    set(label mpi4)
    if(ranks EQUAL 2)
      set(label mpi2)
    endif()
    add_test(NAME parallel.mpi.${ranks}_ranks
             COMMAND mpirun --allow-run-as-root --oversubscribe --bind-to none -n ${ranks} $<TARGET_FILE:test_parallel_mpi> ${ranks})
    set_tests_properties(parallel.mpi.${ranks}_ranks PROPERTIES LABELS ${label} TIMEOUT 600
                         ENVIRONMENT "VITRAIL_COMM_TIMEOUT_S=120")
  endforeach()
endif()

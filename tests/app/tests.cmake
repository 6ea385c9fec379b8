# The program as a user runs it.
foreach(program_case a_run_leaves_what_the_contract_names eval_report_and_predict_read_a_run
                     probes_score_a_frozen_encoder predict_writes_masks
                     predict_on_several_ranks_writes_what_one_rank_writes sample_on_several_ranks_draws_what_one_rank_draws
                     ranks_that_share_samples_may_read_them_once
                     losses_do_not_depend_on_the_number_of_ranks resume_is_equal
                     a_stop_signal_saves_and_the_same_command_goes_on
                     a_newest_checkpoint_that_is_broken_is_named_and_skipped dry_run_writes_nothing
                     a_failing_rank_ends_the_job)
  add_test(NAME program.${program_case}
           COMMAND "${VITRAIL_PYTHON}" "${CMAKE_CURRENT_SOURCE_DIR}/app/program_test.py" test_${program_case})
  set_tests_properties(program.${program_case} PROPERTIES LABELS program TIMEOUT 300
                       ENVIRONMENT "VITRAIL=$<TARGET_FILE:vitrail>")
endforeach()
add_test(NAME program.bad_inputs COMMAND "${VITRAIL_PYTHON}" "${CMAKE_CURRENT_SOURCE_DIR}/app/bad_inputs.py")
set_tests_properties(program.bad_inputs PROPERTIES LABELS program TIMEOUT 600 ENVIRONMENT "VITRAIL=$<TARGET_FILE:vitrail>")
add_test(NAME program.bench_loader COMMAND "${VITRAIL_PYTHON}" "${CMAKE_CURRENT_SOURCE_DIR}/app/bench_loader_test.py")
set_tests_properties(program.bench_loader PROPERTIES LABELS program TIMEOUT 120 ENVIRONMENT "VITRAIL=$<TARGET_FILE:vitrail>")
add_test(NAME program.bench_kernels COMMAND "${VITRAIL_PYTHON}" "${CMAKE_CURRENT_SOURCE_DIR}/app/bench_kernels_test.py")
set_tests_properties(program.bench_kernels PROPERTIES LABELS program TIMEOUT 120 ENVIRONMENT "VITRAIL=$<TARGET_FILE:vitrail>")
foreach(format_case image_list image_list_of_values cifar idx tar npy boxes volumes masks_of_another_format values_of_pixels adaptive
                    mixing statistics)
  add_test(NAME formats.${format_case}
           COMMAND "${VITRAIL_PYTHON}" "${CMAKE_CURRENT_SOURCE_DIR}/app/formats_test.py" ${format_case})
  set_tests_properties(formats.${format_case} PROPERTIES LABELS program TIMEOUT 300 ENVIRONMENT "VITRAIL=$<TARGET_FILE:vitrail>")
endforeach()
foreach(patch_case image training colour volume odd mixed compat bad bench)
  add_test(NAME patch.${patch_case}
           COMMAND "${VITRAIL_PYTHON}" "${CMAKE_CURRENT_SOURCE_DIR}/app/patch_test.py" ${patch_case})
  set_tests_properties(patch.${patch_case} PROPERTIES LABELS program TIMEOUT 300 ENVIRONMENT "VITRAIL=$<TARGET_FILE:vitrail>")
endforeach()
foreach(plan_case page large search rehearsal bad comm)
  add_test(NAME plan.${plan_case}
           COMMAND "${VITRAIL_PYTHON}" "${CMAKE_CURRENT_SOURCE_DIR}/app/plan_test.py" ${plan_case})
  set_tests_properties(plan.${plan_case} PROPERTIES LABELS program TIMEOUT 120 ENVIRONMENT "VITRAIL=$<TARGET_FILE:vitrail>")
endforeach()
if(MPI_C_FOUND)
  foreach(ranks_case another_recipe recipe_errors_once zero3 tensor pipeline trace)
    add_test(NAME ranks.${ranks_case}
             COMMAND "${VITRAIL_PYTHON}" "${CMAKE_CURRENT_SOURCE_DIR}/app/ranks_test.py" ${ranks_case})
    set_tests_properties(ranks.${ranks_case} PROPERTIES LABELS mpi4 TIMEOUT 300
                         ENVIRONMENT "VITRAIL=$<TARGET_FILE:vitrail>")
  endforeach()
endif()
foreach(ablate_case study interrupt failing evaluations bad)
  add_test(NAME ablate.${ablate_case}
           COMMAND "${VITRAIL_PYTHON}" "${CMAKE_CURRENT_SOURCE_DIR}/app/ablate_test.py" ${ablate_case})
  set_tests_properties(ablate.${ablate_case} PROPERTIES LABELS program TIMEOUT 300 ENVIRONMENT "VITRAIL=$<TARGET_FILE:vitrail>")
endforeach()

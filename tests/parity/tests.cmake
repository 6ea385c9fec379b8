# `vitrail forward` and `vitrail weights` against the Python peers.
foreach(peer timm_vit mae volume_vit hugging_face key_maps variables diffusion unetr sap sliding_window ten_steps golden adaptive)
  add_test(NAME parity.${peer}
           COMMAND "${VITRAIL_PYTHON}" "${CMAKE_CURRENT_SOURCE_DIR}/parity/${peer}.py" $<TARGET_FILE:vitrail>)
  set_tests_properties(parity.${peer} PROPERTIES LABELS parity TIMEOUT 600)
endforeach()

# Features have no way out of vitrail, so this one has a program of its own.
add_executable(shufflenet_features "${CMAKE_CURRENT_LIST_DIR}/shufflenet_features.cpp")
target_link_libraries(shufflenet_features PRIVATE vitrail_models)
add_test(NAME parity.mixed_resolution
         COMMAND "${VITRAIL_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/mixed_resolution.py" $<TARGET_FILE:vitrail>
                 $<TARGET_FILE:shufflenet_features>)
set_tests_properties(parity.mixed_resolution PROPERTIES LABELS parity TIMEOUT 600)

# Edge maps for any blur and thresholds, which `vitrail patch` does not offer; skipped (77) without OpenCV or pictures.
add_executable(edge_maps "${CMAKE_CURRENT_LIST_DIR}/edge_maps.cpp")
target_link_libraries(edge_maps PRIVATE vitrail_patching)
add_test(NAME parity.opencv
         COMMAND "${VITRAIL_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/opencv.py" $<TARGET_FILE:edge_maps>)
set_tests_properties(parity.opencv PROPERTIES LABELS parity TIMEOUT 600 SKIP_RETURN_CODE 77)

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

# The state machine of fp16's loss scale, which a run shows only step by step.
add_executable(loss_scale_states "${CMAKE_CURRENT_LIST_DIR}/loss_scale_states.cpp")
target_link_libraries(loss_scale_states PRIVATE vitrail_kernels)
add_test(NAME parity.loss_scale
         COMMAND "${VITRAIL_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/loss_scale.py" $<TARGET_FILE:loss_scale_states>)
set_tests_properties(parity.loss_scale PROPERTIES LABELS parity TIMEOUT 600)

# Boxes, assignment and average precision of random cases, and a whole pass of the detection model.
add_executable(detection_numbers "${CMAKE_CURRENT_LIST_DIR}/detection_numbers.cpp")
target_link_libraries(detection_numbers PRIVATE vitrail_models)
add_test(NAME parity.detection
         COMMAND "${VITRAIL_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/detection.py" $<TARGET_FILE:vitrail>
                 $<TARGET_FILE:detection_numbers>)
set_tests_properties(parity.detection PROPERTIES LABELS parity TIMEOUT 600)

# The loss between heads in fp64, which `vitrail forward` does not run in.
add_executable(decatt_gradients "${CMAKE_CURRENT_LIST_DIR}/decatt_gradients.cpp")
target_link_libraries(decatt_gradients PRIVATE vitrail_models)
add_test(NAME parity.decatt
         COMMAND "${VITRAIL_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/decatt.py" $<TARGET_FILE:vitrail>
                 $<TARGET_FILE:decatt_gradients>)
set_tests_properties(parity.decatt PROPERTIES LABELS parity TIMEOUT 600)

# The resolution-aware transformer in fp64 and with masks, which `vitrail forward` does not offer.
add_executable(rat_pass "${CMAKE_CURRENT_LIST_DIR}/rat_pass.cpp")
target_link_libraries(rat_pass PRIVATE vitrail_models)
add_test(NAME parity.rat
         COMMAND "${VITRAIL_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/rat.py" $<TARGET_FILE:vitrail> $<TARGET_FILE:rat_pass>)
set_tests_properties(parity.rat PROPERTIES LABELS parity TIMEOUT 600)

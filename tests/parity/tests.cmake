# `vitrail forward` and `vitrail weights` against the Python peers.
foreach(peer timm_vit mae volume_vit hugging_face key_maps variables diffusion unetr sap sliding_window ten_steps golden adaptive)
  add_test(NAME parity.${peer}
           COMMAND "${VITRAIL_PYTHON}" "${CMAKE_CURRENT_SOURCE_DIR}/parity/${peer}.py" $<TARGET_FILE:vitrail>)
  set_tests_properties(parity.${peer} PROPERTIES LABELS parity TIMEOUT 600)
endforeach()

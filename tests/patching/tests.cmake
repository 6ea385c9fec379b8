# Trees of compat: ucf-vit against a plain reference in Python.
add_executable(ucf_tree ${CMAKE_CURRENT_LIST_DIR}/ucf_tree_main.cpp)
target_link_libraries(ucf_tree PRIVATE vitrail_patching)
add_test(NAME parity.ucf_tree COMMAND ${VITRAIL_PYTHON} ${CMAKE_SOURCE_DIR}/tests/parity/ucf_tree.py $<TARGET_FILE:ucf_tree>)
set_tests_properties(parity.ucf_tree PROPERTIES LABELS parity TIMEOUT 300)

# The plain loops are compared with ATen's autograd in fp64.
if(TARGET test_kernels)
  target_link_libraries(test_kernels PRIVATE torch_wheel)
endif()

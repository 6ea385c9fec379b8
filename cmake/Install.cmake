# cmake --install DIR: bin/vitrail (a launcher script), libexec/vitrail, lib/ (the non-system libraries it was linked
# with, LibTorch and CUDA excepted), share/vitrail/recipes and machines (tables of vitrail plan). The folder can be moved or copied to another machine; LibTorch is
# found at VITRAIL_TORCH_LIB=/path/to/torch/lib there.
include(GNUInstallDirs)
install(TARGETS vitrail RUNTIME DESTINATION libexec)
install(PROGRAMS "${CMAKE_SOURCE_DIR}/tools/vitrail-launcher" DESTINATION bin RENAME vitrail)
install(DIRECTORY "${CMAKE_SOURCE_DIR}/recipes" "${CMAKE_SOURCE_DIR}/bench/machines" DESTINATION share/vitrail)
install(FILES "${CMAKE_SOURCE_DIR}/LICENSE" "${CMAKE_SOURCE_DIR}/README.md" DESTINATION share/vitrail)
install(CODE [[
  file(GET_RUNTIME_DEPENDENCIES
    EXECUTABLES "${CMAKE_INSTALL_PREFIX}/libexec/vitrail"
    RESOLVED_DEPENDENCIES_VAR found UNRESOLVED_DEPENDENCIES_VAR missing
    POST_INCLUDE_REGEXES "lib(yaml-cpp|fmt|spdlog|jpeg|png|z|zstd|xxhash|blosc|lz4|bz2|tiff|snappy|webp|lzma|deflate|jbig|Lerc|sharpyuv)[-.0-9]*\\.so"
    POST_EXCLUDE_REGEXES ".*")
  foreach(library ${found})
    file(INSTALL "${library}" DESTINATION "${CMAKE_INSTALL_PREFIX}/lib" FOLLOW_SYMLINK_CHAIN)
  endforeach()
]])

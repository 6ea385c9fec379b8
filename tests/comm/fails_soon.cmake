# Runs COMMAND (a list), which must end within SECONDS with a failure and print TEXT (a regular expression).
#   cmake -DSECONDS=20 -DTEXT=... "-DCOMMAND=a;b;c" -P fails_soon.cmake
execute_process(COMMAND ${COMMAND} TIMEOUT ${SECONDS} RESULT_VARIABLE result OUTPUT_VARIABLE out ERROR_VARIABLE err)
message("${out}${err}\nresult: ${result}")
if(result MATCHES "timeout")
  message(FATAL_ERROR "still running after ${SECONDS} s")
elseif(result EQUAL 0)
  message(FATAL_ERROR "ended with success")
elseif(NOT "${out}${err}" MATCHES "${TEXT}")
  message(FATAL_ERROR "did not print '${TEXT}'")
elseif(CODE AND NOT result EQUAL CODE)
  message(FATAL_ERROR "exit code must be ${CODE}")
endif()

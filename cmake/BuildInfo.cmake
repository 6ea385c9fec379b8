# Run at every build: writes the git commit into OUTPUT, and touches it only when it changes.
execute_process(COMMAND git -C "${SOURCE}" describe --always --dirty --abbrev=8 --exclude=*
                OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT commit)
  set(commit "unknown commit")
endif()
set(text "namespace vitrail::app {\nextern const char* const kProgramVersion;\nextern const char* const kGitCommit;\nextern const char* const kTorchVersion;\nconst char* const kProgramVersion = \"${VERSION}\";\nconst char* const kGitCommit = \"${commit}\";\nconst char* const kTorchVersion = \"${TORCH}\";\n}\n")
set(before "")
if(EXISTS "${OUTPUT}")
  file(READ "${OUTPUT}" before)
endif()
if(NOT text STREQUAL before)
  file(WRITE "${OUTPUT}" "${text}")
endif()

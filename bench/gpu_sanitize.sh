#!/usr/bin/env bash
# One GPU: the own kernels under compute-sanitizer, test by test: memory, initialisation, races in shared memory, barriers.
# usage: gpu_sanitize.sh BIN_DIR OUT_DIR [GTEST_FILTER]     BIN_DIR holds test_gpu
#   TOOLS          default: memcheck initcheck racecheck synccheck
#   SECONDS_EACH   limit of one test under one tool (default 120); a test that reaches it is named, not counted as clean
#   JOBS           tests at once (default 4)
set -u
bin=$1 out=$2
filter=${3:-GpuFusedKernels.*:GpuShortAttention.*:GpuNarrowAttention.*:GpuAdamw.*:GpuSgd.*:GpuPhilox.*:GpuSumSquares.*:GpuClipScale.*:GpuFlat.*:GpuRotary.*:GpuGemmGelu.*}
export SECONDS_EACH=${SECONDS_EACH:-120}
mkdir -p "$out"
"$bin/test_gpu" --gtest_filter="$filter" --gtest_list_tests | awk '/^[A-Za-z]/ { suite = $1 } /^  / { print suite $1 }' > "$out/tests.txt"
check() { # tool test bin out
  local log="$4/$1.$2.log"
  timeout "$SECONDS_EACH" compute-sanitizer --tool "$1" --error-exitcode 9 "$3/test_gpu" --gtest_filter="$2" > "$log" 2>&1
  local code=$? word
  case $code in
    0) word=clean ;;
    9) word="ERRORS: $(grep -m 1 '=========.*\(Invalid\|Error\|hazard\|Uninit\|Barrier\)' "$log" | cut -c 11-120)" ;;
    124) word="not finished in $SECONDS_EACH s" ;;
    *) word="the test itself failed ($code)" ;;
  esac
  echo "$1 $2 $word"
}
export -f check
for tool in ${TOOLS:-memcheck initcheck racecheck synccheck}; do
  xargs -a "$out/tests.txt" -P "${JOBS:-4}" -I{} bash -c 'check "$@"' _ "$tool" {} "$bin" "$out"
done | sort | tee "$out/summary.txt" | grep -v ' clean$'
echo "$(grep -c ' clean$' "$out/summary.txt") of $(wc -l < "$out/summary.txt") clean"

# Shared by the scripts here; sourced, never run.
torch_version=2.11.0
torchvision_version=0.26.0
cudnn_frontend_version=1.32.0
cutlass_version=4.2.0.0
log=${TMPDIR:-/tmp}/vitrail-setup-$(id -u).log

say() { printf '\033[1mvitrail:\033[0m %s\n' "$*"; }
stop() { printf 'vitrail: %s\n' "$*" >&2; exit 1; }

find_nvcc() {
  local candidate
  for candidate in "$(command -v nvcc || true)" "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc"; do
    [ -x "$candidate" ] && { echo "$candidate"; return 0; }
  done
  return 1
}
# CUDA code is built where nvcc is, unless VITRAIL_CUDA=OFF.
wants_cuda() {
  case "${VITRAIL_CUDA:-AUTO}" in
    OFF) return 1 ;;
    ON) find_nvcc >/dev/null || stop "VITRAIL_CUDA=ON but nvcc was not found; put it on PATH or set CUDA_HOME" ;;
    AUTO) find_nvcc >/dev/null ;;
    *) stop "VITRAIL_CUDA must be AUTO, ON or OFF but got ${VITRAIL_CUDA}" ;;
  esac
}
cuda_words() { if wants_cuda; then echo "CUDA by $(find_nvcc)"; else echo "CPU only: no CUDA compiler, or VITRAIL_CUDA=OFF"; fi; }
gpu_count() { { nvidia-smi -L 2>/dev/null || true; } | grep -c '^GPU' || true; }
gpu_visible() { [ "$(gpu_count)" -gt 0 ]; }

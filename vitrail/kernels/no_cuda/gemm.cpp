#include "vitrail/kernels/gemm.h"

#include "vitrail/core/error.h"

namespace vitrail::kernels {
namespace {

[[noreturn]] void refuse() {
  core::fail("[gemm] matrix products on a GPU need a CUDA build; configure with -DVITRAIL_CUDA=ON");
}

}  // namespace

class GemmLibrary::Impl {};

GemmLibrary::GemmLibrary(int, int64_t) { refuse(); }
GemmLibrary::~GemmLibrary() = default;
void GemmLibrary::run(const GemmShape&, const GemmOperands&, void*) { refuse(); }
void GemmLibrary::tune(const std::vector<GemmShape>&, double, void*) { refuse(); }
std::vector<GemmChoice> GemmLibrary::choices() const { refuse(); }
void GemmLibrary::save(const std::string&) const { refuse(); }
int GemmLibrary::load(const std::string&) { refuse(); }

}  // namespace vitrail::kernels

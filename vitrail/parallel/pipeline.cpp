#include "vitrail/parallel/pipeline.h"

#include "vitrail/core/error.h"

namespace vitrail::parallel {

std::vector<std::pair<std::string, int>> stage_of_units(models::Model&, int) { return {}; }

class Pipeline::Impl {};

Pipeline::Pipeline(models::Model&, const config::Recipe&, Groups& groups) {
  VT_REQUIRE(ConfigError, groups.mesh().size(comm::Axis::pipeline) == 1,
             "[pipeline] parallel.pipeline must be 1 but is {}",
             groups.mesh().size(comm::Axis::pipeline));
}
Pipeline::~Pipeline() = default;

bool Pipeline::is_held(const models::UnitSpec&) const { return true; }

at::Tensor Pipeline::run(const std::vector<data::Batch>&,
                         const std::function<nn::Draws(const data::Batch&)>&, const PassHooks&) {
  return {};
}

models::Output Pipeline::evaluate(const data::Batch&, const nn::Draws&) { return {}; }

}  // namespace vitrail::parallel

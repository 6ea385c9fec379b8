#include "vitrail/parallel/graph.h"

#include "vitrail/core/error.h"

namespace vitrail::parallel {

struct Graph::State {};

Graph::Graph(at::Device) {
  core::fail(
      "[graph] recording work of a GPU needs a CUDA build; configure with -DVITRAIL_CUDA=ON");
}
Graph::~Graph() = default;
void Graph::run(const std::function<void()>&) {}
void Graph::record(const std::function<void()>&) {}
void Graph::replay() {}

}  // namespace vitrail::parallel

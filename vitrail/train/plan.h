#pragma once
/// What a recipe will need and take on N GPUs, before any of them is asked for: bytes, operations, collectives, time.
///
/// Parameters  are counted by the layout that training itself uses (parallel/layout.h), of a model without memory.
/// Activations follow from a table of what each block saves (plan_memory.cpp).
/// Time        of kernels and links comes from a machine's table (plan_machine.h); what overlaps with what from the
///             strategy and its prefetch (plan_time.cpp).
/// Worst       ranks differ by pipeline stage; a plan is that of the stage that needs most memory.

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vitrail/comm/mesh.h"
#include "vitrail/config/recipe.h"
#include "vitrail/models/model.h"
#include "vitrail/parallel/engine.h"
#include "vitrail/train/plan_machine.h"

namespace vitrail::train {

using MeshSizes = std::array<int, comm::kAxisCount>;

/// How the recipe's parallel section divides `gpus`; hybrid without `shard` takes the GPUs of a host.
/// throws ConfigError when the axes do not multiply to `gpus`, or batch and micro-batches do not divide.
MeshSizes plan_mesh(const config::Recipe& recipe, int64_t gpus, int64_t gpus_per_host);
/// The recipe with every axis written out.
config::Recipe with_mesh(config::Recipe recipe, const MeshSizes& sizes);

/// A trunk of the model as numbers.
struct PlanTrunk {
  std::string name;  // of its first unit: "blocks", "decoder_blocks"
  int64_t tokens = 0, width = 0, heads = 0, kv_heads = 0, hidden = 0, depth = 0;
  bool swiglu = false, rmsnorm = false, qk_norm = false, layer_scale = false, conditioned = false;
  double drop_path = 0, attn_drop = 0, proj_drop = 0;
};

/// A unit as a rank holds it, before it is cut into slices.
struct PlanUnit {
  std::string name;
  int trunk = -1, block = -1;      // -1: an end
  int64_t count = 0, partial = 0;  // elements, padding included
  int64_t parameters = 0;          // without padding
};

/// A model's shapes and the layouts that were asked for; no memory of its parameters is ever allocated.
class PlanSubject {
 public:
  explicit PlanSubject(const config::Recipe& recipe);
  const std::vector<PlanTrunk>& trunks() const { return trunks_; }
  models::Model& model() const { return *model_; }
  int64_t parameter_count() const { return parameter_count_; }
  /// The units of a pipeline stage for these tensor and pipeline sizes; tensor rank 0's.
  const std::vector<PlanUnit>& units(const config::Recipe& recipe, const MeshSizes& sizes,
                                     int stage);

 private:
  std::shared_ptr<models::Model> model_;
  std::vector<PlanTrunk> trunks_;
  int64_t parameter_count_ = 0;
  std::map<std::string, std::vector<PlanUnit>> known_;
};

struct MemoryItem {
  std::string name, note;
  double bytes = 0;
};

/// Collectives of one kind and purpose in one step of one rank.
struct CollectiveItem {
  std::string purpose, kind, group;
  GroupShape shape;
  double count = 0;       // in a step
  double bytes = 0;       // whole buffers of all of them
  double wire_bytes = 0;  // this rank sends
  double seconds = 0, exposed_seconds = 0;
};

struct Plan {
  // layout
  MeshSizes mesh{1, 1, 1, 1, 1};
  std::string strategy, recompute, precision, machine;
  int64_t gpus = 1, batch_size = 0, local_batch = 0, micro_batches = 1;
  int64_t parameters = 0;       // of the model
  int64_t rank_parameters = 0;  // of the worst rank's part
  int64_t kept_parameters = 0;  // that it keeps, padding included
  int worst_stage = 0, worst_rank = 0;
  // memory of the worst rank, bytes
  std::vector<MemoryItem> memory;
  double peak_bytes = 0;     // what the allocator's peak should show
  double context_bytes = 0;  // outside it
  double host_bytes = 0;     // of host memory, per rank
  double capacity_bytes = 0;
  bool fits() const { return peak_bytes + context_bytes <= capacity_bytes; }
  // a step
  double model_flops = 0;     // all ranks; recompute not counted
  double hardware_flops = 0;  // of one rank; recompute counted
  std::vector<CollectiveItem> collectives;
  double compute_seconds = 0, exposed_seconds = 0, bubble_seconds = 0, optimizer_seconds = 0,
         step_seconds = 0;
  double images_per_second = 0, model_tflops_per_gpu = 0;
  std::optional<double> utilisation;  // of the machine's peak
};

/// throws ConfigError when recipe and mesh do not fit.
Plan make_plan(PlanSubject& subject, const config::Recipe& recipe, const Machine& machine,
               const MeshSizes& sizes);

/// For people: layout, memory, collectives and time as a page.
std::string to_text(const Plan& plan);
std::string to_json(const Plan& plan);
/// One line a plan, with a heading.
std::string to_table(const std::vector<Plan>& plans);

}  // namespace vitrail::train

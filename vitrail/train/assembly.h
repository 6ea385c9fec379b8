#pragma once
/// What training, evaluation and prediction build in the same way from a recipe.

#include <string>

#include <ATen/core/Tensor.h>

#include "vitrail/comm/launch.h"
#include "vitrail/comm/mesh.h"
#include "vitrail/config/recipe.h"
#include "vitrail/data/batch.h"
#include "vitrail/models/model.h"

namespace vitrail::train {

/// The GPU of this rank's place on its host, or the CPU; makes it current. fp32 means fp32 there, in convolutions too.
/// throws ConfigError: run.device is cuda but none is visible, or fewer than ranks on this host.
at::Device choose_device(const config::Run& options, const comm::Launch& launch);

/// run.deterministic: only operators whose result does not depend on timing; others throw.
void set_determinism(const config::Run& options);

/// run.threads, else this process's share of the cores it may use. Returns the number.
int set_threads(const config::Run& options, const comm::Launch& launch);

/// The axes that the recipe leaves open: zero1 to zero3 share among all ranks that are left, hybrid among those of a host.
/// `ranks` in all, `local` of them on this host.
comm::MeshShape mesh_shape(const config::Parallel& options, int ranks, int local);
comm::Mesh make_mesh(comm::Communicator& world, const config::Parallel& options,
                     const comm::Launch& launch);
/// Every rank holds the whole model all the time.
bool is_whole(const config::Parallel& options);
/// Forward and backward of one rank may be one CUDA graph.
bool may_record(const config::Parallel& options);
at::ScalarType compute_dtype(const config::Train& options);

/// Everything that has to fit between recipe and ranks.
/// throws ConfigError with the numbers.
void check_layout(const config::Recipe& recipe, const comm::Mesh& mesh);

/// The batch with all of its tensors on `device`; from pinned memory the copy does not block.
data::Batch on_device(data::Batch batch, at::Device device);

/// output/name
std::string run_folder(const config::Run& options);

/// Fills the model (on the CPU, before it is cut into units) from a safetensors file in any known
/// naming, a checkpoint folder, or a run folder (its newest valid checkpoint, else its
/// weights-ema.safetensors or weights.safetensors). Checkpoints give the moving average when they
/// hold one. Empty = the folder of the recipe's run. Returns what was read. throws CheckpointError
/// naming file and tensor.
std::string load_weights(models::Model& model, const config::Recipe& recipe,
                         const std::string& path);

/// Fills the model from model.weights, before a run's first step. Returns what was read.
std::string load_start_weights(models::Model& model, const config::Model& options);

}  // namespace vitrail::train

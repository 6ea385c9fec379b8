// What of a run's state is saved, as pieces of whole tensors.

#include "vitrail/train/checkpoint.h"
#include "vitrail/train/checkpoint_tensor.h"

namespace vitrail::train {

std::vector<StatePiece> state_pieces(parallel::UnitSet& units, Optimizer& optimizer,
                                     const parallel::MeshPlace& place) {
  const std::vector<parallel::KeptPiece> kept = parallel::kept_pieces(units.layout(), place);
  std::vector<StatePiece> pieces;
  const auto add = [&](const std::string& prefix, const at::Tensor& arena) {
    for (const parallel::KeptPiece& piece : kept) {
      const std::string name = prefix + piece.slot->name;
      pieces.push_back({name, piece.slot->whole_shape, dtype_of(arena, name), piece.range,
                        arena.narrow(0, piece.kept_offset, piece.range.count), piece.copies});
    }
  };
  add("", units.master());
  for (const Optimizer::State& state : optimizer.states()) add(state.name + "/", state.arena);
  return pieces;
}

std::vector<StatePiece> whole_pieces(const std::vector<TensorState>& tensors,
                                     parallel::Copies copies) {
  std::vector<StatePiece> pieces;
  for (const auto& [name, tensor] : tensors) {
    const std::vector<int64_t> shape = tensor.sizes().vec();
    pieces.push_back({name,
                      shape,
                      dtype_of(tensor, name),
                      {parallel::whole_box(shape), 0, tensor.numel()},
                      tensor,
                      copies});
  }
  return pieces;
}

}  // namespace vitrail::train

#include "vitrail/parallel/layout.h"

#include <algorithm>

#include "vitrail/core/error.h"

namespace vitrail::parallel {
namespace {

int64_t rounded_up(int64_t count, int64_t multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

std::vector<ParameterSlot> slots_of(const models::UnitSpec& spec, const PlacementTable& table) {
  std::vector<ParameterSlot> slots;
  for (const nn::NamedTensor& parameter : spec.parameters) {
    ParameterSlot slot;
    slot.name = parameter.name;
    slot.whole_shape = parameter.tensor.sizes().vec();
    if (table) slot.placement = table(slot.name, slot.whole_shape);
    slot.shape = local_shape(slot.whole_shape, slot.placement);
    slot.count = Box{{}, slot.shape}.count();
    slot.decay = models::decays(parameter.name, parameter.tensor);
    slots.push_back(std::move(slot));
  }
  std::stable_partition(slots.begin(), slots.end(),
                        [](const ParameterSlot& slot) { return slot.placement.partial; });
  return slots;
}

Unit lay_out(const models::UnitSpec& spec, const LayoutOptions& options, int64_t offset) {
  Unit unit;
  unit.name = spec.name, unit.stack = spec.stack, unit.block = spec.block;
  unit.offset = offset;
  unit.slots = slots_of(spec, options.placement);
  for (ParameterSlot& slot : unit.slots) {
    slot.offset = offset;
    offset += rounded_up(slot.count, kAlignment);
    if (slot.placement.partial) unit.partial_count = offset - unit.offset;
  }
  const int pieces = options.sharding.pieces();
  unit.count = rounded_up(offset - unit.offset, pieces * kAlignment);
  unit.kept_count = unit.count / pieces;
  return unit;
}

}  // namespace

Layout::Layout(models::Model& model, const LayoutOptions& options) : sharding_(options.sharding) {
  std::vector<models::UnitSpec> specs = model.units();
  // Backward completes first what forward used last.
  std::reverse(specs.begin(), specs.end());
  size_t parameters = 0;
  for (const models::UnitSpec& spec : specs) {
    parameters += spec.parameters.size();
    if (options.is_held && !options.is_held(spec)) continue;
    Unit unit = lay_out(spec, options, count_);
    unit.kept_offset = kept_count_;
    count_ += unit.count;
    kept_count_ += unit.kept_count;
    units_.push_back(std::move(unit));
  }
  const size_t expected = model.named_parameters().size();
  VT_CHECK(parameters == expected,
           "[units] units must hold each of the model's {} parameters once but hold {}", expected,
           parameters);
}

int64_t Layout::parameter_count() const {
  int64_t count = 0;
  for (const Unit& unit : units_)
    for (const ParameterSlot& slot : unit.slots) count += slot.count;
  return count;
}

int64_t Layout::first_kept(const Unit& unit) const {
  const int64_t slice = unit.count / sharding_.weights;
  return unit.offset + sharding_.weights_index * slice + sharding_.kept_index * unit.kept_count;
}

std::vector<KeptRun> Layout::kept_runs() const {
  std::vector<KeptRun> runs;
  for (const Unit& unit : units_) {
    const int64_t begin = first_kept(unit), end = begin + unit.kept_count;
    for (const ParameterSlot& slot : unit.slots) {
      const int64_t first = std::max(begin, slot.offset);
      const int64_t last = std::min(end, slot.offset + slot.count);
      if (first >= last) continue;
      runs.push_back({&slot, first - slot.offset, unit.kept_offset + first - begin, last - first});
    }
  }
  return runs;
}

}  // namespace vitrail::parallel

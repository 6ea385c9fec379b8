#pragma once
/// Models that are nothing but parameters, laid over meshes at random: for tests of what lies where.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "vitrail/core/philox.h"
#include "vitrail/models/model.h"
#include "vitrail/parallel/collect.h"

namespace vitrail::testing {

/// Numbers that are a function of (seed, how many came before).
class Random {
 public:
  explicit Random(uint32_t seed) : seed_(seed) {}
  int64_t operator()(int64_t below) {
    return static_cast<int64_t>(core::draw({77}, seed_, count_++) % static_cast<uint32_t>(below));
  }
  int64_t between(int64_t low, int64_t high) { return low + (*this)(high - low + 1); }

 private:
  uint32_t seed_, count_ = 0;
};

struct RandomParameter {
  std::string name;
  std::vector<int64_t> shape;
  parallel::Placement placement;  // but for parts and part
  int stage = 0;                  // of pipelines, modulo their length
};

/// Parameters of every kind that models have, all dimensions multiples of 4 where they may be divided.
inline std::vector<RandomParameter> random_parameters(Random& random) {
  using parallel::Split;
  std::vector<RandomParameter> all;
  const int64_t units = random.between(1, 4);
  for (int64_t unit = 0; unit < units; ++unit) {
    const int64_t d = 4 * random.between(1, 3), stage = unit;
    const auto add = [&](const char* name, std::vector<int64_t> shape, Split split,
                         std::vector<int64_t> sections = {}, bool partial = false) {
      parallel::Placement placement{split};
      placement.sections = std::move(sections);
      placement.partial = partial;
      all.push_back({"u" + std::to_string(unit) + "." + name, std::move(shape), placement,
                     static_cast<int>(stage)});
    };
    add("norm", {d}, Split::none, {}, true);
    add("qkv", {3 * d, d}, Split::rows, {d, d, d});
    add("qkv_bias", {d + 8}, Split::rows, {d, 4, 4});
    add("proj", {d, 2 * d}, Split::columns);
    add("bias", {random.between(1, 9)}, Split::none);
    if (random(2)) add("volume", {4, random.between(1, 3), random.between(1, 3), 5}, Split::rows);
    if (random(2)) add("deep_columns", {random.between(1, 5), 8, 3}, Split::columns);
    if (random(3) == 0) {
      add("owned", {random.between(1, 300)}, Split::owner);
      all.back().placement.owner = static_cast<int>(random(4));
    }
    if (random(3) == 0) add("scalar", {}, Split::none);
    if (random(4) == 0) add("table", {7, 50}, Split::none);
  }
  return all;
}

class RandomModel : public models::Model {
 public:
  explicit RandomModel(const std::vector<RandomParameter>& parameters) {
    for (const RandomParameter& parameter : parameters) {
      const at::Tensor tensor = register_parameter(parameter.name, parameter.shape);
      const std::string unit = parameter.name.substr(0, parameter.name.find('.'));
      if (units_.empty() || units_.back().name != unit) units_.push_back({unit, {}, nullptr, -1});
      units_.back().parameters.push_back({parameter.name, tensor});
    }
  }
  models::Task task() const override { return models::Task::classification; }
  models::Output forward(const data::Batch&, const nn::Draws&,
                         const std::vector<std::string>&) override {
    return {};
  }
  std::vector<models::UnitSpec> units() override { return units_; }
  std::vector<nn::Stack*> stacks() override { return {}; }
  double train_flops_per_sample() const override { return 0; }
  int64_t tokens_per_sample() const override { return 0; }

 private:
  std::vector<models::UnitSpec> units_;
};

/// A mesh and how a strategy divides it.
struct RandomMesh {
  std::array<int, comm::kAxisCount> sizes{1, 1, 1, 1, 1};
  bool divides_weights = false, divides_kept = false;

  int ranks() const {
    int product = 1;
    for (const int size : sizes) product *= size;
    return product;
  }
  comm::MeshShape shape() const { return {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]}; }
  std::string text() const {
    std::string found;
    for (const int size : sizes) found += std::to_string(size) + " ";
    return found + (divides_weights ? "shards " : "") + (divides_kept ? "over replicas" : "");
  }
};

/// At most `most` ranks; tensor 1, 2 or 4.
inline RandomMesh random_mesh(Random& random, int most) {
  RandomMesh mesh;
  for (int tries = 0; tries < 6; ++tries) {
    const auto axis = static_cast<size_t>(random(comm::kAxisCount));
    const int factor = axis == 4 || random(3) ? 2 : 3;
    if (mesh.ranks() * factor <= most && mesh.sizes[axis] * factor <= 4) mesh.sizes[axis] *= factor;
  }
  mesh.divides_weights = random(4) > 0;
  mesh.divides_kept = random(3) == 0;
  return mesh;
}

inline parallel::LayoutOptions layout_options(const std::vector<RandomParameter>& parameters,
                                              const RandomMesh& mesh,
                                              const parallel::MeshPlace& place) {
  using comm::Axis;
  parallel::LayoutOptions options;
  if (mesh.divides_weights) {
    options.sharding.weights = place.size(Axis::shard) * place.size(Axis::sequence);
    options.sharding.weights_index = place.coordinate(Axis::shard) * place.size(Axis::sequence) +
                                     place.coordinate(Axis::sequence);
  }
  if (mesh.divides_kept) {
    options.sharding.kept = place.size(Axis::replicate);
    options.sharding.kept_index = place.coordinate(Axis::replicate);
  }
  std::map<std::string, RandomParameter> by_name;
  for (const RandomParameter& parameter : parameters) by_name[parameter.name] = parameter;
  options.placement = [by_name, place](const std::string& name, const std::vector<int64_t>&) {
    parallel::Placement placement = by_name.at(name).placement;
    placement.parts = place.size(Axis::tensor);
    placement.part = place.coordinate(Axis::tensor);
    placement.owner %= placement.parts;
    return placement;
  };
  options.is_held = [by_name, place](const models::UnitSpec& unit) {
    const RandomParameter& first = by_name.at(unit.parameters[0].name);
    return first.stage % place.size(Axis::pipeline) == place.coordinate(Axis::pipeline);
  };
  return options;
}

/// The element of a whole tensor that lies at `index` of a range's elements.
inline int64_t whole_index(const parallel::BoxRange& range, const std::vector<int64_t>& shape,
                           int64_t index) {
  int64_t rest = range.start + index, found = 0, size = 1;
  for (size_t axis = shape.size(); axis-- > 0;) {
    const int64_t inside = rest % range.box.shape[axis];
    rest /= range.box.shape[axis];
    found += (range.box.start[axis] + inside) * size;
    size *= shape[axis];
  }
  return found;
}

}  // namespace vitrail::testing

#pragma once
/// A node in the tree of named parameters, with timm's names: the least that a model needs of a module class.
/// Parameters are leaf tensors; parallel::Unit later makes each a view of a flat buffer (set_data keeps identity).

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace vitrail::nn {

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

/// While one lives, parameters that this thread registers have shapes but no memory (the meta device).
class ShapesOnly {
 public:
  ShapesOnly();
  ~ShapesOnly();
  ShapesOnly(const ShapesOnly&) = delete;
  ShapesOnly& operator=(const ShapesOnly&) = delete;

 private:
  bool before_;
};

class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  /// All parameters below this node, depth first in registration order, names joined by dots; a child with an
  /// empty name adds its own as if they were this node's.
  std::vector<NamedTensor> named_parameters(const std::string& prefix = "") const;
  int64_t parameter_count() const;

 protected:
  /// Allocates an fp32 leaf [shape] on the CPU, uninitialised, that requires grad (on the meta device under
  /// ShapesOnly). Tensors share storage with the
  /// module, so the returned handle stays the parameter.
  at::Tensor register_parameter(std::string name, at::IntArrayRef shape);
  template <class Child>
  std::shared_ptr<Child> register_module(std::string name, std::shared_ptr<Child> child) {
    children_.emplace_back(std::move(name), child);
    return child;
  }

 private:
  std::vector<NamedTensor> parameters_;
  std::vector<std::pair<std::string, std::shared_ptr<Module>>> children_;
};

}  // namespace vitrail::nn

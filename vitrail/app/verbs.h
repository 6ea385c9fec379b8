#pragma once
/// One file a verb: add_<verb> declares its options and what to run. main.cpp holds the list.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "vitrail/comm/communicator.h"
#include "vitrail/comm/launch.h"
#include "vitrail/config/recipe.h"
#include <CLI/CLI.hpp>

namespace vitrail::app {

/// What a verb gets from main: how the process was launched, and the group of all processes.
class Session {
 public:
  explicit Session(comm::Launch launch) : launch_(std::move(launch)) {}
  const comm::Launch& launch() const { return launch_; }
  /// Created on first use; verbs that need no peers never start MPI.
  comm::Communicator& world();
  bool has_world() const { return world_ != nullptr; }
  bool is_main_rank() const { return launch_.rank == 0; }
  /// The error about to be thrown is thrown on every rank, with one text: rank 0 prints it, and all end in good order.
  void note_shared_error() { shares_error_ = true; }
  bool shares_error() const { return shares_error_; }

 private:
  comm::Launch launch_;
  std::unique_ptr<comm::Communicator> world_;
  bool shares_error_ = false;
};

using Action = std::function<void(Session&)>;
/// Verbs set `selected` from their CLI callback; main runs it after parsing.
struct Program {
  CLI::App& cli;
  Action selected;
};

/// `RECIPE [key.path=value ...]`, shared by all verbs that take a recipe.
class RecipeArguments {
 public:
  void add(CLI::App& verb);
  /// --deepspeed FILE: a DeepSpeed configuration laid over the recipe, below the overrides.
  void add_deepspeed(CLI::App& verb);
  /// `ranks`: that will run it; 0 = those that the DeepSpeed configuration is written for.
  config::ResolvedRecipe load(int64_t ranks = 0) const;
  /// The same on every rank of a job: when some cannot read it, all throw one message that says which.
  config::ResolvedRecipe load(Session& session) const;
  const std::string& path() const { return path_; }
  /// After load: what became of every key of the DeepSpeed configuration; empty without one.
  const std::string& converted() const { return converted_; }

 private:
  config::ResolvedRecipe load_with_deepspeed(int64_t ranks) const;

  std::string path_, deepspeed_;
  mutable std::string converted_;
  std::vector<std::string> overrides_;
};

void add_train(Program& program);
void add_eval(Program& program);
void add_predict(Program& program);
void add_sample(Program& program);
void add_forward(Program& program);
void add_weights(Program& program);
void add_checkpoint(Program& program);
void add_check(Program& program);
void add_convert(Program& program);
void add_doctor(Program& program);
void add_report(Program& program);
void add_bench(Program& program);
void add_data(Program& program);
void add_patch(Program& program);
void add_balance(Program& program);
void add_plan(Program& program);
void add_ablate(Program& program);

}  // namespace vitrail::app

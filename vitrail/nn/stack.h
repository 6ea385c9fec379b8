#pragma once
/// The trunk: blocks run by an explicit loop, forward(i) then backward(i), inside one autograd node.
///
/// Because forward(i) and backward(i) are ordinary calls, all that needs hooks elsewhere (gathering sharded weights,
/// reducing gradients, recompute, offload, timing) is an observer or a choice of what forward(i) keeps.
/// Gradients of a block's parameters are accumulated into their .grad during backward(i), before after_backward(i).
/// Shapes   B batch, L tokens, D width.

#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/nn/block.h"
#include "vitrail/nn/context.h"
#include "vitrail/nn/module.h"

namespace vitrail::nn {

/// What forward(i) keeps for backward(i).
struct Saved {
  at::Tensor input;  // [B, L, D], detached leaf
  at::Tensor
      entry;  // [B, L, D], a view of the leaf: what the block reads; undefined when the block is recomputed
  at::Tensor
      output;  // [B, L, D] with the block's local graph behind it; undefined when the block is recomputed
  /// [B, L, D], set before backward(i): gradient that reaches the block's input from elsewhere (a tap), to be added
  /// first, as plain autograd does.
  at::Tensor input_gradient;
  bool wants_attention = false;  // set before forward(i): `attention` is asked for
  /// [B, L, D], Context::attended_BTD; whoever reads it detaches it.
  at::Tensor attention;
  at::Tensor attention_gradient;  // [B, L, D], set before backward(i); undefined = none
  std::shared_ptr<void> more;  // what else the engine keeps
};

/// Runs one block. context.condition_BD is a leaf of the pass: when it requires grad, backward accumulates into its
/// .grad. nn/engine.h makes them.
class BlockEngine {
 public:
  virtual ~BlockEngine() = default;
  virtual std::string name() const = 0;
  virtual at::Tensor forward(Block& block, const at::Tensor& x_BLD, const Context& context, int i,
                             Saved& keep) = 0;
  /// Accumulates into the parameters' .grad; returns the gradient of x_BLD, kept.input_gradient included. dy_BLD is
  /// undefined when nobody reads the block's output.
  virtual at::Tensor backward(Block& block, const at::Tensor& dy_BLD, const Context& context, int i,
                              Saved& kept) = 0;
};

class StackObserver {
 public:
  virtual ~StackObserver() = default;
  virtual void before_forward(int /*i*/) {}
  virtual void after_forward(int /*i*/) {}
  virtual void before_backward(int /*i*/) {}
  virtual void after_backward(int /*i*/) {}
};

/// What happens to tokens at the two ends of a pass; sequence parallelism divides them there. Both differentiable.
class StackBorder {
 public:
  virtual ~StackBorder() = default;
  /// Whole tokens -> this rank's; `context` becomes that of its tokens.
  virtual at::Tensor enter(const at::Tensor& x_BLD, Context& context) = 0;
  /// This rank's tokens (of the last block or of a tap) -> all `whole_tokens` of them.
  virtual at::Tensor leave(const at::Tensor& x_BLD, int64_t whole_tokens) = 0;
};

/// Blocks [first, end); end -1 = to the last.
struct BlockRange {
  int first = 0, end = -1;
};

/// What leaves a stack besides its result: of one block, its output or what its attention's heads read (before proj).
enum class TapOf { output, attention };
struct Tap {
  Tap(int block_, TapOf of_ = TapOf::output) : block(block_), of(of_) {}
  auto operator<=>(const Tap&) const = default;

  int block;
  TapOf of;
};

class Stack : public Module {
 public:
  /// Registers the blocks as children "0", "1", ...; the owner registers the stack as "blocks".
  explicit Stack(std::vector<std::shared_ptr<Block>> blocks);

  /// x_BLD -> [B, L, D], differentiable in x_BLD and context.condition_BD. `taps` [B, L, D] are written to tap_outputs in
  /// the same order; gradients flow into taps too. Without grad mode the blocks run plainly and keep nothing.
  at::Tensor forward(const at::Tensor& x_BLD, const Context& context,
                     const std::vector<Tap>& taps = {},
                     std::vector<at::Tensor>* tap_outputs = nullptr);
  /// The blocks of `range` only; taps are among them.
  at::Tensor forward(const at::Tensor& x_BLD, const Context& context, BlockRange range,
                     const std::vector<Tap>& taps, std::vector<at::Tensor>* tap_outputs);

  int depth() const { return static_cast<int>(blocks_.size()); }
  Block& block(int i) { return *blocks_[i]; }
  void set_engine(std::unique_ptr<BlockEngine> engine) { engine_ = std::move(engine); }
  BlockEngine& engine() { return *engine_; }
  const BlockEngine& engine() const { return *engine_; }
  /// Null: none. Outlives the stack or is taken back before it goes.
  void set_border(StackBorder* border) { border_ = border; }
  /// The observer outlives the stack or is removed before it goes.
  void add_observer(StackObserver* observer) { observers_.push_back(observer); }
  void remove_observer(StackObserver* observer);

 private:
  friend struct StackFunction;
  at::Tensor run_blocks(const at::Tensor& x_BLD, const Context& context, BlockRange range,
                        const std::vector<Tap>& taps, std::vector<at::Tensor>* tap_outputs);
  /// Without `saved` the blocks keep nothing. Returns the result; tap_outputs are of `taps`.
  at::Tensor run_forward(at::Tensor x_BLD, const Context& context, BlockRange range,
                         std::vector<Saved>* saved, const std::vector<Tap>& taps,
                         std::vector<at::Tensor>& tap_outputs);
  /// gradients: of the output, then of each tap; undefined = none. Returns the gradient of the input.
  at::Tensor run_backward(const std::vector<at::Tensor>& gradients, const Context& context,
                          BlockRange range, const std::vector<Tap>& taps,
                          std::vector<Saved>& saved);
  void notify(void (StackObserver::*event)(int), int i);

  std::vector<std::shared_ptr<Block>> blocks_;
  std::unique_ptr<BlockEngine> engine_;
  std::vector<StackObserver*> observers_;
  StackBorder* border_ = nullptr;
};

}  // namespace vitrail::nn

#include "vitrail/parallel/ring.h"

#include <algorithm>
#include <memory>
#include <utility>

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/attention_kept.h"
#include "vitrail/ops/norm.h"
#include "vitrail/parallel/device.h"
#include "vitrail/parallel/exchange.h"
#include "vitrail/parallel/ring_block.h"
#include "vitrail/parallel/timeline.h"

namespace vitrail::parallel {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// A shift of a buffer to the next rank of the ring, on a stream of its own.
class Shift {
 public:
  /// All shifts of a group share `side`: on a device its transfers must not overtake each other.
  Shift(comm::Communicator& group, at::Device device, void* side)
      : group_(group),
        device_(device),
        compute_(current_stream(device)),
        side_(side),
        ready_(device),
        arrived_(device) {}

  /// Sends `out` on as it is after all work issued so far; `in` is free by then too.
  void start(const at::Tensor& out, const at::Tensor& in) {
    ready_.record(compute_);
    ready_.make_wait(side_);
    const int ranks = group_.size(), rank = group_.rank();
    const TimedScope timed(device_, Lane::exchange, side_, "ring");
    work_ = group_.send_receive(buffer_of(out), (rank + 1) % ranks, buffer_of(in),
                                (rank + ranks - 1) % ranks, side_);
    arrived_.record(side_);
    under_way_ = true;
  }
  /// Work issued from now on finds `in` filled.
  void finish() {
    if (!under_way_) return;
    const TimedScope timed(device_, Lane::blocking, compute_, "wait for ring");
    work_.wait();
    arrived_.make_wait(compute_);
    under_way_ = false;
  }

 private:
  comm::Communicator& group_;
  at::Device device_;
  void *compute_, *side_;
  Event ready_, arrived_;
  comm::Work work_;
  bool under_way_ = false;
};

/// What a pass needs to know of the ring besides tensors.
struct Ring : torch::CustomClassHolder {
  comm::Communicator* group = nullptr;
  Attended known;  // the result, when an earlier pass kept it; until forward has handed it out
  nn::Attending how;
  RingOptions options;
  int64_t run = 0;  // tokens of a rank

  int64_t first(int rank) const { return std::min(rank * run, how.tokens); }
  int64_t count(int rank) const { return std::min(run, how.tokens - first(rank)); }
  /// Whose keys are here after `shifts` shifts.
  int source(int shifts) const { return (group->rank() + group->size() - shifts) % group->size(); }

  /// The keys of rank `source`, past the end cut; kv [2, B, Nkv, T, E].
  KeyBlock block(const at::Tensor& kv, int source) const {
    KeyBlock block;
    block.k = kv[0].narrow(2, 0, count(source));
    block.v = kv[1].narrow(2, 0, count(source));
    if (how.key_mask_BL.defined())
      block.key_mask_BM = how.key_mask_BL.narrow(1, first(source), count(source));
    if (how.drop)
      block.drop = [this, source](const at::Tensor& probabilities) {
        return how.drop(probabilities, {options.first_head, first(group->rank()), first(source)});
      };
    block.written_out = options.written_out;
    return block;
  }
  at::Tensor own_rows(const at::Tensor& x) const { return x.narrow(2, 0, count(group->rank())); }
  at::Tensor padded(const at::Tensor& x) const { return padded_narrow(x, 2, 0, run); }
};

Attended run_forward(const Ring& ring, const at::Tensor& q, at::Tensor kv) {
  const at::Tensor rows = ring.own_rows(q);
  at::Tensor next = at::empty_like(kv);
  Shift shift(*ring.group, q.device(), side_stream(q.device()));
  Attended sum;
  for (int step = 0; step < ring.group->size(); ++step) {
    if (step + 1 < ring.group->size()) shift.start(kv, next);
    const int source = ring.source(step);
    // The same on all ranks but for the rows: who has none only passes on.
    if (ring.count(source) > 0 && rows.size(2) > 0)
      merge(sum, attend_block(rows, ring.block(kv, source)));
    shift.finish();
    std::swap(kv, next);
  }
  if (sum.out.defined()) return sum;
  const at::ScalarType type = ops::statistics_type(q.scalar_type());
  return {at::zeros(rows.sizes(), rows.options().dtype(type)),
          at::zeros(rows.sizes().slice(0, 3), rows.options().dtype(type))};
}

/// Keys and values travel as in forward; behind them travel their gradients, which are home after one shift more.
AttendedGradients run_backward(const Ring& ring, const at::Tensor& out_gradient,
                               const at::Tensor& q, at::Tensor kv, const Attended& whole) {
  const at::Tensor rows = ring.own_rows(q), dy = ring.own_rows(out_gradient).contiguous();
  const at::Tensor delta = row_products(dy, whole.out);
  const at::ScalarType type = ops::statistics_type(q.scalar_type());
  at::Tensor next = at::empty_like(kv);
  at::Tensor dkv = at::zeros(kv.sizes(), kv.options().dtype(type)), dkv_next = at::empty_like(dkv);
  at::Tensor dq = at::zeros(rows.sizes(), rows.options().dtype(type));
  void* side = side_stream(q.device());
  Shift shift(*ring.group, q.device(), side), shift_back(*ring.group, q.device(), side);
  for (int step = 0; step < ring.group->size(); ++step) {
    if (step + 1 < ring.group->size()) shift.start(kv, next);
    const int source = ring.source(step);
    const int64_t count = ring.count(source);
    AttendedGradients own;
    if (count > 0 && rows.size(2) > 0)
      own = attend_block_backward(dy, rows, ring.block(kv, source), whole, delta);
    if (step > 0) {
      shift_back.finish();
      std::swap(dkv, dkv_next);
    }
    if (own.q.defined()) {
      dq.add_(own.q);
      dkv[0].narrow(2, 0, count).add_(own.k);
      dkv[1].narrow(2, 0, count).add_(own.v);
    }
    shift_back.start(dkv, dkv_next);
    shift.finish();
    std::swap(kv, next);
  }
  shift_back.finish();
  const at::Tensor home = dkv_next.to(q.scalar_type());
  return {ring.padded(dq.to(q.scalar_type())), home[0], home[1]};
}

struct RingFunction : torch::autograd::Function<RingFunction> {
  static at::Tensor forward(AutogradContext* node, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const c10::intrusive_ptr<Ring>& ring) {
    Attended result = std::exchange(ring->known, {});
    if (!result.out.defined()) {
      result = run_forward(*ring, q, at::stack({k, v}));
      result.out = result.out.to(q.scalar_type());
      ops::keep_core({result.out, {result.lse}});
    }
    node->saved_data["ring"] = at::IValue::make_capsule(ring);
    node->save_for_backward({q, k, v, result.out, result.lse});
    return ring->padded(result.out);
  }

  static variable_list backward(AutogradContext* node, const variable_list& gradients) {
    const c10::intrusive_ptr<Ring> ring =
        c10::static_intrusive_pointer_cast<Ring>(node->saved_data["ring"].toCapsule());
    const variable_list saved = node->get_saved_variables();
    const AttendedGradients result = run_backward(
        *ring, gradients[0], saved[0], at::stack({saved[1], saved[2]}), {saved[3], saved[4]});
    return {result.q, result.k, result.v, {}};
  }
};

}  // namespace

at::Tensor ring_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const nn::Attending& how, comm::Communicator& group,
                          const RingOptions& options) {
  VT_CHECK(q.size(2) == k.size(2) && q.size(2) * group.size() >= how.tokens,
           "[ring] {} ranks must hold {} tokens in equal runs but hold {} queries and {} keys each",
           group.size(), how.tokens, q.size(2), k.size(2));
  auto ring = c10::make_intrusive<Ring>();
  ring->group = &group;
  ring->how = how;
  ring->options = options;
  ring->run = q.size(2);
  if (const ops::KeptCore* core = ops::taken_core()) ring->known = {core->out, core->more[0]};
  return RingFunction::apply(q, k, v, ring);
}

}  // namespace vitrail::parallel

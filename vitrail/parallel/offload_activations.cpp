#include "vitrail/parallel/offload_activations.h"

#include <algorithm>
#include <deque>
#include <utility>

#include <ATen/ops/empty_strided.h>

#include "vitrail/core/error.h"
#include "vitrail/parallel/pinned.h"

namespace vitrail::parallel {
namespace {

constexpr size_t kLeaving = 2;  // kept tensors whose device memory is held for the copy out
constexpr int kAhead = 2;       // copies back that are asked for before their turn
constexpr int64_t kAlign = 256;

/// Shape and place in the buffer of one tensor.
struct Piece {
  std::vector<int64_t> sizes, strides;
  at::TensorOptions options;
  int64_t offset = 0, bytes = 0;
};

/// One keep(). Leaving: on the device, a copy on its way to the host. Away: on the host. Coming: a copy on its way back.
struct Item {
  enum class Place { leaving, away, coming, gone };
  explicit Item(at::Device device) : left(device), back(device) {}
  Place place = Place::leaving;
  std::vector<Piece> pieces;
  std::vector<at::Tensor> tensors;  // on the device; empty while away
  std::unique_ptr<PinnedBuffer> buffer;
  Event left, back;
  std::weak_ptr<Item> before;  // what was kept before it: restored next
};

/// A tensor that lies in one run of memory, as it is; others made so.
at::Tensor in_one_run(const at::Tensor& tensor) {
  return tensor.is_non_overlapping_and_dense() ? tensor : tensor.contiguous();
}

}  // namespace

struct HostActivations::State {
  explicit State(at::Device on)
      : device(on), out(side_stream(on)), in(side_stream(on)), now(on), pool(on) {}

  std::shared_ptr<Item> take_over(std::vector<at::Tensor> tensors);
  void let_go(size_t most);
  void fetch(const std::shared_ptr<Item>& item);
  std::vector<at::Tensor> restore(const std::shared_ptr<Item>& item);
  void drop(const std::shared_ptr<Item>& item);

  at::Device device;
  void *out, *in;  // side streams
  Event now;       // of the compute stream
  PinnedPool pool;
  std::deque<std::shared_ptr<Item>> leaving;
  std::weak_ptr<Item> latest;
  Counts counts;
};

std::shared_ptr<Item> HostActivations::State::take_over(std::vector<at::Tensor> tensors) {
  auto item = std::make_shared<Item>(device);
  int64_t bytes = 0;
  for (at::Tensor& tensor : tensors) {
    tensor = in_one_run(tensor);
    item->pieces.push_back({tensor.sizes().vec(), tensor.strides().vec(), tensor.options(), bytes,
                            static_cast<int64_t>(tensor.nbytes())});
    bytes += (item->pieces.back().bytes + kAlign - 1) / kAlign * kAlign;
  }
  item->buffer = pool.take(bytes);
  now.record(current_stream(device));
  now.make_wait(out);
  item->buffer->last_use.make_wait(out);
  for (size_t t = 0; t < tensors.size(); ++t)
    copy_async(device, item->buffer->memory.data() + item->pieces[t].offset, tensors[t].data_ptr(),
               item->pieces[t].bytes, out);
  item->left.record(out);
  item->tensors = std::move(tensors);
  item->before = std::exchange(latest, item);
  leaving.push_back(item);
  ++counts.kept;
  let_go(kLeaving);
  return item;
}

/// The memory goes back to the compute stream's allocator, whose next user runs after the copy.
void HostActivations::State::let_go(size_t most) {
  while (leaving.size() > most) {
    Item& oldest = *leaving.front();
    oldest.left.make_wait(current_stream(device));
    oldest.tensors.clear();
    oldest.place = Item::Place::away;
    leaving.pop_front();
  }
}

void HostActivations::State::fetch(const std::shared_ptr<Item>& item) {
  if (item->place != Item::Place::away) return;
  for (const Piece& piece : item->pieces)
    item->tensors.push_back(at::empty_strided(piece.sizes, piece.strides, piece.options));
  // What used this memory before belongs to the compute stream.
  now.record(current_stream(device));
  now.make_wait(in);
  item->left.make_wait(in);
  for (size_t t = 0; t < item->tensors.size(); ++t)
    copy_async(device, item->tensors[t].data_ptr(),
               item->buffer->memory.data() + item->pieces[t].offset, item->pieces[t].bytes, in);
  item->back.record(in);
  item->place = Item::Place::coming;
}

std::vector<at::Tensor> HostActivations::State::restore(const std::shared_ptr<Item>& item) {
  VT_CHECK(item->place != Item::Place::gone,
           "[offload] kept tensors must be restored once but were asked for again");
  if (item->place == Item::Place::leaving) std::erase(leaving, item);
  if (item->place == Item::Place::coming) ++counts.ahead;
  fetch(item);
  std::shared_ptr<Item> next = item;
  for (int i = 0; i < kAhead && (next = next->before.lock()); ++i) fetch(next);
  const bool travelled = item->place == Item::Place::coming;
  if (travelled) {
    ++counts.travelled;
    item->back.make_wait(current_stream(device));
    item->buffer->last_use.record(in);
  } else {
    // Nobody writes to what is still being copied out, but its memory may be let go right after backward.
    item->left.make_wait(current_stream(device));
    item->buffer->last_use.record(out);
  }
  pool.give_back(std::move(item->buffer));
  item->place = Item::Place::gone;
  return std::exchange(item->tensors, {});
}

/// A pass without backward: copies under way still read or write the memory.
void HostActivations::State::drop(const std::shared_ptr<Item>& item) {
  if (item->place == Item::Place::gone) return;
  if (item->place == Item::Place::leaving) {
    std::erase(leaving, item);
    item->left.make_wait(current_stream(device));
  }
  const bool coming = item->place == Item::Place::coming;
  if (coming) item->back.make_wait(current_stream(device));
  item->buffer->last_use.record(coming ? in : out);
  pool.give_back(std::move(item->buffer));
  item->tensors.clear();
  item->place = Item::Place::gone;
}

namespace {

class Stored : public nn::StoredTensors {
 public:
  Stored(std::shared_ptr<HostActivations::State> state, std::shared_ptr<Item> item)
      : state_(std::move(state)), item_(std::move(item)) {}
  ~Stored() override { state_->drop(item_); }
  std::vector<at::Tensor> restore() override { return state_->restore(item_); }

 private:
  std::shared_ptr<HostActivations::State> state_;
  std::shared_ptr<Item> item_;
};

}  // namespace

HostActivations::HostActivations(at::Device device) : state_(std::make_shared<State>(device)) {}
HostActivations::~HostActivations() = default;

std::unique_ptr<nn::StoredTensors> HostActivations::keep(std::vector<at::Tensor> tensors) {
  return std::make_unique<Stored>(state_, state_->take_over(std::move(tensors)));
}

int64_t HostActivations::host_bytes() const { return state_->pool.bytes(); }
HostActivations::Counts HostActivations::counts() const { return state_->counts; }

ActivationOffload::ActivationOffload(models::Model& model, const config::Train& train,
                                     at::Device device)
    : train_(train) {
  if (!train.offload_activations || device.is_cpu()) return;
  store_ = std::make_unique<HostActivations>(device);
  stacks_ = model.stacks();
  nn::EngineOptions with_store = nn::engine_options(train_);
  with_store.store = store_.get();
  for (nn::Stack* stack : stacks_) stack->set_engine(nn::block_engine(train_, with_store));
}

ActivationOffload::~ActivationOffload() {
  for (nn::Stack* stack : stacks_) stack->set_engine(nn::block_engine(train_, nn::engine_options(train_)));
}

}  // namespace vitrail::parallel

#include "vitrail/parallel/pipeline_links.h"

#include <ATen/ops/empty.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/dtype.h"
#include "vitrail/parallel/timeline.h"

namespace vitrail::parallel {
namespace {

/// Gradients that may be under way before the oldest must have gone; their memory waits so long.
constexpr size_t kSentBack = 2;

/// Links of one color have no rank in common, so that they can share a communicator.
int color_of(int link, int links, int ranks) {
  return links == ranks && ranks % 2 == 1 && link == ranks - 1 ? 2 : link % 2;
}

}  // namespace

PipelineLinks::PipelineLinks(Groups& groups, bool ring)
    : groups_(groups),
      ranks_(groups.mesh().size(comm::Axis::pipeline)),
      rank_(groups.mesh().coordinate(comm::Axis::pipeline)) {
  groups_.along({comm::Axis::pipeline});
  make_queues(ring);
}

void PipelineLinks::make_queues(bool ring) {
  const int links = ring ? ranks_ : ranks_ - 1;
  const int next = (rank_ + 1) % ranks_, before = (rank_ + ranks_ - 1) % ranks_;
  for (int color = 0; color < 3; ++color) {
    bool used = false;
    for (int link = 0; link < links; ++link) used |= color_of(link, links, ranks_) == color;
    if (!used) continue;
    const bool out = rank_ < links && color_of(rank_, links, ranks_) == color;
    const bool in = before < links && color_of(before, links, ranks_) == color;
    const at::Device device = groups_.device();
    comm::Communicator& on = groups_.along({comm::Axis::pipeline}, 1 + 2 * color);
    comm::Communicator& back = groups_.along({comm::Axis::pipeline}, 2 + 2 * color);
    if (out) on_.emplace(on, device, next).connect(/*sends=*/true);
    if (in) from_before_.emplace(on, device, before).connect(/*sends=*/false);
    if (in) back_.emplace(back, device, before).connect(/*sends=*/true);
    if (out) from_behind_.emplace(back, device, next).connect(/*sends=*/false);
  }
}

comm::Communicator& PipelineLinks::host_beside(TransferQueue& queue) {
  return groups_.device().is_cpu() ? queue.group() : groups_.mesh().along({comm::Axis::pipeline});
}

Transfer PipelineLinks::send_on(const std::vector<at::Tensor>& tensors, const std::string& key) {
  if (told_.insert(key).second)
    telling_.push_back(send_shapes(host_beside(*on_), on_->peer(), shapes_of(tensors)));
  return on_->send(tensors);
}

Transfer PipelineLinks::receive(const std::string& key) {
  auto known = arriving_.find(key);
  if (known == arriving_.end())
    known = arriving_.emplace(key, receive_shapes(host_beside(*from_before_), from_before_->peer()))
                .first;
  return from_before_->receive(known->second);
}

void PipelineLinks::send_back(const std::vector<at::Tensor>& gradients) {
  sent_back_.push_back(back_->send(gradients));
  if (sent_back_.size() <= kSentBack) return;
  sent_back_.front().done();
  sent_back_.pop_front();
}

Transfer PipelineLinks::receive_back(const Shapes& shapes) { return from_behind_->receive(shapes); }

void PipelineLinks::finish() {
  for (Transfer& transfer : telling_) transfer.done();
  for (Transfer& transfer : sent_back_) transfer.done();
  telling_.clear(), sent_back_.clear();
}

void PipelineLinks::broadcast(std::vector<at::Tensor>& tensors, const std::string& key, int root) {
  comm::Communicator& group = groups_.along({comm::Axis::pipeline});
  auto known = shared_.find(key);
  if (known == shared_.end()) {
    Shapes shapes = shapes_of(tensors);
    broadcast_shapes(groups_.mesh().along({comm::Axis::pipeline}), root, shapes);
    known = shared_.emplace(key, shapes).first;
  }
  const TimedScope timed(groups_.device(), Lane::blocking, current_stream(groups_.device()),
                         "share with stages");
  tensors.resize(known->second.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorShape& shape = known->second[i];
    if (shape.dtype == at::ScalarType::Undefined) continue;
    tensors[i] = rank_ == root
                     ? tensors[i].detach().contiguous()
                     : at::empty(shape.sides,
                                 at::TensorOptions().dtype(shape.dtype).device(groups_.device()));
    group
        .broadcast({tensors[i].data_ptr(), tensors[i].numel(), ops::dtype_of(shape.dtype)}, root,
                   current_stream(groups_.device()))
        .wait();
  }
}

}  // namespace vitrail::parallel

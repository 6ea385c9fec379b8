#include "vitrail/train/bench_ceiling.h"

#include <algorithm>
#include <functional>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <torch/csrc/autograd/autograd.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/attention.h"
#include "vitrail/train/bench_optimizer.h"
#include "vitrail/train/bench_timer.h"

namespace vitrail::train {
namespace {

class RecordingEngine : public nn::BlockEngine {
 public:
  RecordingEngine(std::unique_ptr<nn::BlockEngine> engine,
                  std::shared_ptr<std::vector<int64_t>> shape)
      : engine_(std::move(engine)), shape_(std::move(shape)) {}
  std::string name() const override { return engine_->name(); }
  at::Tensor forward(nn::Block& block, const at::Tensor& x_BLD, const nn::Context& context, int i,
                     nn::Saved& keep) override {
    *shape_ = x_BLD.sizes().vec();
    return engine_->forward(block, x_BLD, context, i, keep);
  }
  at::Tensor backward(nn::Block& block, const at::Tensor& dy_BLD, const nn::Context& context, int i,
                      nn::Saved& kept) override {
    return engine_->backward(block, dy_BLD, context, i, kept);
  }

 private:
  std::unique_ptr<nn::BlockEngine> engine_;
  std::shared_ptr<std::vector<int64_t>> shape_;
};

/// Forward, input gradient and weight gradient of y = x W^T.
struct Product {
  at::Tensor x, w, y, dy, dx, dw;

  Product(int64_t rows, int64_t in, int64_t out, const at::TensorOptions& options)
      : x(at::randn({rows, in}, options)),
        w(at::randn({out, in}, options)),
        y(at::empty({rows, out}, options)),
        dy(at::randn({rows, out}, options)),
        dx(at::empty({rows, in}, options)),
        dw(at::empty({out, in}, options)) {}

  void run() {
    at::mm_out(y, x, w.t());
    at::mm_out(dx, dy, w);
    at::mm_out(dw, dy.t(), x);
  }
};

using Core = std::function<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&)>;

struct AttentionPass {
  Core core;
  at::Tensor q, k, v, dy;
  void run() const {
    const at::AutoGradMode grad_mode(true);
    const at::Tensor y = core(q, k, v);
    torch::autograd::grad({y}, {q, k, v}, {dy});
  }
};

at::Tensor cudnn_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  return std::get<0>(at::_scaled_dot_product_cudnn_attention(q, k, v, /*attn_bias=*/{},
                                                             /*compute_log_sumexp=*/true));
}

/// The faster of the library's choice and cuDNN, at the trunk's shape.
AttentionPass fastest_attention(const TrunkShape& trunk, const at::TensorOptions& options) {
  // Laid out as the packed projection gives them: [B, L, N, E] seen as [B, N, L, E].
  const auto random = [&] {
    return at::randn({trunk.batch, trunk.tokens, trunk.num_heads, trunk.width / trunk.num_heads},
                     options)
        .transpose(1, 2);
  };
  AttentionPass pass{[](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
                       return ops::sdpa(q, k, v);
                     },
                     random().detach().set_requires_grad(true),
                     random().detach().set_requires_grad(true),
                     random().detach().set_requires_grad(true), random()};
  if (!options.device().is_cuda() || options.dtype() == at::kFloat) return pass;
  AttentionPass other = pass;
  other.core = cudnn_attention;
  try {
    const double own = time_hot(options.device(), 0.1, [&] { pass.run(); });
    return time_hot(options.device(), 0.1, [&] { other.run(); }) < own ? other : pass;
  } catch (const c10::Error&) {
    return pass;  // cuDNN refuses some head widths
  }
}

/// One block's products and attention, looped.
double block_ms(const TrunkShape& trunk, const at::TensorOptions& options, double seconds) {
  const at::NoGradGuard no_grad;
  const int64_t rows = trunk.batch * trunk.tokens;
  std::vector<Product> products;
  products.emplace_back(rows, trunk.width, 3 * trunk.width, options);
  products.emplace_back(rows, trunk.width, trunk.width, options);
  products.emplace_back(rows, trunk.width, (trunk.swiglu ? 2 : 1) * trunk.mlp_hidden, options);
  products.emplace_back(rows, trunk.mlp_hidden, trunk.width, options);
  const AttentionPass attention = fastest_attention(trunk, options);
  return time_hot(options.device(), seconds, [&] {
    for (Product& product : products) product.run();
    attention.run();
  });
}

}  // namespace

ShapeRecorder::ShapeRecorder(models::Model& model,
                             const std::function<std::unique_ptr<nn::BlockEngine>()>& make_engine)
    : stacks_(model.stacks()) {
  for (nn::Stack* stack : stacks_) {
    inputs_.push_back(std::make_shared<std::vector<int64_t>>());
    stack->set_engine(std::make_unique<RecordingEngine>(make_engine(), inputs_.back()));
  }
}

std::vector<TrunkShape> ShapeRecorder::shapes() const {
  std::vector<TrunkShape> all;
  for (size_t s = 0; s < stacks_.size(); ++s) {
    const std::vector<int64_t>& input = *inputs_[s];
    if (input.empty()) continue;  // a trunk of depth 0
    const nn::BlockOptions& block = stacks_[s]->block(0).options();
    all.push_back({input[0], input[1], input[2], block.num_heads, block.mlp_hidden,
                   stacks_[s]->depth(), block.mlp == nn::MlpKind::swiglu});
  }
  return all;
}

double kernel_ceiling_ms(const std::vector<TrunkShape>& trunks, int64_t micro_batches,
                         at::Device device, at::ScalarType dtype, double optimizer_bytes,
                         double seconds) {
  const auto options = at::TensorOptions().device(device).dtype(dtype);
  double total = 0;
  for (const TrunkShape& trunk : trunks)
    total += block_ms(trunk, options, seconds) * static_cast<double>(trunk.depth * micro_batches);
  constexpr double kMostCopied = 4e9;  // enough to be out of every cache
  const double rate =
      copy_bandwidth(static_cast<int64_t>(std::min(optimizer_bytes, kMostCopied)), device);
  return total + optimizer_bytes / rate * 1e-6;
}

}  // namespace vitrail::train

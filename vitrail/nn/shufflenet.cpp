#include "vitrail/nn/shufflenet.h"

#include <map>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/stack.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"

namespace vitrail::nn {
namespace {

constexpr double kBatchNormEps = 1e-5;
constexpr size_t kMostLines = 8;  // of a message

struct Stage {
  int64_t channels, units;
};
constexpr Stage kStages[] = {{48, 4}, {96, 8}, {192, 4}};
constexpr int64_t kStemChannels = 24;

/// Channels of a pixel side by side: most of the work is in kernels of one pixel.
constexpr at::MemoryFormat kLayout = at::MemoryFormat::ChannelsLast;

}  // namespace

/// Takes convolutions with their norms out of the tensors of a file and collects what is wrong with them.
class ShuffleNet::Reader {
 public:
  Reader(const std::vector<NamedTensor>& tensors, std::string source) : source_(std::move(source)) {
    for (const NamedTensor& entry : tensors) tensors_.emplace(entry.name, entry.tensor);
  }

  /// "PREFIX.i" is the convolution, "PREFIX.(i+1)" its norm.
  Convolution convolution(const std::string& prefix, int i, const std::vector<int64_t>& shape,
                          int64_t stride = 1, bool relu = true) {
    const auto name = [&](int place, const char* what) {
      return fmt::format("{}.{}.{}", prefix, place, what);
    };
    const at::Tensor weight = take(name(i, "weight"), shape);
    const at::Tensor gamma = take(name(i + 1, "weight"), {shape[0]});
    const at::Tensor beta = take(name(i + 1, "bias"), {shape[0]});
    const at::Tensor mean = take(name(i + 1, "running_mean"), {shape[0]});
    const at::Tensor variance = take(name(i + 1, "running_var"), {shape[0]});
    if (!problems_.empty()) return {};
    const at::Tensor scale = gamma * at::rsqrt(variance + kBatchNormEps);
    return {(weight * scale.view({-1, 1, 1, 1})).to(at::kFloat).contiguous(kLayout),
            (beta - mean * scale).to(at::kFloat), stride,
            /*groups=*/shape[1] == 1 ? shape[0] : 1, relu};
  }

  Unit unit(const std::string& prefix, int64_t in, int64_t out, int64_t stride) {
    const std::string left = prefix + ".branch1", right = prefix + ".branch2";
    const int64_t half = out / 2;
    Unit unit;
    if (stride > 1) {
      unit.left.push_back(convolution(left, 0, {in, 1, 3, 3}, stride, /*relu=*/false));
      unit.left.push_back(convolution(left, 2, {half, in, 1, 1}));
    }
    unit.right.push_back(convolution(right, 0, {half, stride > 1 ? in : half, 1, 1}));
    unit.right.push_back(convolution(right, 3, {half, 1, 3, 3}, stride, /*relu=*/false));
    unit.right.push_back(convolution(right, 5, {half, half, 1, 1}));
    return unit;
  }

  void check() const {
    if (problems_.empty()) return;
    std::vector<std::string> lines(problems_.begin(),
                                   problems_.begin() + std::min(problems_.size(), kMostLines));
    if (problems_.size() > kMostLines)
      lines.push_back(fmt::format("[shufflenet] {}: and {} tensors more", source_,
                                  problems_.size() - kMostLines));
    core::fail<core::CheckpointError>("{}", fmt::join(lines, "\n"));
  }

 private:
  at::Tensor take(const std::string& name, const std::vector<int64_t>& shape) {
    const auto found = tensors_.find(name);
    const bool missing = found == tensors_.end();
    if (!missing && found->second.sizes() == at::IntArrayRef(shape))
      return found->second.to(at::kCPU, at::kDouble);
    problems_.push_back(fmt::format(
        "[shufflenet] {}: tensor '{}' must be [{}] but is {}; give the weights of torchvision's "
        "shufflenet_v2_x0_5",
        source_, name, fmt::join(shape, ", "),
        missing ? "missing" : fmt::format("[{}]", fmt::join(found->second.sizes(), ", "))));
    return {};
  }

  std::string source_;
  std::map<std::string, at::Tensor> tensors_;
  std::vector<std::string> problems_;
};

ShuffleNet::ShuffleNet(const std::vector<NamedTensor>& tensors, const std::string& source) {
  const at::NoGradGuard no_grad;
  Reader reader(tensors, source);
  first_ = reader.convolution("conv1", 0, {kStemChannels, 3, 3, 3}, 2);
  int64_t channels = kStemChannels;
  for (size_t stage = 0; stage < std::size(kStages); ++stage)
    for (int64_t i = 0; i < kStages[stage].units; ++i) {
      units_.push_back(reader.unit(fmt::format("stage{}.{}", stage + 2, i), channels,
                                   kStages[stage].channels, i == 0 ? 2 : 1));
      channels = kStages[stage].channels;
    }
  last_ = reader.convolution("conv5", 0, {kFeatures, channels, 1, 1});
  reader.check();
}

at::Tensor ShuffleNet::run(const Convolution& convolution, const at::Tensor& x) {
  const int64_t stride = convolution.stride, padding = convolution.weight.size(2) / 2;
  const at::Tensor y =
      at::convolution(x, convolution.weight, convolution.bias, {stride, stride}, {padding, padding},
                      {1, 1}, /*transposed=*/false, {0, 0}, convolution.groups);
  return convolution.relu ? y.relu_() : y;
}

at::Tensor ShuffleNet::run(const std::vector<Convolution>& branch, at::Tensor x) {
  for (const Convolution& convolution : branch) x = run(convolution, x);
  return x;
}

at::Tensor ShuffleNet::run(const Unit& unit, const at::Tensor& x) {
  const int64_t half = x.size(1) / 2;
  const bool splits = unit.left.empty();
  const at::Tensor left = splits ? x.slice(1, 0, half) : run(unit.left, x);
  const at::Tensor right = run(unit.right, splits ? x.slice(1, half).contiguous(kLayout) : x);
  // Joining and the shuffle of two groups in one: channels of both branches take turns.
  const auto channels_last = [](const at::Tensor& y) { return y.permute({0, 2, 3, 1}); };
  return at::stack({channels_last(left), channels_last(right)}, 4).flatten(3).permute({0, 3, 1, 2});
}

void ShuffleNet::move_to(at::Device device) const {
  if (first_.weight.device() == device) return;
  const auto move = [&](Convolution& convolution) {
    convolution.weight = convolution.weight.to(device);
    convolution.bias = convolution.bias.to(device);
  };
  move(first_), move(last_);
  for (Unit& unit : units_)
    for (std::vector<Convolution>* branch : {&unit.left, &unit.right})
      for (Convolution& convolution : *branch) move(convolution);
}

at::Tensor ShuffleNet::features(const at::Tensor& image) const {
  VT_CHECK(image.defined() && image.dim() == 4 && image.size(1) == 3,
           "[shufflenet] images must be [B, 3, H, W] but got [{}]",
           image.defined() ? fmt::format("{}", fmt::join(image.sizes(), ", ")) : "");
  const at::NoGradGuard no_grad;
  move_to(image.device());
  at::Tensor x = run(first_, image.to(at::kFloat).contiguous(kLayout));
  x = at::max_pool2d(x, {3, 3}, {2, 2}, {1, 1});
  for (const Unit& unit : units_) x = run(unit, x);
  return run(last_, x);
}

}  // namespace vitrail::nn

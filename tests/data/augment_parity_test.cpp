// The steps that come from torchvision against torchvision itself, with the parameters that the plan
// drew.

#include <fstream>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "augment_samples.h"
#include "tests/io/python.h"

namespace vitrail::data {
namespace {

using kernels::AugmentOp;
using test::Augmented;
using test::header_of;
using test::model_of;
using test::slots_of;

constexpr int64_t kSamples = 60;
const std::vector<int64_t> kSides{24, 32};

config::Source unit_source(const std::string& step) {
  config::Source source;
  source.augment = {step};
  source.mean = {0};
  source.std = {1};
  return source;
}

template <class T>
void write_array(const std::string& path, const T* values, size_t n) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(values), static_cast<std::streamsize>(n * sizeof(T)));
}

/// Loads what write_case() wrote; apply(name, magnitude, image) is torchvision's operation, those on
/// bytes on the rounded image. compare() wants `most` of the values within `allowed`.
/// case(name) loads what Peer::add() wrote; apply(name, magnitude, image) is torchvision's operation, those
/// on bytes on the rounded image. compare() wants `most` of the values within `allowed`.
constexpr const char* kScript = R"(
import json
import math
import numpy as np
import torch
import torchvision.transforms.functional as F
from torchvision.transforms import InterpolationMode, autoaugment as A

N, H, W = 60, 24, 32
BYTES = {"Posterize", "Solarize", "AutoContrast", "Equalize"}


def case(number):
    image = np.fromfile(f"image{number}.bin", np.uint8).reshape(N, H, W, 3).transpose(0, 3, 1, 2)
    result = torch.from_numpy(np.fromfile(f"result{number}.bin", np.float32).reshape(N, 3, H, W))
    return torch.from_numpy(image.copy()), result, [json.loads(line) for line in open(f"drawn{number}.txt")]


def apply(name, magnitude, x):
    if name not in BYTES:
        return A._apply_op(x, name, magnitude, InterpolationMode.NEAREST, None)
    return A._apply_op((x * 255).round().to(torch.uint8), name, magnitude, InterpolationMode.NEAREST, None) / 255


def compare(expected, allowed, most, what):
    wrong = (result - torch.stack(expected)).abs()
    good = (wrong <= allowed).double().mean().item()
    changed = (result - image / 255).abs().gt(1e-6).double().mean().item()
    print(f"{what}: {good:.5f} of the values within {allowed:.0e} (at least {most}), largest {wrong.max():.2e},"
          f" changed {changed:.3f}")
    assert good >= most and changed > 0.2, what
)";

/// Cases that one run of Python looks at.
class Peer {
 public:
  /// `script` ends in compare(); it sees image, result and drawn.
  void add(const std::string& drawn, const Augmented& made, const std::string& script) {
    const std::string number = std::to_string(cases_++);
    std::vector<uint8_t> pixels;
    for (const Decoded& file : made.files)
      pixels.insert(pixels.end(), file.image.values.begin(), file.image.values.end());
    write_array(folder_.path("image" + number + ".bin"), pixels.data(), pixels.size());
    const at::Tensor result = made.batch.image.contiguous();
    write_array(folder_.path("result" + number + ".bin"), result.const_data_ptr<float>(),
                static_cast<size_t>(result.numel()));
    std::ofstream(folder_.path("drawn" + number + ".txt")) << drawn;
    script_ += "\nimage, result, drawn = case(" + number + ")" + script;
  }

  void expect_all() const {
    const std::string said =
        testing::run_python(folder_.path(), script_ + "\nprint('all agree')\n");
    std::cout << said;
    EXPECT_THAT(said, ::testing::HasSubstr("all agree"));
  }

 private:
  const test::TemporaryFolder folder_;
  std::string script_ = kScript;
  int cases_ = 0;
};

/// Nearest pixels at a place halfway between two, and histograms of values that are rounded the
/// other way, may differ: hence `most`.
void add_rand_augment(Peer& peer) {
  const config::Model model = model_of(kSides, 3, 10);
  for (const std::string step : {"randaugment:2:9", "randaugment:1:30", "trivialaugment"}) {
    const bool is_rand = step != "trivialaugment";
    const Augmented made(unit_source(step), model, kSamples);
    std::string drawn;
    for (int64_t index = 0; index < kSamples; ++index) {
      PlanDraws draws(core::Stream::augment, 0, {1, 0, index});
      std::vector<std::string> ops;
      for (int i = 0; i < (step == "randaugment:2:9" ? 2 : 1); ++i) {
        const int64_t op = draws.below(14), sign = draws.below(2);
        const int64_t bin = is_rand ? std::stoi(step.substr(14)) : draws.below(31);
        ops.push_back(fmt::format("[{}, {}, {}]", op, sign, bin));
      }
      drawn += fmt::format("[{}]\n", fmt::join(ops, ", "));
    }
    const std::string space = is_rand ? "A.RandAugment()._augmentation_space(31, (H, W))"
                                      : "A.TrivialAugmentWide()._augmentation_space(31)";
    peer.add(drawn, made,
             fmt::format(R"(
space = {}
expected = []
for x, ops in zip(image / 255, drawn):
    for op, sign, bin in ops:
        name = list(space)[op]
        magnitudes, signed = space[name]
        magnitude = float(magnitudes[bin]) if magnitudes.ndim > 0 else 0.0
        x = apply(name, -magnitude if signed and sign else magnitude, x)
    expected.append(x)
compare(expected, 2e-5, 0.995, "{}")
)",
                         space, step));
  }
}

void add_auto_augment(Peer& peer) {
  for (const std::string name : {"cifar10", "imagenet"}) {
    const std::string step = "autoaugment:" + name;
    const Augmented made(unit_source(step), model_of(kSides, 3, 10), kSamples);
    std::string drawn;
    for (int64_t index = 0; index < kSamples; ++index) {
      PlanDraws draws(core::Stream::augment, 0, {1, 0, index});
      const int64_t policy = draws.below(25);
      const double first = draws.uniform();
      const int64_t first_sign = draws.below(2);
      const double second = draws.uniform();
      const int64_t second_sign = draws.below(2);
      drawn +=
          fmt::format("[{}, [{}, {}], [{}, {}]]\n", policy, first, second, first_sign, second_sign);
    }
    peer.add(drawn, made,
             fmt::format(R"(
peer = A.AutoAugment(A.AutoAugmentPolicy("{0}"))
space = peer._augmentation_space(10, (H, W))
expected = []
for x, (policy, probabilities, signs) in zip(image / 255, drawn):
    for i, (name, p, bin) in enumerate(peer.policies[policy]):
        if probabilities[i] >= p: continue
        magnitudes, signed = space[name]
        magnitude = float(magnitudes[bin].item()) if bin is not None else 0.0
        x = apply(name, -magnitude if signed and signs[i] == 0 else magnitude, x)
    expected.append(x)
compare(expected, 2e-5, 0.995, "autoaugment {0}")
)",
                         name));
  }
}

void add_color_jitter(Peer& peer) {
  const Augmented made(unit_source("color_jitter:0.5:0.5:0.5:0.3"), model_of(kSides, 3, 10),
                       kSamples);
  std::string drawn;
  std::map<std::string, int> first_ops;
  for (int64_t b = 0; b < kSamples; ++b) {
    std::vector<std::string> ops;
    for (int s = 0; s < header_of(made, b).steps; ++s) {
      const kernels::AugmentSlot& slot = slots_of(made, b)[s];
      const char* name = slot.op == AugmentOp::brightness   ? "adjust_brightness"
                         : slot.op == AugmentOp::contrast   ? "adjust_contrast"
                         : slot.op == AugmentOp::saturation ? "adjust_saturation"
                                                            : "adjust_hue";
      if (s == 0) ++first_ops[name];
      ops.push_back(fmt::format("[\"{}\", {}]", name, slot.value[0]));
    }
    EXPECT_EQ(ops.size(), 4u);
    drawn += fmt::format("[{}]\n", fmt::join(ops, ", "));
  }
  EXPECT_EQ(first_ops.size(), 4u) << "the order must be drawn";
  // 1e-4: hues of nearly grey pixels turn a rounding into a part of a circle.
  peer.add(drawn, made, R"(
expected = []
for x, ops in zip(image / 255, drawn):
    for name, amount in ops:
        x = getattr(F, name)(x, amount)
    expected.append(x)
compare(expected, 1e-4, 0.9995, "color_jitter")
)");
}

void add_affine(Peer& peer) {
  const Augmented made(unit_source("affine:40:0.2:0.7:1.4:15"), model_of(kSides, 3, 10), kSamples);
  std::string drawn;
  for (int64_t index = 0; index < kSamples; ++index) {
    PlanDraws draws(core::Stream::augment, 0, {1, 0, index});
    const double degrees = draws.uniform(-40, 40);
    const double x = std::nearbyint(draws.uniform(-0.2 * 32, 0.2 * 32));
    const double y = std::nearbyint(draws.uniform(-0.2 * 24, 0.2 * 24));
    const double scale = draws.uniform(0.7, 1.4), shear = draws.uniform(-15, 15);
    drawn += fmt::format("[{}, {}, {}, {}, {}]\n", degrees, x, y, scale, shear);
  }
  // 2e-4: torchvision goes through places in [-1, 1], whose rounding is 32 / 2 times larger here.
  peer.add(drawn, made, R"(
expected = [F.affine(x, angle, [int(dx), int(dy)], scale, [shear, 0.0], InterpolationMode.BILINEAR)
            for x, (angle, dx, dy, scale, shear) in zip(image / 255, drawn)]
compare(expected, 2e-4, 0.9999, "affine")
)");
}

void add_blur_and_solarize(Peer& peer) {
  const Augmented blurred(unit_source("blur:2"), model_of(kSides, 3, 10), kSamples);
  std::string drawn;
  for (int64_t index = 0; index < kSamples; ++index) {
    PlanDraws draws(core::Stream::augment, 0, {1, 0, index});
    drawn += fmt::format("{}\n", draws.uniform(0.1, 2));
  }
  peer.add(drawn, blurred, R"(
expected = [F.gaussian_blur(x, 2 * math.ceil(3 * sigma) + 1, sigma) for x, sigma in zip(image / 255, drawn)]
compare(expected, 2e-6, 1, "blur")
)");
  const Augmented solarized(unit_source("solarize:1:0.3"), model_of(kSides, 3, 10), kSamples);
  peer.add(drawn, solarized, R"(
compare([F.solarize(x, 0.3 * 255) / 255 for x in image], 1e-7, 1, "solarize")
)");
}

TEST(AugmentParity, StepsOfTorchvisionAreTorchvisions) {
  Peer peer;
  add_rand_augment(peer);
  add_auto_augment(peer);
  add_color_jitter(peer);
  add_affine(peer);
  add_blur_and_solarize(peer);
  peer.expect_all();
}

}  // namespace
}  // namespace vitrail::data

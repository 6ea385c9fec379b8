#include "vitrail/parallel/unit.h"

#include <cstdio>
#include <map>
#include <set>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include "tests/parallel/tiny.h"

namespace vitrail::parallel {
namespace {

using testing::samples;
using testing::tiny_mae;
using testing::tiny_vit;

nn::Draws draws_for(const data::Batch& batch) { return {1, 0, batch.sample_ids, true}; }

TEST(UnitSet, OrdersUnitsAsBackwardCompletesThem) {
  const auto vit = models::make_model(tiny_vit(), 1);
  UnitSet units(*vit, at::kCPU, at::kFloat);
  EXPECT_EQ(units.units().front().stack, nullptr);  // the head
  EXPECT_EQ(units.units().back().stack, nullptr);   // the embedding
  EXPECT_EQ(units.units()[1].block, 3);
  EXPECT_EQ(units.units()[4].block, 0);

  const auto mae = models::make_model(tiny_mae(), 1);
  UnitSet two(*mae, at::kCPU, at::kFloat);
  std::vector<nn::Stack*> order;
  for (const Unit& unit : two.units())
    if (unit.stack && (order.empty() || order.back() != unit.stack)) order.push_back(unit.stack);
  ASSERT_EQ(order.size(), 2u);
  EXPECT_EQ(order[0], mae->stacks()[1]);  // the decoder first
  EXPECT_EQ(order[1], mae->stacks()[0]);
}

TEST(UnitSet, PlacesEveryParameterOnceAlignedAndWithoutOverlap) {
  const auto model = models::make_model(tiny_mae(), 1);
  UnitSet units(*model, at::kCPU, at::kFloat);
  std::set<std::string> names;
  int64_t end = 0;
  units.for_each_slot([&](const ParameterSlot& slot) {
    EXPECT_TRUE(names.insert(slot.name).second) << slot.name;
    EXPECT_EQ(slot.offset * 2 % 256, 0) << slot.name;  // bytes in bf16
    EXPECT_GE(slot.offset, end) << slot.name;
    end = slot.offset + slot.count;
  });
  EXPECT_EQ(names.size(), model->named_parameters().size());
  EXPECT_EQ(units.parameter_count(), model->parameter_count());
  EXPECT_LE(end, units.count());
}

TEST(UnitSet, ParametersKeepTheirValuesAndBecomeLeafViews) {
  const auto model = models::make_model(tiny_vit(), 1);
  std::map<std::string, at::Tensor> before;
  for (const auto& [name, tensor] : model->named_parameters())
    before[name] = tensor.detach().clone();
  UnitSet units(*model, at::kCPU, at::kFloat);
  std::map<std::string, at::Tensor> now;
  for (const auto& [name, tensor] : model->named_parameters()) now[name] = tensor;
  units.for_each_slot([&](const ParameterSlot& slot) {
    const at::Tensor& parameter = now.at(slot.name);
    EXPECT_TRUE(parameter.equal(before.at(slot.name))) << slot.name;
    EXPECT_TRUE(parameter.is_leaf() && parameter.requires_grad()) << slot.name;
    EXPECT_EQ(parameter.data_ptr(), UnitSet::view(units.weights(), slot).data_ptr()) << slot.name;
    EXPECT_EQ(parameter.grad().data_ptr(), UnitSet::view(units.gradient(), slot).data_ptr())
        << slot.name;
  });
}

TEST(UnitSet, GradientsAreThoseOfTheModelWithoutUnits) {
  for (const config::Model& options : {tiny_vit(), tiny_mae()}) {
    const auto plain = models::make_model(options, 1), flat = models::make_model(options, 1);
    UnitSet units(*flat, at::kCPU, at::kFloat);
    const data::Batch batch = samples(0, 4);
    plain->forward(batch, draws_for(batch)).loss.backward();
    for (int pass = 0; pass < 2; ++pass) {  // the views must survive a step
      units.zero_gradients();
      flat->forward(batch, draws_for(batch)).loss.backward();
      std::map<std::string, at::Tensor> expected;
      for (const auto& [name, tensor] : plain->named_parameters()) expected[name] = tensor.grad();
      units.for_each_slot([&](const ParameterSlot& slot) {
        const at::Tensor gradient = UnitSet::view(units.gradient(), slot);
        if (expected.at(slot.name).defined())
          EXPECT_TRUE(gradient.equal(expected.at(slot.name))) << slot.name;
        else
          EXPECT_EQ(testing::largest(gradient), 0.0) << slot.name;
      });
    }
  }
}

TEST(UnitSet, GapsStayZero) {
  const auto model = models::make_model(tiny_vit(), 1);
  UnitSet units(*model, at::kCPU, at::kBFloat16);
  const data::Batch batch = samples(0, 4);
  model->forward(batch, draws_for(batch)).loss.backward();
  const at::NoGradGuard no_grad;
  for (const at::Tensor& arena : {units.master(), units.gradient(), units.weights()}) {
    at::Tensor rest = arena.clone();
    units.for_each_slot([&](const ParameterSlot& slot) { UnitSet::view(rest, slot).zero_(); });
    EXPECT_EQ(testing::largest(rest), 0.0);
  }
}

TEST(UnitSet, Bf16ParametersAddTheirGradientsInFp32) {
  const auto model = models::make_model(tiny_vit(), 1);
  UnitSet units(*model, at::kCPU, at::kBFloat16);
  std::map<std::string, at::Tensor> parameters;
  for (const auto& [name, tensor] : model->named_parameters()) parameters[name] = tensor;
  const data::Batch batch = samples(0, 4), others = samples(4, 4);
  std::vector<at::Tensor> alone;
  for (const data::Batch* one : {&batch, &others}) {
    units.zero_gradients();
    model->forward(*one, draws_for(*one)).loss.backward();
    alone.push_back(units.gradient().clone());
  }
  EXPECT_GT(testing::largest(alone[0]), 0.0);
  // A pass gives what fits bf16; two passes add without rounding to that.
  EXPECT_TRUE(alone[0].equal(alone[0].to(at::kBFloat16).to(at::kFloat)));
  model->forward(batch, draws_for(batch)).loss.backward();
  EXPECT_TRUE(units.gradient().equal(alone[0] + alone[1]));
  EXPECT_FALSE(units.gradient().equal(units.gradient().to(at::kBFloat16).to(at::kFloat)));
  units.for_each_slot([&](const ParameterSlot& slot) {
    const at::Tensor& parameter = parameters.at(slot.name);
    EXPECT_EQ(parameter.scalar_type(), at::kBFloat16) << slot.name;
    EXPECT_EQ(parameter.grad().scalar_type(), at::kFloat) << slot.name;
    EXPECT_EQ(parameter.grad().data_ptr(), UnitSet::view(units.gradient(), slot).data_ptr())
        << slot.name;
  });
}

TEST(UnitSet, PublishingRoundsTheMasterWeights) {
  const auto model = models::make_model(tiny_vit(), 1);
  UnitSet units(*model, at::kCPU, at::kBFloat16);
  const at::NoGradGuard no_grad;
  units.master().mul_(1.7);
  units.publish_master();
  EXPECT_TRUE(units.weights().equal(units.master().to(at::kBFloat16)));
}

TEST(UnitSet, TheMaskMarksWhatDecays) {
  const auto model = models::make_model(tiny_vit(), 1);
  UnitSet units(*model, at::kCPU, at::kFloat);
  EXPECT_EQ(units.decay_mask().numel() * kAlignment, units.kept_count());
  units.for_each_slot([&](const ParameterSlot& slot) {
    const at::Tensor mask =
        UnitSet::flags_of(units.decay_mask(), {&slot, 0, slot.offset, slot.count});
    EXPECT_EQ(mask.min().item().toInt(), slot.decay ? 1 : 0) << slot.name;
    EXPECT_EQ(mask.max().item().toInt(), slot.decay ? 1 : 0) << slot.name;
    if (slot.name == "blocks.0.attn.qkv.weight") {
      EXPECT_TRUE(slot.decay);
    }
    if (slot.name == "blocks.0.norm1.weight" || slot.name == "cls_token") {
      EXPECT_FALSE(slot.decay);
    }
  });
}

TEST(UnitSet, PiecesOfAllRanksPutTogetherAreTheModel) {
  const auto model = models::make_model(tiny_mae(), 1);
  std::map<std::string, at::Tensor> whole, found;
  for (const auto& [name, tensor] : model->named_parameters())
    whole[name] = tensor.detach().clone().reshape(-1), found[name] = at::zeros_like(whole[name]);
  const at::NoGradGuard no_grad;
  for (int slice = 0; slice < 3; ++slice)
    for (int piece = 0; piece < 2; ++piece) {
      const auto mine = models::make_model(tiny_mae(), 1);
      LayoutOptions layout;
      layout.sharding = {3, slice, 2, piece};
      UnitSet units(*mine, at::kCPU, at::kBFloat16, layout, {});
      EXPECT_EQ(units.kept_count() * 6, units.count());
      for (const KeptRun& run : units.layout().kept_runs())
        found[run.slot->name]
            .narrow(0, run.start, run.count)
            .copy_(units.master().narrow(0, run.kept_offset, run.count));
    }
  for (const auto& [name, tensor] : whole) EXPECT_TRUE(found[name].equal(tensor)) << name;
}

TEST(UnitSet, BlocksInSlotsOwnNoMemoryAndCannotBeRead) {
  const auto model = models::make_model(tiny_vit(), 1);
  LayoutOptions layout;
  layout.sharding = {2, 0, 1, 0};
  UnitMemory memory;
  memory.weights_in_slots = memory.gradients_in_slots = true;
  UnitSet units(*model, at::kCPU, at::kFloat, layout, memory);
  int64_t ends = 0;
  for (const Unit& unit : units.units())
    if (!unit.stack) ends += unit.count;
  EXPECT_EQ(units.weights().numel(), ends);
  EXPECT_EQ(units.whole_gradients().numel(), ends);
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : model->named_parameters()) {
    const bool in_block = name.starts_with("blocks.");
    EXPECT_EQ(tensor.storage().data() == nullptr, in_block) << name;
    EXPECT_EQ(tensor.grad().storage().data() == nullptr, in_block) << name;
    if (in_block && tensor.dim() == 2) {
      EXPECT_ANY_THROW(tensor.t()) << name;
    }
  }
  const at::Tensor slot = at::zeros({units.units()[1].count});
  units.moving_weights(1).point_to(slot.data_ptr());
  EXPECT_TRUE(units.moving_weights(1).has_memory());
}

TEST(UnitSet, SmallBlocksKeepMemoryOfTheirOwn) {
  const auto model = models::make_model(tiny_vit(), 1);
  LayoutOptions layout;
  layout.sharding = {2, 0, 1, 0};
  UnitMemory memory;
  memory.weights_in_slots = true;
  memory.keep_below = int64_t{1} << 40;
  UnitSet units(*model, at::kCPU, at::kFloat, layout, memory);
  for (size_t u = 0; u < units.units().size(); ++u) EXPECT_FALSE(units.weights_in_slot(u));
}

TEST(UnitSet, ParametersOfUnitsHeldElsewhereLoseTheirMemory) {
  const auto model = models::make_model(tiny_vit(), 1);
  LayoutOptions layout;
  layout.is_held = [](const models::UnitSpec& unit) { return unit.name != "head"; };
  UnitSet units(*model, at::kCPU, at::kFloat, layout, {});
  for (const auto& [name, tensor] : model->named_parameters()) {
    const bool elsewhere = name.starts_with("head") || name.starts_with("norm.");
    EXPECT_EQ(tensor.storage().data() == nullptr, elsewhere) << name;
    EXPECT_GT(tensor.numel(), 0) << name;
  }
}

}  // namespace
}  // namespace vitrail::parallel

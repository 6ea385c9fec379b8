// Studies: which cells they have, what each is compared with, and what is refused.

#include "vitrail/config/study.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"

namespace vitrail::config {
namespace {

using testing::ElementsAre;

constexpr const char* kStudy = R"(
name: tiny
base: ../digits/vit.yaml
set: [train.epochs=5]
seeds: [2, 0]
factors:
  a: {x: [model.depth=1], y: []}
  b: {p: [], q: [model.depth=2, "model.image_size=[8, 8]"], r: [model.depth=3]}
cells: {wide: [model.embed_dim=96]}
exclude: [{a: y, b: [q, r]}]
controls:
  - {cell: wide, for: {b: [q]}}
  - {cell: x_p}
)";

std::vector<std::string> names_of(const std::vector<StudyCell>& cells) {
  std::vector<std::string> names;
  for (const StudyCell& cell : cells) names.push_back(cell.name);
  return names;
}

TEST(Study, CellsAreTheProductLessWhatIsExcluded) {
  const Study study = parse_study(kStudy, "recipes/studies/tiny.yaml");
  EXPECT_EQ(study.base, "recipes/digits/vit.yaml");
  EXPECT_THAT(study.seeds, ElementsAre(2, 0));
  const std::vector<StudyCell> cells = cells_of(study);
  EXPECT_THAT(names_of(cells), ElementsAre("wide", "x_p", "x_q", "x_r", "y_p"));
  EXPECT_THAT(cells[0].set, ElementsAre("train.epochs=5", "model.embed_dim=96"));
  EXPECT_THAT(cells[2].set, ElementsAre("train.epochs=5", "model.depth=1", "model.depth=2",
                                        "model.image_size=[8, 8]"));
  EXPECT_THAT(cells[3].levels, ElementsAre("x", "r"));
}

TEST(Study, ACellIsComparedWithTheFirstControlThatFits) {
  std::vector<std::string> controls;
  for (const StudyCell& cell : cells_of(parse_study(kStudy, "s.yaml")))
    controls.push_back(cell.control);
  EXPECT_THAT(controls, ElementsAre("x_p", "", "wide", "x_p", "x_p"));
}

TEST(Study, WithoutControlsTheFirstLevelsAreOne) {
  const Study study =
      parse_study("name: n\nbase: b\nfactors: {a: {x: [], y: []}, b: {p: [], q: []}}\n", "s.yaml");
  std::vector<std::string> controls;
  for (const StudyCell& cell : cells_of(study)) controls.push_back(cell.control);
  EXPECT_THAT(controls, ElementsAre("", "x_p", "x_p", "x_p"));
  EXPECT_THAT(study.seeds, ElementsAre(0));
}

std::string refusal(const std::string& yaml) {
  try {
    parse_study(yaml, "s.yaml");
  } catch (const core::ConfigError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Study, SaysEverythingThatIsWrongAtOnce) {
  EXPECT_EQ(
      refusal("nam: n\nseeds: [1, -1]\nfactors: {a: {x: [depth]}}\n"),
      "[config] nam is not a known key of a study; did you mean 'name'?  (s.yaml:1:1)\n"
      "[config] name must be given  (s.yaml:1:1)\n"
      "[config] base must name a recipe file  (s.yaml:1:1)\n"
      "[config] seeds must be whole numbers, 0 or more, but one is '-1'  (s.yaml:2:12)\n"
      "[config] factors.a.x must hold changes like train.epochs=50 but holds 'depth'; put one "
      "with commas or brackets into quotes  (s.yaml:3:19)");
  EXPECT_THAT(refusal("name: n\nbase: b\nfactors: {a: {x: [], y: []}, b: {y: [], x_y: []}}\n"
                      "cells: {x_y: []}\n"),
              testing::HasSubstr("cells must have different names but two are x_y"));
  EXPECT_THAT(refusal("name: n\nbase: b\ncells: {c: [a=1]}\nexclude: [{f: l}]\n"),
              testing::HasSubstr("exclude names the factor f, which the study does not have"));
  EXPECT_THAT(refusal("name: n\nbase: b\nfactors: {f: {l: [], m: []}}\nexclude: [{f: k}]\n"),
              testing::HasSubstr("exclude names the level k of f, which it does not have"));
  EXPECT_EQ(refusal("- a\n"), "[config] a study must be a map but got a list  (s.yaml:1:1)");
}

TEST(Study, TooManyRunsAreRefusedBeforeTheyAreListed) {
  std::string yaml = "name: n\nbase: b\nfactors:\n";
  for (int f = 0; f < 40; ++f) yaml += "  f" + std::to_string(f) + ": {a: [], b: []}\n";
  EXPECT_THAT(refusal(yaml), testing::HasSubstr("a study must have at most 10000 runs"));
}

}  // namespace
}  // namespace vitrail::config

#pragma once
/// A study: one recipe, trained with every combination of named changes and every seed (docs/ablations.md).
///
///   name: cifar10-eight
///   base: ../cifar10/vit_4m.yaml                     # from the study's folder
///   set: [train.epochs=50]                           # of every run; entries are overrides as on the command line
///   seeds: [0, 1, 2]
///   metric: accuracy                                 # of an evaluation; default: the first of the split
///   split: cifar10-test                              # of eval.sources; default: the first
///   goal: highest                                    # or lowest
///   factors:                                         # cells are the product, in this order
///     attention: {plain: [train.attention=plain], sdpa: [train.attention=sdpa]}
///     decatt: {without: [], with: [train.decatt.weight=1]}
///   cells: {wide: [model.embed_dim=384]}             # besides the product
///   exclude: [{attention: plain, decatt: [with]}]    # combinations that are left out
///   controls:                                        # what a cell is compared with: the first entry that fits
///     - {cell: wide, for: {attention: sdpa}}
///     - {cell: plain_without}                        # default: the first levels of all factors
///   evaluations: {"at 48": ["model.image_size=[48, 48]"]}    # of every run's weights, besides its own
///   output: runs                                     # runs go to OUTPUT/NAME/CELL/seed-S
///
/// A cell of the product is named by its levels, joined by "_".

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace vitrail::config {

using Overrides = std::vector<std::string>;

/// A name and the changes that it stands for.
struct NamedChanges {
  std::string name;
  Overrides set;
};

struct StudyFactor {
  std::string name;
  std::vector<NamedChanges> levels;
};

/// Levels of some factors; a cell fits when its level of each factor is among those named.
struct LevelFilter {
  std::vector<std::pair<std::string, std::vector<std::string>>> factors;
};

struct StudyControl {
  std::string cell;
  LevelFilter fits;  // empty: every cell
};

struct Study {
  std::string name, base, output = "runs";
  std::string metric, split;  // empty: the first
  bool highest = true;
  Overrides set;
  std::vector<int64_t> seeds{0};
  std::vector<StudyFactor> factors;
  std::vector<NamedChanges> cells;
  std::vector<LevelFilter> exclude;
  std::vector<StudyControl> controls;
  std::vector<NamedChanges> evaluations;
};

/// One combination, or one of `cells`.
struct StudyCell {
  std::string name;
  std::vector<std::string> levels;  // one a factor; empty for one of `cells`
  Overrides set;                    // the study's, then the levels' in the order of the factors
  std::string control;              // its name; the control's own is empty
};

/// `base` becomes a path that can be opened. throws ConfigError naming every problem, one a line, with file:line:column.
Study load_study(const std::string& path);
/// The same from text; `path` stands for the file.
Study parse_study(const std::string& yaml, const std::string& path);

/// `cells` first, then the product less what is excluded.
std::vector<StudyCell> cells_of(const Study& study);

}  // namespace vitrail::config

#include "vitrail/config/study.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/config/problems.h"
#include "vitrail/config/yaml.h"
#include "vitrail/core/atomic_file.h"
#include "vitrail/core/did_you_mean.h"
#include "vitrail/core/error.h"

namespace vitrail::config {

namespace {

constexpr size_t kMostCells = 10'000;

/// Names become parts of paths and columns of tables.
bool is_name(const std::string& text) {
  const auto is_good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("-+._ ").find(c) != std::string_view::npos;
  };
  return !text.empty() && text.size() <= 80 && text.front() != '.' && text.front() != ' ' &&
         text.back() != ' ' && std::ranges::all_of(text, is_good);
}

class StudyReader {
 public:
  StudyReader(Study& study, Problems& problems) : study_(study), problems_(problems) {}

  void read(const Node& root) {
    for (const Entry& entry : root.entries) read_key(entry);
    if (study_.name.empty()) problems_.add(root.place, "name must be given");
    if (study_.base.empty()) problems_.add(root.place, "base must name a recipe file");
    if (study_.factors.empty() && study_.cells.empty())
      problems_.add(root.place, "factors or cells must be given");
  }

 private:
  void read_key(const Entry& entry) {
    const Node& value = entry.value;
    if (entry.key == "name") {
      study_.name = name(value, "name");
    } else if (entry.key == "base") {
      study_.base = text(value, "base");
    } else if (entry.key == "output") {
      study_.output = text(value, "output");
    } else if (entry.key == "metric") {
      study_.metric = text(value, "metric");
    } else if (entry.key == "split") {
      study_.split = text(value, "split");
    } else if (entry.key == "goal") {
      const std::string goal = text(value, "goal");
      if (goal != "highest" && goal != "lowest")
        problems_.add(value.place, fmt::format("goal must be one of highest, lowest but got {}",
                                               describe(value)));
      study_.highest = goal != "lowest";
    } else if (entry.key == "set") {
      study_.set = overrides(value, "set");
    } else if (entry.key == "seeds") {
      read_seeds(value);
    } else if (entry.key == "factors") {
      for (const Entry& factor : entries(value, "factors"))
        study_.factors.push_back({checked_name(factor, "factors"),
                                  changes(factor.value, "factors." + printable(factor.key))});
    } else if (entry.key == "cells") {
      study_.cells = changes(value, "cells");
    } else if (entry.key == "evaluations") {
      study_.evaluations = changes(value, "evaluations");
    } else if (entry.key == "exclude") {
      for (const Node& item : items(value, "exclude"))
        study_.exclude.push_back(filter(item, "exclude"));
    } else if (entry.key == "controls") {
      for (const Node& item : items(value, "controls")) read_control(item);
    } else {
      report_unknown(entry, {"name", "base", "output", "metric", "split", "goal", "set", "seeds",
                             "factors", "cells", "evaluations", "exclude", "controls"});
    }
  }

  void report_unknown(const Entry& entry, const std::vector<std::string>& known) {
    const std::string meant = core::nearest_word(entry.key, known);
    problems_.add(entry.key_place,
                  fmt::format("{} is not a known key of a study; {}", printable(entry.key),
                              meant.empty() ? fmt::format("there are {}", fmt::join(known, ", "))
                                            : fmt::format("did you mean '{}'?", meant)));
  }

  std::string text(const Node& node, const std::string& key) {
    if (node.is_scalar()) return node.text;
    problems_.add(node.place, fmt::format("{} must be text but got {}", key, describe(node)));
    return "";
  }

  std::string name(const Node& node, const std::string& key) {
    const std::string found = text(node, key);
    if (node.is_scalar() && !is_name(found))
      problems_.add(node.place, fmt::format("{} must be made of letters, digits and -+._ but is {}",
                                            key, describe(node)));
    return found;
  }

  std::string checked_name(const Entry& entry, const std::string& key) {
    if (!is_name(entry.key))
      problems_.add(entry.key_place,
                    fmt::format("names in {} must be made of letters, digits and -+._ but one is "
                                "'{}'",
                                key, printable(entry.key)));
    return entry.key;
  }

  const std::vector<Entry>& entries(const Node& node, const std::string& key) {
    if (!node.is_map() && !node.is_null())
      problems_.add(node.place, fmt::format("{} must be a map but got {}", key, describe(node)));
    return node.entries;
  }

  const std::vector<Node>& items(const Node& node, const std::string& key) {
    if (!node.is_list() && !node.is_null())
      problems_.add(node.place, fmt::format("{} must be a list but got {}", key, describe(node)));
    return node.items;
  }

  Overrides overrides(const Node& node, const std::string& key) {
    Overrides found;
    for (const Node& item : items(node, key)) {
      if (item.is_scalar() && item.text.find('=') != std::string::npos)
        found.push_back(item.text);
      else
        problems_.add(item.place, fmt::format("{} must hold changes like train.epochs=50 but holds "
                                              "{}; put one with commas or brackets into quotes",
                                              key, describe(item)));
    }
    return found;
  }

  std::vector<NamedChanges> changes(const Node& node, const std::string& key) {
    std::vector<NamedChanges> found;
    for (const Entry& entry : entries(node, key))
      found.push_back({checked_name(entry, key),
                       overrides(entry.value, fmt::format("{}.{}", key, printable(entry.key)))});
    if (found.empty()) problems_.add(node.place, fmt::format("{} must not be empty", key));
    return found;
  }

  void read_seeds(const Node& node) {
    study_.seeds.clear();
    for (const Node& item : items(node, "seeds")) {
      int64_t seed = 0;
      const char* end = item.text.data() + item.text.size();
      const auto [last, error] = std::from_chars(item.text.data(), end, seed);
      if (!item.is_scalar() || error != std::errc() || last != end || seed < 0)
        problems_.add(
            item.place,
            fmt::format("seeds must be whole numbers, 0 or more, but one is {}", describe(item)));
      else if (std::ranges::count(study_.seeds, seed) > 0)
        problems_.add(item.place, fmt::format("seeds holds {} twice", seed));
      else
        study_.seeds.push_back(seed);
    }
    if (study_.seeds.empty()) problems_.add(node.place, "seeds must hold at least one number");
  }

  LevelFilter filter(const Node& node, const std::string& key) {
    LevelFilter found;
    for (const Entry& entry : entries(node, key)) {
      std::vector<std::string> levels;
      if (entry.value.is_list())
        for (const Node& item : entry.value.items) levels.push_back(text(item, key));
      else
        levels.push_back(text(entry.value, key));
      filters_.push_back({entry.key_place, key, entry.key, levels});
      found.factors.emplace_back(entry.key, levels);
    }
    if (found.factors.empty())
      problems_.add(node.place, fmt::format("{} must name levels of factors", key));
    return found;
  }

  void read_control(const Node& node) {
    StudyControl control;
    for (const Entry& entry : entries(node, "controls")) {
      if (entry.key == "cell") {
        control.cell = text(entry.value, "controls.cell");
        control_places_.emplace_back(control.cell, entry.value.place);
      } else if (entry.key == "for") {
        control.fits = filter(entry.value, "controls.for");
      } else {
        report_unknown(entry, {"cell", "for"});
      }
    }
    if (control.cell.empty()) problems_.add(node.place, "controls must each name a cell");
    study_.controls.push_back(std::move(control));
  }

 public:
  /// Names that refer to each other; after read().
  void check() {
    std::set<std::string> names;
    size_t count = study_.cells.size(), product = 1;
    for (const StudyFactor& factor : study_.factors) {
      product *= factor.levels.size();
      if ((count + product) * study_.seeds.size() > kMostCells) break;
    }
    if (!study_.factors.empty()) count += product;
    if (count * study_.seeds.size() > kMostCells) {
      problems_.add(Place{}, fmt::format("a study must have at most {} runs", kMostCells));
      return;
    }
    for (const FilterUse& use : filters_) check_filter(use);
    for (const StudyCell& cell : cells_of(study_))
      if (!names.insert(cell.name).second)
        problems_.add(Place{}, fmt::format("cells must have different names but two are {}; level "
                                           "names are joined by '_'",
                                           cell.name));
    for (const auto& [cell, place] : control_places_)
      if (!names.contains(cell)) {
        const std::vector<std::string> all(names.begin(), names.end());
        const std::string near = core::nearest_word(cell, all);
        problems_.add(place,
                      fmt::format("controls name the cell {}, which the study does not have"
                                  "{}",
                                  printable(cell),
                                  near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
      }
  }

 private:
  struct FilterUse {
    Place place;
    std::string key, factor;
    std::vector<std::string> levels;
  };

  void check_filter(const FilterUse& use) {
    const auto factor = std::ranges::find(study_.factors, use.factor, &StudyFactor::name);
    if (factor == study_.factors.end()) {
      problems_.add(use.place, fmt::format("{} names the factor {}, which the study does not have",
                                           use.key, printable(use.factor)));
      return;
    }
    for (const std::string& level : use.levels)
      if (std::ranges::find(factor->levels, level, &NamedChanges::name) == factor->levels.end())
        problems_.add(use.place, fmt::format("{} names the level {} of {}, which it does not have",
                                             use.key, printable(level), use.factor));
  }

  Study& study_;
  Problems& problems_;
  std::vector<FilterUse> filters_;
  std::vector<std::pair<std::string, Place>> control_places_;
};

bool fits(const LevelFilter& filter, const Study& study, const StudyCell& cell) {
  return std::ranges::all_of(filter.factors, [&](const auto& wanted) {
    for (size_t f = 0; f < cell.levels.size(); ++f)
      if (study.factors[f].name == wanted.first)
        return std::ranges::count(wanted.second, cell.levels[f]) > 0;
    return false;
  });
}

std::string control_of(const Study& study, const StudyCell& cell) {
  for (const StudyControl& control : study.controls)
    if (fits(control.fits, study, cell)) return control.cell == cell.name ? "" : control.cell;
  if (!study.controls.empty()) return "";
  std::string first;
  for (const StudyFactor& factor : study.factors)
    first += (first.empty() ? "" : "_") + factor.levels.front().name;
  if (first.empty()) first = study.cells.front().name;
  return first == cell.name ? "" : first;
}

}  // namespace

std::vector<StudyCell> cells_of(const Study& study) {
  std::vector<StudyCell> cells;
  for (const NamedChanges& one : study.cells) {
    cells.push_back({one.name, {}, study.set, ""});
    cells.back().set.insert(cells.back().set.end(), one.set.begin(), one.set.end());
  }
  std::vector<StudyCell> product{{"", {}, study.set, ""}};
  for (const StudyFactor& factor : study.factors) {
    std::vector<StudyCell> next;
    for (const StudyCell& cell : product)
      for (const NamedChanges& level : factor.levels) {
        StudyCell more = cell;
        more.name += (more.name.empty() ? "" : "_") + level.name;
        more.levels.push_back(level.name);
        more.set.insert(more.set.end(), level.set.begin(), level.set.end());
        next.push_back(std::move(more));
      }
    product = std::move(next);
  }
  if (!study.factors.empty())
    std::ranges::copy_if(product, std::back_inserter(cells), [&](const StudyCell& cell) {
      return std::ranges::none_of(study.exclude,
                                  [&](const LevelFilter& out) { return fits(out, study, cell); });
    });
  for (StudyCell& cell : cells) cell.control = control_of(study, cell);
  return cells;
}

Study parse_study(const std::string& yaml, const std::string& path) {
  Problems problems;
  const Node root = parse_yaml(yaml, path, problems);
  if (!root.is_map() && problems.empty())
    problems.add(root.place, "a study must be a map but got " + describe(root));
  problems.throw_if_any();
  Study study;
  StudyReader reader(study, problems);
  reader.read(root);
  problems.throw_if_any();
  reader.check();
  problems.throw_if_any();
  const std::filesystem::path base(study.base);
  if (base.is_relative())
    study.base = (std::filesystem::path(path).parent_path() / base).lexically_normal().string();
  return study;
}

Study load_study(const std::string& path) {
  std::error_code error;
  VT_REQUIRE(ConfigError, std::filesystem::is_regular_file(path, error),
             "[config] {} must be the file of a study but there is no such file", printable(path));
  return parse_study(core::read_file(path, kMaxFileBytes), path);
}

}  // namespace vitrail::config

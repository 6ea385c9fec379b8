#include "vitrail/models/key_map.h"

#include <algorithm>
#include <map>
#include <optional>

#include <ATen/ops/cat.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/models/key_map_fixes.h"
#include "vitrail/models/key_map_rules.h"

namespace vitrail::models {
namespace {

using Tensors = std::vector<nn::NamedTensor>;

bool any_name(const Tensors& tensors, const std::string& part) {
  return std::ranges::any_of(tensors, [&](const nn::NamedTensor& entry) {
    return entry.name.find(part) != std::string::npos;
  });
}

bool starts_with_any(const std::string& text, const std::vector<std::string>& prefixes) {
  return std::ranges::any_of(prefixes,
                             [&](const std::string& prefix) { return text.starts_with(prefix); });
}

struct Match {
  std::string number, rest;
};

/// Whether `text` begins with `pattern` ('#' = digits).
std::optional<Match> match(const std::string& pattern, const std::string& text) {
  Match found;
  size_t at = 0;
  for (const char letter : pattern) {
    if (letter != '#') {
      if (at >= text.size() || text[at] != letter) return std::nullopt;
      ++at;
      continue;
    }
    const size_t first = at;
    while (at < text.size() && text[at] >= '0' && text[at] <= '9') ++at;
    if (at == first) return std::nullopt;
    found.number = text.substr(first, at - first);
  }
  found.rest = text.substr(at);
  // A pattern that is a whole name ("cls_token") must not match a longer one.
  if (!pattern.ends_with('.') && !found.rest.empty()) return std::nullopt;
  return found;
}

std::string fill(const std::string& pattern, const Match& found) {
  std::string name = pattern;
  if (const size_t mark = name.find('#'); mark != std::string::npos)
    name.replace(mark, 1, found.number);
  return name + found.rest;
}

/// A rule read in one direction.
struct Way {
  const std::vector<std::string>*from, *to;
};

std::vector<Way> ways(const Form& form, bool import) {
  std::vector<Way> list;
  for (const Rule& rule : form.rules)
    list.push_back(import ? Way{&rule.theirs, &rule.ours} : Way{&rule.ours, &rule.theirs});
  return list;
}

struct Found {
  Way way;
  size_t piece;
  Match match;
};

std::optional<Found> find(const std::vector<Way>& table, const std::string& name) {
  for (const Way& way : table)
    for (size_t piece = 0; piece < way.from->size(); ++piece)
      if (const auto matched = match((*way.from)[piece], name)) return Found{way, piece, *matched};
  return std::nullopt;
}

/// Rows of q, k, v in one matrix of R rows: q has as many as tokens are wide, k and v share the rest.
std::vector<int64_t> qkv_rows(int64_t rows, int64_t width, const std::string& name) {
  VT_REQUIRE(CheckpointError, rows > width && (rows - width) % 2 == 0,
             "[weights] '{}' must hold {} rows of q and as many of k as of v but has {}", name,
             width, rows);
  return {width, (rows - width) / 2, (rows - width) / 2};
}

class Translation {
 public:
  Translation(const Tensors& source, std::vector<Way> table)
      : source_(source), table_(std::move(table)) {}

  /// Names without a rule are handed to `otherwise`, which returns the name to keep them under, or nothing.
  template <class Otherwise>
  Tensors run(Otherwise otherwise) {
    for (const nn::NamedTensor& entry : source_) {
      const auto found = find(table_, entry.name);
      if (!found) {
        if (const std::optional<std::string> kept = otherwise(entry.name))
          result_.push_back({*kept, entry.tensor});
      } else if (found->way.from->size() > 1) {
        collect(*found, entry);
      } else {
        emit(*found, entry.name, entry.tensor);
      }
    }
    join();
    return std::move(result_);
  }

 private:
  struct Pieces {
    Found found;
    size_t place;
    std::vector<at::Tensor> tensors;
  };

  void collect(const Found& found, const nn::NamedTensor& entry) {
    const std::string key = fill(found.way.to->front(), found.match);
    auto [at, added] = pieces_.try_emplace(key, Pieces{found, result_.size(), {}});
    if (added) {
      at->second.tensors.resize(found.way.from->size());
      result_.push_back({key, {}});  // keeps the place
    }
    at->second.tensors[found.piece] = entry.tensor;
  }

  void join() {
    for (const auto& [key, pieces] : pieces_) {
      for (size_t p = 0; p < pieces.tensors.size(); ++p)
        VT_REQUIRE(CheckpointError, pieces.tensors[p].defined(),
                   "[weights] '{}' needs '{}', which is missing", key,
                   fill((*pieces.found.way.from)[p], pieces.found.match));
      result_[pieces.place].tensor = at::cat(pieces.tensors);
    }
  }

  /// The width that the rows of q have: a bias does not know it, its weight does.
  int64_t width_of(const std::string& name, const at::Tensor& tensor) const {
    if (tensor.dim() == 2) return tensor.size(1);
    const std::string weight = name.substr(0, name.rfind('.') + 1) + "weight";
    for (const nn::NamedTensor& entry : source_)
      if (entry.name == weight && entry.tensor.dim() == 2) return entry.tensor.size(1);
    core::fail<core::CheckpointError>("[weights] '{}' needs '{}' beside it", name, weight);
  }

  void emit(const Found& found, const std::string& name, const at::Tensor& tensor) {
    const std::vector<std::string>& to = *found.way.to;
    if (to.size() == 1) {
      result_.push_back({fill(to[0], found.match), tensor});
      return;
    }
    const int64_t rows = tensor.size(0), parts = static_cast<int64_t>(to.size());
    VT_REQUIRE(CheckpointError, parts == 3 || rows % parts == 0,
               "[weights] '{}' must have a multiple of {} rows but has {}", name, parts, rows);
    const std::vector<int64_t> sizes = parts == 3 ? qkv_rows(rows, width_of(name, tensor), name)
                                                  : std::vector<int64_t>(to.size(), rows / parts);
    const std::vector<at::Tensor> split = tensor.split_with_sizes(sizes, 0);
    for (size_t p = 0; p < to.size(); ++p)
      result_.push_back({fill(to[p], found.match), split[p].contiguous()});
  }

  const Tensors& source_;
  std::vector<Way> table_;
  Tensors result_;
  std::map<std::string, Pieces> pieces_;
};

/// What training wrappers of torch put into names.
std::string without_wrappers(std::string name, const Scheme& scheme) {
  for (const std::string wrapper :
       {"_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module."})
    for (size_t at; (at = name.find(wrapper)) != std::string::npos;) name.erase(at, wrapper.size());
  if (name.starts_with("module.")) name.erase(0, 7);
  for (const std::string& wrapper : scheme.wrappers)
    if (name.starts_with(wrapper)) return name.substr(wrapper.size());
  return name;
}

const Scheme* scheme_of(Naming naming) {
  const auto found = std::ranges::find(schemes(), naming, &Scheme::naming);
  return found == schemes().end() ? nullptr : &*found;
}

/// The form that these tensors of ours are written in.
const Form& form_for(const Scheme& scheme, const Tensors& tensors) {
  const auto found = std::ranges::find_if(scheme.forms, [&](const Form& form) {
    return form.written && std::ranges::all_of(form.needs, [&](const std::string& part) {
             return any_name(tensors, part);
           });
  });
  VT_CHECK(found != scheme.forms.end(), "[weights] scheme {} has no form for these tensors",
           name(scheme.naming));
  return *found;
}

/// Puts the form's wrapper before the names that it wraps.
void wrap(Tensors& theirs, const Form& form, const Tensors& ours) {
  const bool wrapped = std::ranges::any_of(ours, [&](const nn::NamedTensor& entry) {
    return starts_with_any(entry.name, form.wrapped_if);
  });
  if (!wrapped) return;
  for (nn::NamedTensor& entry : theirs)
    if (!starts_with_any(entry.name, form.outside)) entry.name = form.wrapper + entry.name;
}

}  // namespace

std::vector<std::string> naming_words() {
  return {"vitrail", "timm", "mae", "hf", "monai", "ucf-vit", "torchtitan-mae"};
}

Naming parse_naming(const std::string& word) {
  const std::vector<std::string> words = naming_words();
  const auto found = std::ranges::find(words, word);
  VT_REQUIRE(ConfigError, found != words.end(), "[weights] '{}' is not a naming scheme; use {}",
             word, fmt::join(words, ", "));
  return static_cast<Naming>(found - words.begin());
}

const char* name(Naming naming) {
  constexpr const char* names[] = {"vitrail", "timm",    "mae",           "hf",
                                   "monai",   "ucf-vit", "torchtitan-mae"};
  return names[static_cast<int>(naming)];
}

Naming detect_naming(const Tensors& tensors) {
  // UCF-VIT keeps its one patch embedding under the name of every variable too.
  if (any_name(tensors, "patch_embed.proj.") && any_name(tensors, "token_embeds."))
    return Naming::ucf_vit;
  for (const Scheme& scheme : schemes())
    for (const std::string& mark : scheme.marks)
      if (any_name(tensors, mark)) return scheme.naming;
  return Naming::timm;
}

Renamed import_names(const Tensors& tensors, Naming from, const std::vector<int64_t>& image_size) {
  const Scheme* scheme = scheme_of(from);
  if (!scheme) return {tensors, {}};
  refuse_what_cannot_be_read(tensors, from);
  Tensors bare;
  for (const nn::NamedTensor& entry : tensors)
    bare.push_back({without_wrappers(entry.name, *scheme), entry.tensor});
  std::vector<Way> table;
  for (const Form& form : scheme->forms)
    for (const Way& way : ways(form, /*import=*/true)) table.push_back(way);
  Renamed result;
  if (from == Naming::ucf_vit) remove_copies(bare);
  result.tensors =
      Translation(bare, table).run([](const std::string& name) { return std::optional(name); });
  if (from == Naming::timm) unpack_gates(result.tensors);
  if (from == Naming::ucf_vit) from_pixel_positions(result, image_size);
  insert_position_rows(result, scheme->positions);
  return result;
}

Renamed export_names(const Tensors& tensors, Naming to, const std::vector<int64_t>& image_size) {
  const Scheme* scheme = scheme_of(to);
  if (!scheme) return {tensors, {}};
  Renamed ours{tensors, {}}, theirs;
  remove_position_rows(ours, scheme->positions);
  if (to == Naming::ucf_vit) to_pixel_positions(ours, image_size);
  const Form& form = form_for(*scheme, ours.tensors);
  theirs.tensors =
      Translation(ours.tensors, ways(form, /*import=*/false))
          .run([&](const std::string& ours_name) -> std::optional<std::string> {
            for (const auto& [prefix, why] : scheme->not_written)
              if (ours_name.starts_with(prefix)) {
                theirs.notes.emplace_back(ours_name, "not written: " + why);
                return std::nullopt;
              }
            if (ours_name.starts_with(kUnused)) {
              theirs.notes.emplace_back(ours_name, "not written: of another program, and unused");
              return std::nullopt;
            }
            VT_REQUIRE(CheckpointError, scheme->same_otherwise,
                       "[weights] '{}' has no name in the scheme {}", ours_name, name(to));
            return ours_name;
          });
  if (to == Naming::ucf_vit) add_copies(theirs.tensors);
  if (to == Naming::monai) add_cross_norms(theirs.tensors);
  wrap(theirs.tensors, form, ours.tensors);
  theirs.notes.insert(theirs.notes.begin(), ours.notes.begin(), ours.notes.end());
  return theirs;
}

}  // namespace vitrail::models

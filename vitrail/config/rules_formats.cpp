// Rules of source keys that belong to some formats only: axes, arrays, labels of another format, splits.

#include <algorithm>
#include <set>
#include <string_view>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vitrail/config/limits.h"
#include "vitrail/config/node.h"
#include "vitrail/config/rules.h"

namespace vitrail::config {

namespace {

using Words = std::vector<std::string_view>;

bool is_one_of(const Choice& choice, const Words& words) {
  return std::find(words.begin(), words.end(), choice.value) != words.end();
}

const Words kArrays{"npy", "raw", "tiff", "zarr", "n5"};
const Words kContainers{"npy", "zarr", "n5"};
const Words kFlat{"image_folder", "image_list", "images", "cifar", "idx",
                  "coco",         "voc",        "tar",    "digits"};
const Words kWithLabelFiles{"images", "image_stack", "nifti", "npy", "raw",
                            "tiff",   "zarr",        "n5",    "idx", "coco", "voc"};
const Words kWithOtherLabels{"images", "image_stack", "nifti", "npy", "raw", "tiff", "zarr", "n5"};
const Words kWithOwnMasks{"image_list", "tar"};
const Words kWithoutClasses{"images", "image_stack", "raw", "tiff", "coco", "voc"};

/// "a, b or c"
std::string in_words(const Words& words) {
  if (words.size() == 1) return std::string(words[0]);
  return fmt::format("{} or {}", fmt::join(words.begin(), words.end() - 1, ", "), words.back());
}

class SourceRules {
 public:
  SourceRules(const Source& source, std::string path, const Model& model, RuleBook& rules)
      : source_(source), path_(std::move(path)), model_(model), rules_(rules) {}

  void check() {
    check_sides();
    check_raw();
    needs("array", !source_.array.empty(), source_.reader, "reader", kContainers);
    needs("axes", !source_.axes.empty(), source_.reader, "reader", kArrays);
    needs("channels", !source_.channels.empty(), source_.reader, "reader", kArrays);
    check_axes();
    check_channels();
    check_labels();
    check_split();
  }

 private:
  std::string key(const char* name) const { return path_ + "." + name; }

  void needs(const char* name, bool is_given, const Choice& by, const char* by_name,
             const Words& allowed) {
    if (is_given && !is_one_of(by, allowed))
      rules_.add({key(name), key(by_name)},
                 fmt::format("{} needs the {} {} but it is {}", key(name), by_name,
                             in_words(allowed), by.value));
  }

  /// Images have two sides and stacks of them three.
  void check_sides() {
    const size_t sides = model_.image_size.size();
    if (is_one_of(source_.reader, kFlat) && sides == 3)
      rules_.add(
          {key("reader"), "model.image_size"},
          fmt::format("{} {} reads images of 2 sides but model.image_size has 3{}", key("reader"),
                      source_.reader.value,
                      source_.reader == "images" ? "; the reader image_stack makes volumes of them"
                                                 : ""));
    if (source_.reader == "image_stack" && sides == 2 && !source_.slices)
      rules_.add(
          {key("reader"), "model.image_size"},
          fmt::format("{} image_stack reads volumes of 3 sides but model.image_size has 2; set "
                      "{} or use the reader images",
                      key("reader"), key("slices")),
          {key("slices")});
  }

  void check_raw() {
    const bool is_raw = source_.reader == "raw" || source_.label_reader == "raw";
    const bool has_keys = !source_.dtype.empty() || !source_.shape.empty() || source_.offset != 0;
    if (!is_raw && has_keys)
      rules_.add({key("dtype"), key("reader")},
                 fmt::format("{0}.dtype, {0}.shape and {0}.offset need {0}.reader raw but it is "
                             "{1}, whose files say so themselves",
                             path_, source_.reader.value),
                 {key("shape"), key("offset")});
    if (!(source_.reader == "raw")) return;
    if (source_.dtype.empty() || source_.shape.empty())
      rules_.add({key("dtype"), key("shape")},
                 fmt::format("{0}.dtype and {0}.shape must say what the bytes of the reader raw "
                             "are but got '{1}' and [{2}]",
                             path_, printable(source_.dtype), fmt::join(source_.shape, ", ")),
                 {key("reader")});
    for (size_t axis = 0; axis < source_.shape.size(); ++axis)
      rules_.within(fmt::format("{}.shape[{}]", path_, axis), source_.shape[axis], 1, kMaxAxis);
    rules_.within(key("offset"), source_.offset, 0, kMaxAxis);
  }

  void check_axes() {
    const std::string& axes = source_.axes;
    if (axes.empty()) return;
    constexpr std::string_view kLetters = "nctzyx";
    const bool known = axes.find_first_not_of(kLetters) == std::string::npos;
    const std::set<char> seen(axes.begin(), axes.end());
    if (!known || seen.size() != axes.size()) {
      rules_.add({key("axes")},
                 fmt::format("{} must be different letters out of n c t z y x but got '{}'",
                             key("axes"), printable(axes)));
      return;
    }
    const size_t wanted = source_.slices ? 3 : model_.image_size.size();
    const auto sides = static_cast<size_t>(
        std::count_if(axes.begin(), axes.end(), [](char a) { return a >= 'x' && a <= 'z'; }));
    if (sides != wanted)
      rules_.add({key("axes"), "model.image_size"},
                 fmt::format("{} must have {} of the letters z y x, as many sides as "
                             "model.image_size{}, but got '{}'",
                             key("axes"), wanted, source_.slices ? " and slices" : "", axes),
                 {key("slices")});
    if (!source_.shape.empty() && source_.shape.size() != axes.size())
      rules_.add({key("axes"), key("shape")},
                 fmt::format("{} must have a letter for each entry of {} but got {} and {}",
                             key("axes"), key("shape"), axes.size(), source_.shape.size()));
  }

  void check_channels() {
    std::set<int64_t> seen;
    for (size_t i = 0; i < source_.channels.size(); ++i) {
      const std::string entry = fmt::format("{}.channels[{}]", path_, i);
      if (rules_.within(entry, source_.channels[i], 0, kMaxAxis) &&
          !seen.insert(source_.channels[i]).second)
        rules_.add({entry}, fmt::format("{} repeats {}; name each channel once", entry,
                                        source_.channels[i]));
    }
    const auto count = static_cast<int64_t>(source_.channels.size());
    const int64_t wanted = source_.variables.empty()
                               ? model_.in_channels
                               : static_cast<int64_t>(source_.variables.size());
    if (count > 0 && count != wanted)
      rules_.add({key("channels"), source_.variables.empty() ? "model.in_channels" : key("variables")},
                 fmt::format("{} must choose {} channels but chooses {}", key("channels"), wanted,
                             count));
  }

  void check_labels() {
    const bool other = !(source_.label_reader == "same");
    const bool has_labels = !source_.labels.empty() || !source_.label_array.empty();
    needs("labels", !source_.labels.empty(), source_.reader, "reader", kWithLabelFiles);
    needs("label_reader", other, source_.reader, "reader", kWithOtherLabels);
    needs("label_maps", !source_.label_maps.empty(), source_.reader, "reader", {"nifti"});
    if (!source_.label_maps.empty() && !source_.labels.empty())
      rules_.add({key("label_maps"), key("labels")},
                 fmt::format("{0}.label_maps and {0}.labels exclude each other but both are given",
                             path_));
    if (other && !has_labels)
      rules_.add({key("label_reader"), key("labels")},
                 fmt::format("{} needs {}, which it reads, but that is empty",
                             key("label_reader"), key("labels")));
    needs("label_array", !source_.label_array.empty(), other ? source_.label_reader : source_.reader,
          other ? "label_reader" : "reader", kContainers);
  }

  void check_split() {
    const std::vector<double>& split = source_.split;
    const bool good =
        split.empty() ||
        (split.size() == 2 && split[0] >= 0 && split[1] <= 1 && split[0] < split[1]);
    if (!good)
      rules_.add({key("split")},
                 fmt::format("{} must be [start, end] with 0 <= start < end <= 1 but got [{}]",
                             key("split"), fmt::join(split, ", ")));
    if (!source_.split_list.empty() && (!split.empty() || source_.split_hash))
      rules_.add({key("split_list"), key("split")},
                 fmt::format("{} names the samples and excludes {} and {}", key("split_list"),
                             key("split"), key("split_hash")),
                 {key("split_hash")});
    if (!(source_.split_part == "all") && !source_.split_hash)
      rules_.add({key("split_part"), key("split_hash")},
                 fmt::format("{} needs {}, whose range it is a part of", key("split_part"),
                             key("split_hash")));
    if (!(source_.split_part == "all") && !split.empty())
      rules_.add({key("split_part"), key("split")},
                 fmt::format("{} and {} exclude each other: both say which range of the hash",
                             key("split_part"), key("split")));
  }

  const Source& source_;
  std::string path_;
  const Model& model_;
  RuleBook& rules_;
};

}  // namespace

bool reads_volumes(const Source& source) {
  return source.reader == "image_stack" || source.reader == "nifti" ||
         is_one_of(source.reader, kArrays);
}

bool holds_own_masks(const Source& source) { return is_one_of(source.reader, kWithOwnMasks); }

bool holds_no_classes(const Source& source) { return is_one_of(source.reader, kWithoutClasses); }

void check_format(const Source& source, const std::string& path, const Model& model,
                  RuleBook& rules) {
  SourceRules(source, path, model, rules).check();
}

}  // namespace vitrail::config

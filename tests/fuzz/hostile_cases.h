#pragma once
/// Which files are broken, and how they are opened.

#include <functional>
#include <string>
#include <vector>

#include "vitrail/config/recipe.h"

namespace vitrail::testing {

/// A good file of tests/corpus, read as a source.
struct Seed {
  std::string format;  // which limit it falls under
  std::string folder;  // below tests/corpus: what is copied
  std::string victim;  // below that: the file that is broken
  std::string reader;
  std::string root;            // below the folder; "" = the folder
  std::vector<int64_t> sides;  // of model.image_size
  int64_t channels = 1;
  bool is_text = false;  // numbers in it are digits
  size_t header = 96;    // bytes in which every number is made to lie
  std::function<void(config::Source&, const std::string& folder)> adjust = {};
};

const std::vector<Seed>& seeds();

/// Bytes that a reader may hold: `fixed` + `factor` * bytes of the files.
struct MemoryLimit {
  std::string format;
  int64_t factor = 0;
  int64_t fixed = int64_t{8} << 20;  // buffers, tables and messages of the libraries
  std::string why;
};

const MemoryLimit& limit_of(const std::string& format);

}  // namespace vitrail::testing

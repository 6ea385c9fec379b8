#include "vitrail/config/recipe.h"

#include <cstdlib>

#include "tests/fuzz/fuzz_target.h"

using namespace vitrail;

/// A line a problem; what is missing altogether has no place in the file, so that not all name it.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    (void)config::parse_recipe(text, fuzz::kName, {});
  } catch (const core::ConfigError& error) {
    const std::string_view message = error.what();
    if (message.empty() || message[0] != '[') std::abort();
  }
  return 0;
}

// What is refused, and the exact line that says so.

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/config/bad_recipe_decatt.h"
#include "tests/config/bad_recipe_detection.h"
#include "tests/config/bad_recipe_models.h"
#include "tests/config/bad_recipe_rat.h"
#include "tests/config/bad_recipe_reading.h"
#include "tests/config/bad_recipe_rules.h"
#include "tests/config/bad_recipe_sources.h"
#include "tests/config/bad_recipe_text.h"
#include "vitrail/config/recipe.h"
#include "vitrail/core/error.h"

namespace vitrail::config {
namespace {

/// The message of the ConfigError; "accepted" when there is none. Any other exception fails the
/// test.
std::string message_of(const std::string& yaml, const std::vector<std::string>& overrides) {
  try {
    parse_recipe(yaml, "r.yaml", overrides);
  } catch (const core::ConfigError& error) {
    return error.what();
  }
  return "accepted";
}

std::vector<BadRecipe> cases() {
  std::vector<BadRecipe> all = bad_readings();
  for (const auto* table : {&bad_values(), &bad_texts(), &bad_models(), &bad_sources(), &bad_detections(), &bad_decatt(), &bad_rats()})
    all.insert(all.end(), table->begin(), table->end());
  return all;
}

TEST(BadRecipe, IsRefusedWithExactlyThisMessage) {
  EXPECT_GE(cases().size(), 270u);
  for (const BadRecipe& bad : cases()) {
    std::string shown = bad.yaml;
    for (const std::string& text : bad.overrides) shown += "  " + text;
    EXPECT_EQ(message_of(bad.yaml, bad.overrides), bad.message) << shown;
  }
}

TEST(BadRecipe, TheBasesOfTheTablesAreGood) {
  EXPECT_EQ(message_of(kBase, {}), "accepted");
  EXPECT_EQ(message_of(kSegmentation, {}), "accepted");
  EXPECT_EQ(message_of(kDetection, {}), "accepted");
  for (const char* kind : {"vit", "mae", "unetr", "sap", "diffusion"})
    for (const char* size : {"[8, 8]", "[8, 8, 8]"})
      EXPECT_EQ(message_of(kModel, {fmt::format("model.kind={}", kind),
                                    fmt::format("model.image_size={}", size)}),
                "accepted")
          << kind << " " << size;
}

TEST(BadRecipe, GivesTheSameMessageEveryTime) {
  for (const BadRecipe& bad : cases())
    EXPECT_EQ(message_of(bad.yaml, bad.overrides), message_of(bad.yaml, bad.overrides));
}

/// The message for a path; throws nothing else.
std::string message_of_file(const std::string& path) {
  try {
    load_recipe(path, {});
  } catch (const core::ConfigError& error) {
    return error.what();
  }
  return "accepted";
}

class BadFile : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
              ("vitrail_bad_recipe_" +
               std::to_string(std::chrono::steady_clock::now().time_since_epoch().count()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_;
};

TEST_F(BadFile, MissingFileFolderAndTooLargeFileAreNamed) {
  const std::string missing = folder_ / "none.yaml", folder = folder_,
                    large = folder_ / "large.yaml";
  EXPECT_EQ(message_of_file(missing),
            "[config] " + missing + " must be a recipe file but there is no such file");
  EXPECT_EQ(message_of_file(folder),
            "[config] " + folder + " must be a recipe file but is a folder; name a file in it");
  std::ofstream(large) << "# " << std::string(size_t{17} << 20, 'x');
  EXPECT_EQ(message_of_file(large),
            "[config] " + large + " must be a recipe of at most 16 MiB but is larger");
}

TEST_F(BadFile, IsNamedWithLineAndColumn) {
  const std::string path = folder_ / "recipe.yaml";
  std::ofstream(path) << "model:\n  depth: twelve\n";
  EXPECT_EQ(message_of_file(path),
            "[config] model.depth must be a whole number but got 'twelve'  (" + path + ":2:10)");
}

/// Nothing here may take long or much memory, whatever it says.
TEST(BadRecipe, HostileTextIsBounded) {
  const auto repeat = [](const std::string& piece, int times) {
    std::string text;
    for (int i = 0; i < times; ++i) text += piece;
    return text;
  };
  std::string bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n", keys, deep;
  for (char c = 'b'; c <= 'k'; ++c)
    bomb += fmt::format("{0}: &{0} [{1}]\n", c,
                        repeat(fmt::format("*{}, ", static_cast<char>(c - 1)), 10));
  for (int i = 0; i < 100'000; ++i) keys += fmt::format("key{}: 1\n", i);
  for (int i = 0; i < 1000; ++i) deep += std::string(static_cast<size_t>(i), ' ') + "a:\n";
  const std::string long_text =
      "a: &a " + std::string(1 << 20, 'x') + "\nb: [" + repeat("*a, ", 1000) + "]\n";
  const auto start = std::chrono::steady_clock::now();
  for (const std::string& text :
       {bomb, keys, deep, long_text, std::string(1 << 20, '['), std::string(1 << 20, '{'),
        repeat("- ", 1 << 20), repeat("{a: ", 1 << 18), "a: [" + repeat("1,", 1 << 20) + "]"})
    EXPECT_NE(message_of(text, {}).find("[config] "), std::string::npos) << text.substr(0, 40);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  fmt::print("hostile texts: {:.2f} s\n", seconds.count());
  EXPECT_LT(seconds.count(),
            60.0);  // 2 s on 2 cores of a cloud machine; minutes if a limit is lost
}

TEST(BadRecipe, ManyProblemsAreCutShort) {
  std::string yaml = "model:\n";
  for (int i = 0; i < 500; ++i) yaml += fmt::format("  nonsense_{}: 1\n", i);
  const std::string message = message_of(yaml, {});
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 100);
  EXPECT_NE(message.find("\n[config] and 400 more problems"), std::string::npos);
}

}  // namespace
}  // namespace vitrail::config

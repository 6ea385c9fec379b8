// The JSON form of statistics.h.

#include <cmath>
#include <set>

#include "vitrail/core/error.h"
#include "vitrail/data/statistics.h"
#include <nlohmann/json.hpp>

namespace vitrail::data {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "vitrail statistics 1";

/// One list a number, each with an entry a channel, as a recipe takes mean and std.
Json channels_json(const std::vector<ChannelStatistics>& channels) {
  Json json{{"mean", Json::array()},
            {"std", Json::array()},
            {"min", Json::array()},
            {"max", Json::array()},
            {"percentiles", Json::array()}};
  for (const ChannelStatistics& channel : channels) {
    json["mean"].push_back(channel.mean);
    json["std"].push_back(channel.std);
    json["min"].push_back(channel.min);
    json["max"].push_back(channel.max);
    json["percentiles"].push_back(channel.percentiles);
  }
  return json;
}

double finite(const Json& value) {
  const auto number = value.get<double>();
  VT_CHECK(std::isfinite(number), "numbers must be finite");
  return number;
}

std::vector<ChannelStatistics> channels_of(const Json& json) {
  std::vector<ChannelStatistics> channels;
  const size_t n = json.at("mean").size(), points = stored_percents().size();
  for (const char* key : {"std", "min", "max", "percentiles"})
    VT_CHECK(json.at(key).size() == n, "mean has {} channels but {} has {}", n, key,
             json.at(key).size());
  for (size_t c = 0; c < n; ++c) {
    ChannelStatistics channel{finite(json.at("mean").at(c)),
                              finite(json.at("std").at(c)),
                              finite(json.at("min").at(c)),
                              finite(json.at("max").at(c)),
                              {}};
    VT_CHECK(channel.std >= 0 && channel.min <= channel.max, "std is below zero or min above max");
    for (const Json& value : json.at("percentiles").at(c)) {
      const double number = finite(value);
      VT_CHECK(channel.percentiles.empty() || channel.percentiles.back() <= number,
               "percentiles must rise");
      channel.percentiles.push_back(number);
    }
    VT_CHECK(channel.percentiles.size() == points, "percentiles must be {} a channel but are {}",
             points, channel.percentiles.size());
    channels.push_back(std::move(channel));
  }
  return channels;
}

Json source_json(const SourceStatistics& source) {
  Json json{{"files", source.files},
            {"pixels", source.pixels},
            {"not_finite", source.not_finite},
            {"full_scale", source.full_scale},
            {"percentile_error", source.percentile_error},
            {"variables", source.variables},
            {"normalize", source.normalize}};
  json["raw"] = channels_json(source.raw);
  json["normalized"] = channels_json(source.normalized);
  return json;
}

SourceStatistics source_of(const Json& json) {
  SourceStatistics source;
  source.files = json.at("files").get<int64_t>();
  source.pixels = json.at("pixels").get<int64_t>();
  source.not_finite = json.at("not_finite").get<int64_t>();
  source.full_scale = finite(json.at("full_scale"));
  source.percentile_error = finite(json.at("percentile_error"));
  source.variables = json.at("variables").get<std::vector<std::string>>();
  source.normalize = json.at("normalize").get<std::string>();
  source.raw = channels_of(json.at("raw"));
  source.normalized = channels_of(json.at("normalized"));
  VT_CHECK(source.raw.size() == source.normalized.size(),
           "raw has {} channels but normalized has {}", source.raw.size(),
           source.normalized.size());
  VT_CHECK(source.variables.empty() || source.variables.size() == source.raw.size(),
           "there are {} variables but {} channels", source.variables.size(), source.raw.size());
  return source;
}

}  // namespace

std::string statistics_json(const StatisticsFile& file) {
  std::set<std::string> names;
  Json json{{"format", kFormat}, {"percents", stored_percents()}, {"sources", Json::object()}};
  for (const auto& [name, source] : file) {
    VT_REQUIRE(ConfigError, names.insert(name).second,
               "[data] two sources are named '{}', so that their statistics cannot be told apart; "
               "give each a name",
               name);
    json["sources"][name] = source_json(source);
  }
  return json.dump(1) + "\n";
}

StatisticsFile parse_statistics(const std::string& text, const std::string& name) {
  try {
    const Json json = Json::parse(text);
    VT_CHECK(json.at("format") == kFormat, "its format is not '{}'", kFormat);
    const auto percents = json.at("percents").get<std::vector<double>>();
    const auto stored = stored_percents();
    VT_CHECK(std::equal(percents.begin(), percents.end(), stored.begin(), stored.end()),
             "its percents are not those that inspect writes");
    StatisticsFile file;
    for (const auto& [source, entry] : json.at("sources").items())
      file.emplace_back(source, source_of(entry));
    VT_CHECK(!file.empty(), "it has no sources");
    return file;
  } catch (const std::exception& error) {  // JSON's own errors and those above
    core::fail<core::DataError>("[data] {}: is not a statistics file of vitrail data inspect: {}",
                                name, error.what());
  }
}

}  // namespace vitrail::data

#include "vitrail/train/report_data.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int64_t kMaxBytes = int64_t{1} << 30;

std::string read_text(const fs::path& path) { return core::read_file(path.string(), kMaxBytes); }

Json to_json(const Rows& rows) {
  Json out = Json::array();
  for (const auto& [name, value] : rows) out.push_back({name, value});
  return out;
}

Rows rows_from(const Json& json) {
  Rows rows;
  for (const Json& row : json)
    rows.emplace_back(row.at(0).get<std::string>(), row.at(1).get<std::string>());
  return rows;
}

double number(const Json& record, const char* key) {
  const auto found = record.find(key);
  return found != record.end() && found->is_number() ? found->get<double>()
                                                     : std::numeric_limits<double>::quiet_NaN();
}

Json to_json(const ReportData::Split& split) {
  Json metrics = Json::object();
  for (const auto& [name, value] : split.metrics) metrics[name] = value;
  return {{"split", split.name},          {"samples", split.samples},
          {"seconds", split.seconds},     {"metrics", metrics},
          {"confusion", split.confusion}, {"class_names", split.class_names}};
}

ReportData::Split split_from(const Json& json) {
  ReportData::Split split;
  split.name = json.at("split").get<std::string>();
  split.samples = json.at("samples").get<int64_t>();
  split.seconds = number(json, "seconds");
  for (const auto& [name, value] : json.at("metrics").items())
    split.metrics.emplace_back(name, number(json.at("metrics"), name.c_str()));
  split.confusion = json.at("confusion").get<std::vector<std::vector<int64_t>>>();
  split.class_names = json.at("class_names").get<std::vector<std::string>>();
  return split;
}

PictureTable pictures_from(const Json& json, const fs::path& folder) {
  PictureTable table{json.at("heading").get<std::string>(),
                     json.at("columns").get<std::vector<std::string>>(),
                     {}};
  for (const Json& names : json.at("rows")) {
    std::vector<std::string>& row = table.rows.emplace_back();
    for (const Json& name : names) row.push_back(read_text(folder / name.get<std::string>()));
  }
  return table;
}

/// Writes the pictures of a table, the `number`th of the run, and says which file is where.
Json write_pictures(const fs::path& root, const PictureTable& table, size_t number) {
  Json rows = Json::array();
  for (size_t i = 0; i < table.rows.size(); ++i) {
    Json names = Json::array();
    for (size_t k = 0; k < table.rows[i].size(); ++k) {
      names.push_back(fmt::format("report/picture-{}-{:02}-{}.png", number, i, k));
      core::write_file_atomic((root / names.back().get<std::string>()).string(), table.rows[i][k]);
    }
    rows.push_back(names);
  }
  return {{"heading", table.heading}, {"columns", table.columns}, {"rows", rows}};
}

/// Format 1 knew the pictures of masked autoencoders alone, in rows without a heading.
PictureTable pictures_of_format_1(const Json& rows, const fs::path& folder) {
  return pictures_from(
      {{"heading", "Hidden patches"},
       {"columns", {"original", "masked", "reconstruction", "visible + predicted"}},
       {"rows", rows}},
      folder);
}

void read_pictures(const Json& json, const fs::path& folder, ReportData& data) {
  if (json.value("format", 1) >= 2) {
    for (const Json& item : json.at("pictures"))
      data.pictures.push_back(pictures_from(item, folder));
  } else if (const auto rows = json.find("reconstructions"); rows != json.end() && !rows->empty()) {
    data.pictures.push_back(pictures_of_format_1(*rows, folder));
  }
}

void read_data_json(const fs::path& folder, ReportData& data) {
  const Json json = Json::parse(read_text(folder / "report/data.json"));
  data.name = json.at("name").get<std::string>();
  data.kind = json.at("kind").get<std::string>();
  data.averaged_weights = json.at("averaged_weights").get<bool>();
  data.layout = rows_from(json.at("layout"));
  data.environment = rows_from(json.at("environment"));
  for (const Json& split : json.at("splits")) data.splits.push_back(split_from(split));
  for (const Json& item : json.at("verdicts"))
    data.verdicts.push_back({read_text(folder / item.at("picture").get<std::string>()),
                             item.at("truth").get<std::string>(),
                             item.at("predicted").get<std::string>(), number(item, "probability"),
                             item.at("right").get<bool>()});
  read_pictures(json, folder, data);
}

void add_evaluation(Curves& curves, const Json& record) {
  const auto split = record.at("split").get<std::string>();
  for (const auto& [name, value] : record.at("metrics").items()) {
    if (!value.is_number()) continue;
    Curves::Evaluation* into = nullptr;
    for (Curves::Evaluation& known : curves.evaluations)
      if (known.split == split && known.metric == name) into = &known;
    if (into == nullptr)
      into = &curves.evaluations.emplace_back(Curves::Evaluation{split, name, {}});
    into->points.x.push_back(number(record, "step"));
    into->points.y.push_back(value.get<double>());
  }
}

Curves read_curves(const fs::path& path) {
  Curves curves;
  std::istringstream lines(read_text(path));
  for (std::string line; std::getline(lines, line);) {
    const Json record = Json::parse(line, nullptr, false);
    if (!record.is_object()) continue;  // a last line cut short by a kill
    if (record.contains("split")) {
      add_evaluation(curves, record);
      continue;
    }
    const std::pair<Series*, const char*> columns[] = {
        {&curves.loss, "loss"},
        {&curves.lr, "lr"},
        {&curves.grad_norm, "grad_norm"},
        {&curves.images_per_second, "images_per_second"},
        {&curves.step_ms, "step_ms"},
        {&curves.data_wait_ms, "data_wait_ms"},
        {&curves.memory, "peak_memory_gib"}};
    for (const auto& [series, key] : columns) {
      series->x.push_back(number(record, "step"));
      series->y.push_back(number(record, key));
    }
  }
  return curves;
}

std::vector<HistoryEntry> read_history(const fs::path& path) {
  std::vector<HistoryEntry> history;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    const Json json = Json::parse(line, nullptr, false);
    if (!json.is_object()) continue;
    history.push_back({json.value("time", ""), json.value("step", int64_t{0}),
                       json.value("command", ""), json.value("host", ""), json.value("version", ""),
                       json.value("ranks", int64_t{1})});
  }
  return history;
}

}  // namespace

void save_report_data(const std::string& folder, const ReportData& data) {
  const fs::path root = folder;
  fs::remove_all(root / "report");
  core::make_directories((root / "report").string());
  Json verdicts = Json::array(), pictures = Json::array(), splits = Json::array();
  for (size_t i = 0; i < data.verdicts.size(); ++i) {
    const Verdict& verdict = data.verdicts[i];
    const std::string name = fmt::format("report/sample-{:02}.png", i);
    core::write_file_atomic((root / name).string(), verdict.picture);
    verdicts.push_back({{"picture", name},
                        {"truth", verdict.truth},
                        {"predicted", verdict.predicted},
                        {"probability", verdict.probability},
                        {"right", verdict.right}});
  }
  for (size_t i = 0; i < data.pictures.size(); ++i)
    pictures.push_back(write_pictures(root, data.pictures[i], i));
  for (const ReportData::Split& split : data.splits) splits.push_back(to_json(split));
  const Json json{{"format", 2},
                  {"name", data.name},
                  {"kind", data.kind},
                  {"averaged_weights", data.averaged_weights},
                  {"layout", to_json(data.layout)},
                  {"environment", to_json(data.environment)},
                  {"splits", splits},
                  {"verdicts", verdicts},
                  {"pictures", pictures}};
  core::write_file_atomic((root / "report/data.json").string(),
                          json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
}

ReportData load_report_data(const std::string& folder) {
  const fs::path root = folder;
  VT_REQUIRE(DataError, fs::is_directory(root),
             "[report] {} must be the folder of a run but there is no such folder", folder);
  ReportData data;
  data.name = fs::weakly_canonical(root).filename().string();
  data.recipe = read_text(root / "recipe.yaml");
  data.curves = read_curves(root / "metrics.jsonl");
  data.history = read_history(root / "history.jsonl");
  if (!fs::exists(root / "report/data.json")) return data;
  try {
    read_data_json(root, data);
  } catch (const Json::exception& error) {
    core::fail<core::DataError>("[report] {} is not what training writes: {}",
                                (root / "report/data.json").string(), error.what());
  }
  return data;
}

void append_history(const std::string& folder, const HistoryEntry& entry) {
  const fs::path path = fs::path(folder) / "history.jsonl";
  const Json json{{"time", entry.time}, {"step", entry.step},       {"command", entry.command},
                  {"host", entry.host}, {"version", entry.version}, {"ranks", entry.ranks}};
  std::ofstream out(path, std::ios::app);
  out << json.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
  VT_CHECK(out.flush().good(),
           "[output] {} could not be written; free space or choose another run.output",
           path.string());
}

}  // namespace vitrail::train

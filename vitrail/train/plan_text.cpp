// A plan for people and as JSON.

#include <fmt/format.h>

#include "vitrail/train/plan.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {
namespace {

constexpr double kGiB = 0x1p30;

std::string mesh_text(const MeshSizes& mesh) {
  std::string text;
  for (int axis = 0; axis < comm::kAxisCount; ++axis)
    text += fmt::format("{}{} {}", axis == 0 ? "" : " x ",
                        comm::name(static_cast<comm::Axis>(axis)), mesh[static_cast<size_t>(axis)]);
  return text;
}

std::string bytes_text(double bytes) {
  if (bytes >= kGiB / 10) return fmt::format("{:.2f} GiB", bytes / kGiB);
  if (bytes >= 0x1p20 / 10) return fmt::format("{:.2f} MiB", bytes / 0x1p20);
  return fmt::format("{:.0f} B", bytes);
}

std::string count_text(int64_t count) {
  if (count >= 100'000'000) return fmt::format("{:.2f} B", static_cast<double>(count) * 1e-9);
  return fmt::format("{:.2f} M", static_cast<double>(count) * 1e-6);
}

std::string memory_text(const Plan& plan) {
  std::string text = fmt::format(
      "memory of GPU {}{}\n", plan.worst_rank,
      plan.mesh[2] > 1 ? fmt::format(", of stage {}, which needs most", plan.worst_stage) : "");
  for (const MemoryItem& item : plan.memory)
    text += fmt::format("  {:<26}{:>12}  {}\n", item.name, bytes_text(item.bytes), item.note);
  text += fmt::format("  {:<26}{:>12}  what the allocator's peak should show\n", "peak",
                      bytes_text(plan.peak_bytes));
  text +=
      fmt::format("  {:<26}{:>12}  driver, libraries, communicators; from the machine's table\n",
                  "outside", bytes_text(plan.context_bytes));
  if (plan.host_bytes > 0)
    text += fmt::format("  {:<26}{:>12}  of host memory a GPU\n", "offloaded",
                        bytes_text(plan.host_bytes));
  return text + fmt::format("  {} of {}\n", plan.fits() ? "fits" : "DOES NOT FIT: more than",
                            bytes_text(plan.capacity_bytes));
}

std::string collectives_text(const Plan& plan) {
  if (plan.collectives.empty()) return "";
  std::string text = "collectives of one GPU in a step\n";
  text += fmt::format("  {:<22}{:<15}{:>7}{:>7}{:>9}{:>13}{:>13}{:>11}{:>11}  {}\n", "for", "kind",
                      "ranks", "hosts", "count", "buffers", "sent", "ms", "exposed", "along");
  for (const CollectiveItem& c : plan.collectives)
    text +=
        fmt::format("  {:<22}{:<15}{:>7}{:>7}{:>9.0f}{:>13}{:>13}{:>11.2f}{:>11.2f}  {}\n",
                    c.purpose, c.kind, c.shape.ranks, c.shape.hosts, c.count, bytes_text(c.bytes),
                    bytes_text(c.wire_bytes), c.seconds * 1e3, c.exposed_seconds * 1e3, c.group);
  return text;
}

std::string utilisation_text(const Plan& plan) {
  return plan.utilisation ? fmt::format(", MFU {:.1f} %", 100 * *plan.utilisation) : "";
}

nlohmann::ordered_json json_of(const Plan& plan) {
  nlohmann::ordered_json mesh, memory = nlohmann::ordered_json::array(), collectives = memory;
  for (int axis = 0; axis < comm::kAxisCount; ++axis)
    mesh[comm::name(static_cast<comm::Axis>(axis))] = plan.mesh[static_cast<size_t>(axis)];
  for (const MemoryItem& item : plan.memory)
    memory.push_back({{"name", item.name}, {"bytes", item.bytes}, {"note", item.note}});
  for (const CollectiveItem& c : plan.collectives)
    collectives.push_back({{"purpose", c.purpose},
                           {"kind", c.kind},
                           {"along", c.group},
                           {"ranks", c.shape.ranks},
                           {"hosts", c.shape.hosts},
                           {"count", c.count},
                           {"bytes", c.bytes},
                           {"sent_bytes", c.wire_bytes},
                           {"ms", c.seconds * 1e3},
                           {"exposed_ms", c.exposed_seconds * 1e3}});
  nlohmann::ordered_json object{{"machine", plan.machine},
                                {"gpus", plan.gpus},
                                {"mesh", mesh},
                                {"strategy", plan.strategy},
                                {"recompute", plan.recompute},
                                {"precision", plan.precision},
                                {"batch_size", plan.batch_size},
                                {"local_batch", plan.local_batch},
                                {"micro_batches", plan.micro_batches},
                                {"parameters", plan.parameters},
                                {"rank_parameters", plan.rank_parameters},
                                {"kept_parameters", plan.kept_parameters},
                                {"worst_rank", plan.worst_rank},
                                {"worst_stage", plan.worst_stage},
                                {"memory", memory},
                                {"peak_gib", plan.peak_bytes / kGiB},
                                {"context_gib", plan.context_bytes / kGiB},
                                {"host_gib", plan.host_bytes / kGiB},
                                {"capacity_gib", plan.capacity_bytes / kGiB},
                                {"fits", plan.fits()},
                                {"model_flops", plan.model_flops},
                                {"hardware_flops_per_gpu", plan.hardware_flops},
                                {"collectives", collectives}};
  object["ms"] = {{"step", plan.step_seconds * 1e3},
                  {"compute", plan.compute_seconds * 1e3},
                  {"exposed_communication", plan.exposed_seconds * 1e3},
                  {"bubble", plan.bubble_seconds * 1e3},
                  {"optimizer", plan.optimizer_seconds * 1e3}};
  object["images_per_second"] = plan.images_per_second;
  object["model_tflops_per_gpu"] = plan.model_tflops_per_gpu;
  object["mfu"] = plan.utilisation ? nlohmann::ordered_json(*plan.utilisation)
                                   : nlohmann::ordered_json(nullptr);
  return object;
}

}  // namespace

std::string to_text(const Plan& plan) {
  std::string text =
      fmt::format("{} = {} GPUs of {}\n", mesh_text(plan.mesh), plan.gpus, plan.machine);
  text += fmt::format("{}, {}, recompute {}; batch {} = {} a data rank in {} passes\n",
                      plan.strategy, plan.precision, plan.recompute, plan.batch_size,
                      plan.local_batch, plan.micro_batches);
  text += fmt::format("{} parameters; a GPU computes with {} and keeps {}\n\n",
                      count_text(plan.parameters), count_text(plan.rank_parameters),
                      count_text(plan.kept_parameters));
  text += memory_text(plan) + "\n" + collectives_text(plan);
  text += fmt::format(
      "\nstep {:.1f} ms = compute {:.1f} + exposed communication {:.1f} + bubble {:.1f} + "
      "optimizer {:.1f}\n",
      plan.step_seconds * 1e3, plan.compute_seconds * 1e3, plan.exposed_seconds * 1e3,
      plan.bubble_seconds * 1e3, plan.optimizer_seconds * 1e3);
  return text +
         fmt::format("{:.1f} images/s, {:.1f} TFLOP/s of the model a GPU{}; {:.3g} FLOP a step\n",
                     plan.images_per_second, plan.model_tflops_per_gpu, utilisation_text(plan),
                     plan.model_flops);
}

std::string to_json(const Plan& plan) { return json_of(plan).dump(2); }

std::string to_table(const std::vector<Plan>& plans) {
  std::string text =
      fmt::format("{:<10}{:>9}{:>7}{:>9}{:>9}{:>7}  {:<10}{:>7}{:>10}{:>12}{:>10}{:>7}{:>9}{:>8}\n",
                  "strategy", "replicate", "shard", "pipeline", "sequence", "tensor", "recompute",
                  "passes", "GiB", "images/s", "ms", "MFU %", "exposed", "bubble");
  for (const Plan& p : plans)
    text += fmt::format(
        "{:<10}{:>9}{:>7}{:>9}{:>9}{:>7}  "
        "{:<10}{:>7}{:>10.2f}{:>12.1f}{:>10.1f}{:>7.1f}{:>8.1f}%{:>7.1f}%{}\n",
        p.strategy, p.mesh[0], p.mesh[1], p.mesh[2], p.mesh[3], p.mesh[4], p.recompute,
        p.micro_batches, (p.peak_bytes + p.context_bytes) / kGiB, p.images_per_second,
        p.step_seconds * 1e3, 100 * p.utilisation.value_or(0),
        100 * p.exposed_seconds / p.step_seconds, 100 * p.bubble_seconds / p.step_seconds,
        p.fits() ? "" : "  does not fit");
  return text;
}

}  // namespace vitrail::train

// TensorBoard events of a run.

#include "vitrail/io/tensorboard.h"
#include "vitrail/train/sinks.h"

namespace vitrail::train {

namespace {

class TensorboardSink : public MetricSink {
 public:
  explicit TensorboardSink(const std::string& folder) : writer_(folder) {}

  void step(const StepRecord& record) override {
    const std::pair<const char*, double> values[] = {
        {"train/loss", record.loss},
        {"train/lr", record.lr},
        {"train/grad_norm", record.grad_norm},
        {"train/epoch", record.epoch},
        {"speed/step_ms", record.step_ms},
        {"speed/data_wait_ms", record.data_wait_ms},
        {"speed/images_per_second", record.images_per_second},
        {"speed/model_tflops", record.model_tflops},
        {"memory/peak_gib", record.peak_memory_gib},
        {"memory/host_gib", record.host_memory_gib}};
    for (const auto& [name, epochs] : record.sources)
      writer_.add_scalar("epochs/" + name, record.step, epochs);
    for (const auto& [tag, value] : values) writer_.add_scalar(tag, record.step, value);
    for (const auto& [name, value] : record.terms)
      writer_.add_scalar("train/" + name, record.step, value);
    if (record.mfu) writer_.add_scalar("speed/mfu", record.step, *record.mfu);
    writer_.flush();
  }
  void evaluation(const EvaluationRecord& record) override {
    for (const auto& [name, value] : record.metrics)
      writer_.add_scalar("eval/" + record.split + "/" + name, record.step, value);
    writer_.flush();
  }
  void flush() override { writer_.flush(); }

 private:
  io::TensorboardWriter writer_;
};

}  // namespace

std::unique_ptr<MetricSink> tensorboard_sink(const std::string& folder) {
  return std::make_unique<TensorboardSink>(folder);
}

}  // namespace vitrail::train

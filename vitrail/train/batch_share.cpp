#include "vitrail/train/batch_share.h"

#include <exception>
#include <new>

#include <ATen/ops/empty.h>

#include "vitrail/core/clock.h"
#include "vitrail/core/error.h"
#include "vitrail/parallel/device.h"
#include "vitrail/train/assembly.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {

namespace {

using comm::Axis;
using core::ExitCode;
using Json = nlohmann::json;

constexpr int kReader = 0;

/// A reading rank's error, as it travels.
struct Failure {
  ExitCode code;
  std::string message;
};

Failure failure_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const core::Error& known) {
    return {known.exit_code(), known.what()};
  } catch (const std::bad_alloc&) {
    return {ExitCode::out_of_memory, "[memory] the reading rank has no memory left"};
  } catch (const std::exception& other) {
    return {ExitCode::other, other.what()};
  }
}

[[noreturn]] void rethrow(const Failure& failure) {
  if (failure.code == ExitCode::config) throw core::ConfigError(failure.message);
  if (failure.code == ExitCode::data) throw core::DataError(failure.message);
  if (failure.code == ExitCode::out_of_memory) throw core::OutOfMemoryError(failure.message);
  throw core::Error(failure.message, failure.code);
}

/// Paths in messages may hold any bytes.
std::string text_of(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// All of a batch but its tensors' bytes.
std::string description(data::Batch& batch) {
  Json tensors = Json::array();
  for (const at::Tensor* tensor : batch.columns())
    tensors.push_back(tensor->defined() ? Json{{"dtype", static_cast<int>(tensor->scalar_type())},
                                               {"sides", tensor->sizes().vec()}}
                                        : Json());
  return text_of({{"epoch", batch.epoch},
                  {"slot", batch.slot},
                  {"variables", batch.variables},
                  {"tensors", tensors}});
}

/// The batch that such a text describes, its tensors without values.
data::Batch blank(const Json& described, at::Device device) {
  data::Batch batch;
  batch.epoch = described.at("epoch");
  batch.slot = described.at("slot");
  batch.variables = described.at("variables").get<std::vector<std::string>>();
  const auto columns = batch.columns();
  for (size_t i = 0; i < columns.size(); ++i) {
    const Json& tensor = described.at("tensors").at(i);
    if (tensor.is_null()) continue;
    const auto dtype = static_cast<at::ScalarType>(tensor.at("dtype").get<int>());
    *columns[i] = at::empty(tensor.at("sides").get<std::vector<int64_t>>(),
                            at::TensorOptions().dtype(dtype).device(device));
  }
  return batch;
}

}  // namespace

BatchShare::BatchShare(comm::Mesh& mesh, at::Device device, bool load_once)
    : groups_(mesh, device),
      is_sent_(load_once &&
               mesh.size(Axis::pipeline) * mesh.size(Axis::sequence) * mesh.size(Axis::tensor) >
                   1) {
  if (!is_sent_) return;
  host_ = &mesh.along({Axis::pipeline, Axis::sequence, Axis::tensor});
  device_ = &groups_.along({Axis::pipeline, Axis::sequence, Axis::tensor});
  is_first_ = host_->rank() == kReader;
}

data::Batch BatchShare::next(data::Loader& loader) {
  if (is_sent_) return is_first_ ? send(loader) : receive(loader);
  data::Batch batch = loader.next();
  waited_ms_ = loader.waited_ms();
  return batch;
}

data::Batch BatchShare::send(data::Loader& loader) {
  data::Batch batch;
  try {
    batch = on_device(loader.next(), groups_.device());
  } catch (...) {
    const Failure failure = failure_of(std::current_exception());
    std::string text =
        text_of({{"code", static_cast<int>(failure.code)}, {"error", failure.message}});
    broadcast(text);
    throw;
  }
  waited_ms_ = loader.waited_ms();
  std::string text = description(batch);
  broadcast(text);
  broadcast(batch);
  return batch;
}

data::Batch BatchShare::receive(data::Loader& loader) {
  const core::Stopwatch watch;
  std::string text;
  broadcast(text);
  const Json described = Json::parse(text);
  if (described.contains("error"))
    rethrow({static_cast<ExitCode>(described.at("code").get<int>()), described.at("error")});
  data::Batch batch = blank(described, groups_.device());
  broadcast(batch);
  waited_ms_ = watch.ms();
  loader.skip();
  return batch;
}

void BatchShare::broadcast(std::string& text) {
  auto size = static_cast<int64_t>(text.size());
  host_->broadcast({&size, 1, core::DType::i64}, kReader).wait();
  text.resize(static_cast<size_t>(size));
  host_->broadcast({text.data(), size, core::DType::u8}, kReader).wait();
}

void BatchShare::broadcast(data::Batch& batch) {
  for (at::Tensor* tensor : batch.rows()) {
    *tensor = tensor->contiguous();
    if (tensor->numel() == 0) continue;
    device_
        ->broadcast({tensor->data_ptr(), static_cast<int64_t>(tensor->nbytes()), core::DType::u8},
                    kReader, parallel::current_stream(groups_.device()))
        .wait();
  }
}

}  // namespace vitrail::train

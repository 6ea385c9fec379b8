#include "vitrail/io/safetensors_header.h"

#include <array>
#include <cstdint>
#include <limits>
#include <set>

#include "vitrail/core/error.h"
#include "vitrail/core/text.h"
#include <nlohmann/json.hpp>

namespace vitrail::io {
namespace {

using core::CheckpointError;
using core::DType;

struct DTypeName {
  DType dtype;
  std::string_view name;
};
constexpr std::array kDTypes = {
    DTypeName{DType::f64, "F64"},     DTypeName{DType::f32, "F32"}, DTypeName{DType::f16, "F16"},
    DTypeName{DType::bf16, "BF16"},   DTypeName{DType::i64, "I64"}, DTypeName{DType::i32, "I32"},
    DTypeName{DType::i16, "I16"},     DTypeName{DType::i8, "I8"},   DTypeName{DType::u64, "U64"},
    DTypeName{DType::u32, "U32"},     DTypeName{DType::u16, "U16"}, DTypeName{DType::u8, "U8"},
    DTypeName{DType::boolean, "BOOL"}};

/// Walks { name: {"dtype": .., "shape": [..], "data_offsets": [a, b]}, .., "__metadata__": {..} }
/// event by event.
class HeaderHandler : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderHandler(const std::string& file, SafetensorsHeader& header)
      : file_(file), header_(header) {}

  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("true or false"); }
  bool number_float(number_float_t, const string_t&) override { unexpected("a fraction"); }
  bool binary(binary_t&) override { unexpected("binary data"); }
  bool number_integer(number_integer_t value) override {
    if (value < 0) refuse("numbers must be zero or more but got {}", value);
    return number(value);
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      refuse("numbers must fit in 63 bits but got {}", value);
    return number(static_cast<int64_t>(value));
  }

  bool string(string_t& value) override {
    if (place_ == Place::metadata) {
      header_.metadata.emplace(key_, value);
    } else if (place_ == Place::tensor && key_ == "dtype") {
      set_dtype(value);
    } else {
      unexpected("a string");
    }
    return true;
  }

  bool start_object(size_t) override {
    if (place_ == Place::before) {
      place_ = Place::top;
    } else if (place_ == Place::top) {
      place_ = name_ == "__metadata__" ? Place::metadata : Place::tensor;
      info_ = {};
      keys_.clear();
    } else {
      unexpected("an object");
    }
    return true;
  }

  bool key(string_t& key) override {
    if (place_ == Place::top) {
      name_ = key;
      if (!names_.insert(key).second) refuse("must appear once in the header but is there twice");
    } else {
      key_ = key;
      if (!keys_.insert(key).second)
        refuse("key '{}' must appear once but is there twice", core::printable(key));
      if (place_ == Place::tensor && key != "dtype" && key != "shape" && key != "data_offsets")
        refuse("keys must be dtype, shape and data_offsets but got '{}'", core::printable(key));
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::tensor) {
      if (keys_.size() != 3)
        refuse("must have dtype, shape and data_offsets but has {} of them", keys_.size());
      header_.tensors.emplace_back(name_, info_);
    }
    place_ = place_ == Place::top ? Place::after : Place::top;
    return true;
  }

  bool start_array(size_t) override {
    if (place_ != Place::tensor || key_ == "dtype") unexpected("an array");
    place_ = key_ == "shape" ? Place::shape : Place::offsets;
    offsets_ = 0;
    return true;
  }

  bool end_array() override {
    if (place_ == Place::offsets && offsets_ != 2)
      refuse("data_offsets must be two numbers but got {}", offsets_);
    place_ = Place::tensor;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    core::fail<CheckpointError>(
        "[safetensors] {}: the header must be JSON but byte {} of it is wrong; the file is damaged "
        "or not a safetensors file",
        file_, position);
  }

 private:
  enum class Place { before, top, tensor, metadata, shape, offsets, after };

  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    core::fail<CheckpointError>(
        "[safetensors] {}: {}: {}", file_,
        names_.empty() ? "header" : "tensor '" + core::printable(name_) + "'",
        fmt::format(format, std::forward<Args>(args)...));
  }

  [[noreturn]] void unexpected(std::string_view what) const {
    switch (place_) {
      case Place::metadata:
        refuse("metadata must be strings but got {}", what);
      case Place::top:
        refuse("must be an object but got {}", what);
      case Place::tensor:
        refuse("{} must not be {}", key_, what);
      case Place::shape:
        refuse("shape must be whole numbers but got {}", what);
      case Place::offsets:
        refuse("data_offsets must be whole numbers but got {}", what);
      default:
        refuse("must be a JSON object but got {}", what);
    }
  }

  bool number(int64_t value) {
    if (place_ == Place::shape) {
      info_.shape.push_back(value);
    } else if (place_ == Place::offsets) {
      if (offsets_ < 2) (offsets_ == 0 ? info_.begin : info_.end) = value;
      ++offsets_;
    } else {
      unexpected("a number");
    }
    return true;
  }

  void set_dtype(std::string_view value) {
    for (const DTypeName& known : kDTypes)
      if (known.name == value) {
        info_.dtype = known.dtype;
        return;
      }
    refuse("dtype must be one of F64 F32 F16 BF16 I64 I32 I16 I8 U64 U32 U16 U8 BOOL but got '{}'",
           core::printable(value));
  }

  const std::string& file_;
  SafetensorsHeader& header_;
  Place place_ = Place::before;
  std::string name_, key_;
  std::set<std::string, std::less<>> names_, keys_;
  SafetensorsInfo info_;
  int64_t offsets_ = 0;
};

}  // namespace

std::string_view safetensors_dtype(DType dtype) {
  for (const DTypeName& known : kDTypes)
    if (known.dtype == dtype) return known.name;
  core::fail("[safetensors] dtype {} has no name in the format", static_cast<int>(dtype));
}

SafetensorsHeader parse_safetensors_header(std::string_view json, const std::string& file) {
  SafetensorsHeader header;
  VT_REQUIRE(CheckpointError, json.starts_with('{'),
             "[safetensors] {}: the header must start with '{{'; the file is damaged or not a "
             "safetensors file",
             file);
  HeaderHandler handler(file, header);
  nlohmann::json::sax_parse(json.begin(), json.end(), &handler);
  return header;
}

}  // namespace vitrail::io

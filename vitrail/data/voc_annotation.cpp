#include "vitrail/data/voc_annotation.h"

#include <charconv>
#include <cmath>

#include "vitrail/core/error.h"
#include "vitrail/core/text.h"
#include "vitrail/io/xml.h"

namespace vitrail::data {
namespace {

using io::XmlElement;

constexpr double kMaxSide = 1 << 20;

const XmlElement& child_of(const XmlElement& parent, const char* wanted, const std::string& name) {
  const XmlElement* child = parent.child(wanted);
  VT_REQUIRE(DataError, child != nullptr, "[data] {}:{}: <{}> must hold a <{}>", name, parent.line,
             core::printable(parent.name), wanted);
  return *child;
}

double number_of(const XmlElement& parent, const char* wanted, const std::string& name) {
  const XmlElement& element = child_of(parent, wanted, name);
  const std::string& text = element.text;
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool fits = error == std::errc() && end == text.data() + text.size() &&
                    std::abs(value) <= kMaxSide;  // false for NaN
  VT_REQUIRE(DataError, fits, "[data] {}:{}: <{}> must be a number of at most {} but is '{}'", name,
             element.line, wanted, kMaxSide, core::printable(text));
  return value;
}

/// 0 when the file leaves the size open, as some programs do.
int64_t side_of(const XmlElement& size, const char* wanted, const std::string& name) {
  const double side = number_of(size, wanted, name);
  VT_REQUIRE(DataError, side >= 0 && side == std::floor(side),
             "[data] {}:{}: <{}> must be a whole number of pixels but is {}", name, size.line,
             wanted, side);
  return static_cast<int64_t>(side);
}

VocObject object_of(const XmlElement& element, const std::string& name) {
  VocObject object;
  object.name = child_of(element, "name", name).text;
  VT_REQUIRE(DataError, !object.name.empty() && core::printable(object.name) == object.name,
             "[data] {}:{}: the name of an object must be a short text but is '{}'", name,
             element.line, core::printable(object.name));
  const XmlElement& box = child_of(element, "bndbox", name);
  object.corners = {number_of(box, "xmin", name) - 1, number_of(box, "ymin", name) - 1,
                    number_of(box, "xmax", name), number_of(box, "ymax", name)};
  return object;
}

}  // namespace

VocAnnotation parse_voc(std::string_view text, const std::string& name) {
  const XmlElement root = io::parse_xml(text, name);
  VT_REQUIRE(DataError, root.name == "annotation",
             "[data] {}:{}: the outermost element must be <annotation> but is <{}>", name,
             root.line, core::printable(root.name));
  VocAnnotation annotation;
  if (const XmlElement* file = root.child("filename")) annotation.filename = file->text;
  if (const XmlElement* size = root.child("size")) {
    annotation.width = side_of(*size, "width", name);
    annotation.height = side_of(*size, "height", name);
  }
  if (annotation.width == 0 || annotation.height == 0) annotation.width = annotation.height = 0;
  for (const XmlElement& element : root.children)
    if (element.name == "object") annotation.objects.push_back(object_of(element, name));
  return annotation;
}

}  // namespace vitrail::data

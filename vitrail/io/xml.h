#pragma once
/// A small strict reader of XML: elements and their text, for annotation files.
///
/// Format   one root element, nested elements, text, CDATA, comments, processing instructions, the
///          five named entities and numbered ones. Attributes are checked and left out. Refused:
///          document types (and with them own entities), anything that is not well formed.
/// Errors   DataError naming the file and the line.
/// Memory   at most 128 times the text's size.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vitrail::io {

struct XmlElement {
  std::string name;
  std::string text;  // its own, without that of its children; blanks at both ends removed
  int64_t line = 0;
  std::vector<XmlElement> children;

  /// The first child of that name; nullptr = none.
  const XmlElement* child(std::string_view wanted) const;
};

struct XmlLimits {
  int64_t max_bytes = 4 << 20;
  int64_t max_depth = 64;
};

/// The root element.
XmlElement parse_xml(std::string_view text, const std::string& name, const XmlLimits& limits = {});

}  // namespace vitrail::io

#pragma once
/// YAML text to a Node. The only place that knows the YAML library.

#include <string>

#include "vitrail/config/node.h"
#include "vitrail/config/problems.h"

namespace vitrail::config {

/// Limits that keep a hostile file from using the machine up: a larger or deeper one is a problem,
/// not a crash.
constexpr int64_t kMaxFileBytes = int64_t{16} << 20;
constexpr int kMaxDepth = 32;
constexpr int64_t kMaxNodes = 20'000;  // after aliases are replaced; long text counts as several

/// Parses one document. Anchors and aliases are replaced by copies. Duplicate keys, keys that are
/// not text, tags and syntax errors are added to `problems`; what could be read is returned. An
/// empty document is null.
Node parse_yaml(const std::string& text, const std::string& name, Problems& problems);

/// The value of an override, in flow form: 4, [32, 32], {lr: 1e-3}, text. Every node gets `place`.
/// Nothing is empty text.
Node parse_yaml_value(const std::string& text, const std::string& key, const Place& place,
                      Problems& problems);

}  // namespace vitrail::config

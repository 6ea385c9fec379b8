#include "vitrail/config/yaml.h"

#include <algorithm>
#include <map>
#include <optional>
#include <sstream>
#include <unordered_map>

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

namespace vitrail::config {

namespace {

/// Ends reading; what was built so far is dropped, problems found so far are kept.
struct Stop {
  Place place;
  std::string text;
};

/// Long text costs as much as several nodes, so that copies of it are bounded too.
int64_t cost_of(const Node& node) {
  int64_t cost = 1 + static_cast<int64_t>(node.text.size()) / 256;
  for (const Node& item : node.items) cost += cost_of(item);
  for (const Entry& entry : node.entries) cost += cost_of(entry.value);
  return cost;
}

int depth_of(const Node& node) {
  int depth = 0;
  for (const Node& item : node.items) depth = std::max(depth, depth_of(item));
  for (const Entry& entry : node.entries) depth = std::max(depth, depth_of(entry.value));
  return depth + 1;
}

/// Builds the tree from the parser's events.
class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(Place base, Problems& problems) : base_(std::move(base)), problems_(problems) {}

  Node take() { return std::move(root_); }
  /// Values of overrides stand at the place of the override, not at a line of it.
  Place place(const YAML::Mark& mark) const {
    Place result = base_;
    if (base_.line > 0) {
      result.line = mark.line + 1;
      result.column = mark.column + 1;
    }
    return result;
  }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ > 0)
      throw Stop{place(mark), "a second document starts here; a recipe is one document"};
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Node node;
    node.place = place(mark);
    complete(std::move(node), anchor);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end())
      throw Stop{place(mark), "an alias refers to the value that holds it"};
    check_depth(mark, depth_of(found->second));
    spend(cost_of(found->second), place(mark));
    add(Node(found->second));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_tag(mark, tag);
    complete(make_scalar(value, place(mark), tag == "!"), anchor);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    start(Node::Kind::list, mark, tag, anchor);
  }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    start(Node::Kind::map, mark, tag, anchor);
  }
  void OnSequenceEnd() override { end(); }
  void OnMapEnd() override { end(); }

 private:
  struct Frame {
    Node node;
    YAML::anchor_t anchor;
    std::unordered_map<std::string, Place> keys;  // of a map: those seen so far
    std::optional<Entry> entry;                   // a map's key that waits for its value
    bool dropped = false;  // the value that comes belongs to a key that was refused
  };

  void refuse_tag(const YAML::Mark& mark, const std::string& tag) {
    if (!tag.empty() && tag != "?" && tag != "!")
      problems_.add(place(mark), fmt::format("tag '{}' is not supported", printable(tag)));
  }
  void check_depth(const YAML::Mark& mark, int more) {
    if (static_cast<int>(frames_.size()) + more > kMaxDepth)
      throw Stop{place(mark),
                 fmt::format("lists and maps must be nested at most {} deep", kMaxDepth)};
  }
  void spend(int64_t cost, const Place& at) {
    spent_ += cost;
    if (spent_ > kMaxNodes)
      throw Stop{at, fmt::format("a recipe must hold at most {} values", kMaxNodes)};
  }
  void start(Node::Kind kind, const YAML::Mark& mark, const std::string& tag,
             YAML::anchor_t anchor) {
    refuse_tag(mark, tag);
    check_depth(mark, 1);
    Frame frame{{}, anchor, {}, {}, false};
    frame.node.kind = kind;
    frame.node.place = place(mark);
    frames_.push_back(std::move(frame));
  }
  void end() {
    Frame frame = std::move(frames_.back());
    frames_.pop_back();
    complete(std::move(frame.node), frame.anchor);
  }
  void complete(Node node, YAML::anchor_t anchor) {
    spend(1 + static_cast<int64_t>(node.text.size()) / 256, node.place);
    if (anchor != YAML::NullAnchor) {
      spend(cost_of(node), node.place);
      anchors_[anchor] = node;
    }
    add(std::move(node));
  }

  void add(Node node) {
    if (frames_.empty()) {
      root_ = std::move(node);
    } else if (Frame& top = frames_.back(); top.node.is_list()) {
      top.node.items.push_back(std::move(node));
    } else if (top.dropped) {
      top.dropped = false;
    } else if (top.entry) {
      top.entry->value = std::move(node);
      top.node.entries.push_back(std::move(*top.entry));
      top.entry.reset();
    } else {
      add_key(top, std::move(node));
    }
  }

  void add_key(Frame& map, Node key) {
    map.dropped = true;
    if (!key.is_scalar()) {
      problems_.add(key.place, fmt::format("a key must be text but got {}", describe(key)));
    } else if (key.text == "<<" && !key.quoted) {
      problems_.add(key.place,
                    "merge keys (<<) are not supported; write the keys out or alias single values");
    } else if (const auto [first, is_new] = map.keys.emplace(key.text, key.place); !is_new) {
      problems_.add(key.place, fmt::format("{} is given twice; first at {}", path_of(key.text),
                                           first->second.text()));
    } else {
      map.dropped = false;
      map.entry = Entry{key.text, key.place, {}};
    }
  }

  /// "data.sources[1].root" for key "root" of the innermost map.
  std::string path_of(const std::string& key) const {
    std::string path;
    for (const Frame& frame : frames_) {
      if (frame.node.is_list())
        path += fmt::format("[{}]", frame.node.items.size());
      else if (frame.entry)
        path += (path.empty() ? "" : ".") + frame.entry->key;
    }
    return path + (path.empty() ? "" : ".") + printable(key);
  }

  Place base_;
  Problems& problems_;
  Node root_;
  std::vector<Frame> frames_;
  std::map<YAML::anchor_t, Node> anchors_;
  int documents_ = 0;
  int64_t spent_ = 0;
};

/// The library takes byte 4 for the end of the file and guesses UTF-16 from zero bytes; neither
/// belongs in a recipe.
std::optional<Stop> find_control_character(const std::string& text, const Place& base) {
  Place place = base;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\n' && c != '\r' && c != '\t') || byte == 0x7F)
      return Stop{place,
                  fmt::format("control character 0x{:02x}; is this a text file in UTF-8?", byte)};
    if (base.line == 0) continue;
    ++place.column;
    if (c == '\n') {
      ++place.line;
      place.column = 1;
    }
  }
  return {};
}

/// A hint for the commonest slip, which the library reports in other words.
std::string tab_hint(const std::string& text, const YAML::Mark& mark) {
  const size_t at = std::min(static_cast<size_t>(std::max(mark.pos, 0)), text.size());
  const size_t before = at == 0 ? std::string::npos : text.rfind('\n', at - 1);
  const size_t start = before == std::string::npos ? 0 : before + 1;
  const size_t first = text.find_first_not_of(' ', start);
  return first != std::string::npos && text[first] == '\t'
             ? "; the line is indented by a tab, use spaces"
             : "";
}

Node parse(const std::string& text, const Place& base, const std::string& prefix,
           Problems& problems) {
  TreeBuilder builder(base, problems);
  try {
    if (const auto stop = find_control_character(text, base)) throw *stop;
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
    return builder.take();
  } catch (const Stop& stop) {
    problems.add(stop.place, prefix + stop.text);
  } catch (const YAML::Exception& error) {
    problems.add(builder.place(error.mark),
                 fmt::format("{}not valid YAML: {}{}", prefix, printable(error.msg),
                             tab_hint(text, error.mark)));
  }
  return {};
}

}  // namespace

Node parse_yaml(const std::string& text, const std::string& name, Problems& problems) {
  return parse(text, Place{printable(name), 1, 1, true}, "", problems);
}

Node parse_yaml_value(const std::string& text, const std::string& key, const Place& place,
                      Problems& problems) {
  if (text.empty()) return make_scalar("", place, true);
  return parse(text, place, key + ": ", problems);
}

}  // namespace vitrail::config

#pragma once
/// Pieces of the report page: style, cards, tables, pictures.

#include <string>
#include <utility>
#include <vector>

namespace vitrail::train {

using Rows = std::vector<std::pair<std::string, std::string>>;

struct Headline {
  std::string label, value, note;
};

/// A sample with what the model said of it.
struct Verdict {
  std::string picture;  // PNG bytes
  std::string truth, predicted;
  double probability = 0;
  bool right = false;
};

/// Rows of pictures under column names; what is seen is the same kind of thing in every row.
struct PictureTable {
  std::string heading;
  std::vector<std::string> columns;            // empty names are not shown
  std::vector<std::vector<std::string>> rows;  // PNG bytes, one a column
};

/// A whole document: style, heading, `body`, and the script of the pointer read-outs.
std::string html_page(const std::string& title, const std::string& subtitle,
                      const std::string& body);
/// A block with a heading; `wide` ones take both columns.
std::string html_section(const std::string& heading, const std::string& content);
std::string html_headlines(const std::vector<Headline>& headlines);
/// Two columns: name, value. Texts are escaped.
std::string html_rows(const Rows& rows);
/// First row = heading. Texts are escaped; columns from the second on are right-aligned.
std::string html_table(const std::vector<std::vector<std::string>>& rows);
std::string html_details(const std::string& summary, const std::string& preformatted);
std::string html_verdicts(const std::vector<Verdict>& verdicts);
std::string html_pictures(const PictureTable& table);

/// RFC 4648, with padding.
std::string base64(const std::string& bytes);

}  // namespace vitrail::train

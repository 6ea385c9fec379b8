#include "vitrail/io/xml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/temp_folder.h"
#include "tests/io/fuzz.h"
#include "tests/io/python.h"
#include "vitrail/core/atomic_file.h"
#include "vitrail/core/error.h"

namespace vitrail::io {
namespace {

using core::DataError;
using ::testing::HasSubstr;
using testing::message_of;
using testing::TempFolder;

constexpr const char* kDocument = R"(<?xml version="1.0" encoding="utf-8"?>
<!-- a comment with <tags> & more -->
<annotation verified="yes" note='a > b'>
	<filename>a &lt;b&gt; &amp; &quot;c&quot; &apos;d&apos; &#233;&#x20AC;&#x1F600;.jpg</filename>
	<size><width>640</width><height> 480
</height></size>
	<empty/><empty with="an attribute" />
	<cdata>x <![CDATA[<raw> & ]] text]]> y</cdata>
	<object><name>é-ü</name><part><name>head</name></part></object >
</annotation>
<!-- after -->
)";

/// "depth name [text]" of every element, the children after their parent.
void show(const XmlElement& element, int depth, std::string& out) {
  out += std::to_string(depth) + " " + element.name + " [" + element.text + "]\n";
  for (const XmlElement& child : element.children) show(child, depth + 1, out);
}

std::string shown(const std::string& text) {
  std::string out;
  show(parse_xml(text, "fuzzed"), 0, out);
  return out;
}

std::string refusal(const std::string& text) {
  return message_of<DataError>([&] { parse_xml(text, "fuzzed"); });
}

TEST(Xml, AgreesWithPythonsParser) {
  const TempFolder folder;
  core::write_file_atomic(folder.file("a.xml"), kDocument);
  const std::string expected = testing::run_python(folder.path(), R"(
import sys, xml.etree.ElementTree as tree
sys.stdout.reconfigure(encoding='utf-8')
def show(element, depth):
    text = (element.text or '') + ''.join(child.tail or '' for child in element)
    print(depth, element.tag, '[' + text.strip() + ']')
    for child in element:
        show(child, depth + 1)
show(tree.parse('a.xml').getroot(), 0)
)");
  EXPECT_EQ(shown(kDocument), expected);
  EXPECT_THAT(expected, HasSubstr("1 filename [a <b> & \"c\" 'd' é€😀.jpg]"));
}

TEST(Xml, FindsTheFirstChildAndKnowsItsLine) {
  const XmlElement root = parse_xml("\xEF\xBB\xBF<a>\n<b>1</b>\n<b>2</b></a>", "x");
  ASSERT_NE(root.child("b"), nullptr);
  EXPECT_EQ(root.child("b")->text, "1");
  EXPECT_EQ(root.child("b")->line, 2);
  EXPECT_EQ(root.child("c"), nullptr);
}

TEST(Xml, RefusesWhatIsNotWellFormed) {
  EXPECT_THAT(refusal(""), HasSubstr("ends before its root element"));
  EXPECT_THAT(refusal("text"), HasSubstr("must start with a tag"));
  EXPECT_THAT(refusal("<a>\n<b>\n</a>"),
              HasSubstr("fuzzed:3: the end tag must be that of 'b' but is that of 'a'"));
  EXPECT_THAT(refusal("</a>"), HasSubstr("the end tag must be that of ''"));
  EXPECT_THAT(refusal("<a>"), HasSubstr("ends before"));
  EXPECT_THAT(refusal("<a"), HasSubstr("a tag is never closed"));
  EXPECT_THAT(refusal("<a></a"), HasSubstr("is never closed"));
  EXPECT_THAT(refusal("<a b></a>"), HasSubstr("an attribute must have a value"));
  EXPECT_THAT(refusal("<a b=c></a>"), HasSubstr("must be quoted"));
  EXPECT_THAT(refusal("<a b='c></a>"), HasSubstr("the value of an attribute is never closed"));
  EXPECT_THAT(refusal("<a><!-- x</a>"), HasSubstr("a comment is never closed"));
  EXPECT_THAT(refusal("<a><![CDATA[x</a>"), HasSubstr("a CDATA section is never closed"));
  EXPECT_THAT(refusal("<a/><b/>"), HasSubstr("must end after its root element"));
  EXPECT_THAT(refusal("<a/>text"), HasSubstr("must end after its root element"));
  EXPECT_THAT(refusal("< a/>"), HasSubstr("a tag must have a name"));
}

TEST(Xml, RefusesEntitiesOfItsOwnAndDocumentTypes) {
  EXPECT_THAT(refusal("<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>"), HasSubstr("document types"));
  EXPECT_THAT(refusal("<a>&x;</a>"), HasSubstr("entities must be"));
  EXPECT_THAT(refusal("<a>&amp"), HasSubstr("must start an entity"));
  EXPECT_THAT(refusal("<a>&amp</a>"), HasSubstr("must start an entity"));
  EXPECT_THAT(refusal("<a>&#0;</a>"), HasSubstr("entities must be"));
  EXPECT_THAT(refusal("<a>&#xD800;</a>"), HasSubstr("entities must be"));
  EXPECT_THAT(refusal("<a>&#x110000;</a>"), HasSubstr("entities must be"));
  EXPECT_THAT(refusal("<a>&#12x;</a>"), HasSubstr("entities must be"));
}

TEST(Xml, LimitsDepthAndSize) {
  std::string deep;
  for (int i = 0; i < 64; ++i) deep += "<a>";
  std::string close;
  for (int i = 0; i < 64; ++i) close += "</a>";
  EXPECT_EQ(refusal(deep + close), "");
  EXPECT_THAT(refusal("<a>" + deep + close + "</a>"), HasSubstr("at most 64 deep"));
  EXPECT_THAT(refusal("<a>" + std::string(5 << 20, 'x') + "</a>"),
              HasSubstr("at most 4194304 bytes"));
}

TEST(Xml, DamagedDocumentsAreReadOrRefused) {
  const auto counts =
      testing::fuzz<DataError>(kDocument, 3000, [](std::span<const std::byte> bytes) {
        parse_xml({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, "fuzzed");
      });
  EXPECT_GT(counts.refused, 100);
  EXPECT_GT(counts.read, 100);
}

}  // namespace
}  // namespace vitrail::io

#include "vitrail/train/report_html.h"

#include <algorithm>
#include <cstdint>

#include <fmt/format.h>

#include "vitrail/train/report_svg.h"

namespace vitrail::train {

namespace {

constexpr const char* kStyle = R"css(
:root{--page:#f5f6f8;--card:#fff;--ink:#1c2330;--faint:#667085;--line:#e3e6ec;--good:#1a8f6a;--bad:#d9483b;
--c1:#2f6fde;--c2:#e07b1f;--c3:#1a8f6a;--c4:#a04bd0;--c5:#d9483b;--c6:#0f9fb5;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--page:#12151b;--card:#1b2029;--ink:#e6e9ef;--faint:#98a2b3;--line:#2e3542;
--good:#3fbf95;--bad:#f0776b;--c1:#6ea4ff;--c2:#f5a352;--c3:#3fbf95;--c4:#c58af0;--c5:#f0776b;--c6:#4cc9dc}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","DejaVu Sans",sans-serif}
main{max-width:1120px;margin:0 auto;padding:32px 24px 56px}
h1{font-size:28px;line-height:1.2;margin:0;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:16px;margin:0 0 14px}
.subtitle{color:var(--faint);margin:6px 0 22px}
.headlines{display:grid;grid-template-columns:repeat(auto-fit,minmax(160px,1fr));gap:14px;margin-bottom:14px}
.headline,section{background:var(--card);border:1px solid var(--line);border-radius:10px}
.headline{padding:14px 18px}
.headline .label{color:var(--faint);font-size:13px}
.headline .value{font-size:26px;font-weight:650;line-height:1.25;font-variant-numeric:tabular-nums}
.headline .note{color:var(--faint);font-size:12.5px}
section{padding:18px 20px;margin-top:14px;overflow-x:auto}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(460px,100%),1fr));gap:14px;margin-top:14px}
.charts>figure{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:10px 12px 6px}
figure{margin:0;position:relative}
svg{display:block;width:100%;height:auto;font:12px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums}
svg text{fill:var(--faint)}
svg text.title{fill:var(--ink);font-size:14px;font-weight:600}
svg .grid{stroke:var(--line);stroke-width:1}
svg .curve{fill:none;stroke-width:1.9;stroke-linejoin:round;stroke-linecap:round}
svg .faint{stroke-width:1;opacity:.35}
svg .pointer{stroke:var(--faint);stroke-dasharray:3 3;visibility:hidden}
svg .cell{fill:var(--line);fill-opacity:.45}
svg.confusion text{fill:var(--ink)}
svg.confusion text.axis{fill:var(--faint)}
svg.confusion .strong{fill:#fff;font-weight:600}
.tip{position:absolute;pointer-events:none;background:var(--ink);color:var(--card);border-radius:6px;padding:5px 9px;font-size:12px;line-height:1.45;white-space:nowrap;display:none;z-index:2;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:6px 10px 6px 0;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
tr:last-child>th,tr:last-child>td{border-bottom:0}
th{font-weight:500;color:var(--faint)}
table.grid-table td:not(:first-child),table.grid-table th:not(:first-child){text-align:right}
table.rows th{width:190px;white-space:nowrap}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(460px,100%),1fr));gap:0 14px}
.samples{display:grid;grid-template-columns:repeat(auto-fill,minmax(104px,1fr));gap:14px}
.samples figcaption{font-size:12.5px;line-height:1.35;margin-top:5px;overflow-wrap:anywhere}
.samples img,.masks img{width:100%;aspect-ratio:1;object-fit:contain;image-rendering:pixelated;display:block;border-radius:6px;background:var(--line)}
.samples .right img{outline:2px solid var(--good)}
.samples .wrong img{outline:2px solid var(--bad)}
.samples .wrong b{color:var(--bad)}
.samples .right b{color:var(--good)}
.masks{display:grid;gap:10px}
.masks div{font-size:13px;color:var(--faint)}
details summary{cursor:pointer;font-weight:600}
pre{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace;overflow-x:auto;margin:12px 0 0}
@media print{section,.headline,.charts>figure{break-inside:avoid}}
)css";

// Shows the nearest point of every curve under the pointer.
constexpr const char* kScript = R"js(
for(const figure of document.querySelectorAll('.chart')){
  const chart=JSON.parse(figure.dataset.chart),svg=figure.querySelector('svg'),line=svg.querySelector('.pointer');
  const tip=figure.appendChild(document.createElement('div'));tip.className='tip';
  const nearest=(points,x)=>points.reduce((best,p)=>Math.abs(p[0]-x)<Math.abs(best[0]-x)?p:best);
  figure.addEventListener('pointermove',event=>{
    const box=svg.getBoundingClientRect(),x=(event.clientX-box.left)*520/box.width;
    const hits=chart.series.filter(s=>s.points.length).map(s=>[s,nearest(s.points,x)]);
    if(!hits.length)return;
    const at=hits.map(h=>h[1]).reduce((best,p)=>Math.abs(p[0]-x)<Math.abs(best[0]-x)?p:best);
    line.setAttribute('x1',at[0]);line.setAttribute('x2',at[0]);line.style.visibility='visible';
    tip.replaceChildren(...[chart.x+' '+at[2],...hits.map(([s,p])=>s.name+' '+p[3])].map(text=>{
      const row=document.createElement('div');row.textContent=text;return row}));
    tip.style.display='block';
    const left=at[0]*box.width/520+12;
    tip.style.left=(left+tip.offsetWidth>box.width?left-tip.offsetWidth-24:left)+'px';tip.style.top='44px'});
  figure.addEventListener('pointerleave',()=>{tip.style.display='none';line.style.visibility='hidden'});
}
)js";

std::string image_tag(const std::string& png, const std::string& alternative) {
  return fmt::format("<img alt=\"{}\" src=\"data:image/png;base64,{}\">", escape_html(alternative),
                     base64(png));
}

}  // namespace

std::string base64(const std::string& bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t word = 0;
    for (size_t k = 0; k < 3; ++k)
      word = (word << 8) | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k)
      out += i + k <= bytes.size() ? kDigits[(word >> (18 - 6 * k)) & 63] : '=';
  }
  return out;
}

std::string html_page(const std::string& title, const std::string& subtitle,
                      const std::string& body) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\">\n<title>{0}</title>\n"
      "<style>{1}</style></head>\n<body><main>\n<h1>{0}</h1>\n<p "
      "class=\"subtitle\">{2}</p>\n{3}</main>\n"
      "<script>{4}</script></body></html>\n",
      escape_html(title), kStyle, escape_html(subtitle), body, kScript);
}

std::string html_section(const std::string& heading, const std::string& content) {
  return fmt::format("<section><h2>{}</h2>\n{}</section>\n", escape_html(heading), content);
}

std::string html_headlines(const std::vector<Headline>& headlines) {
  std::string out = "<div class=\"headlines\">\n";
  for (const Headline& headline : headlines)
    out += fmt::format(
        "<div class=\"headline\"><div class=\"label\">{}</div><div class=\"value\">{}</div><div "
        "class=\"note\">{}</div>"
        "</div>\n",
        escape_html(headline.label), escape_html(headline.value), escape_html(headline.note));
  return out + "</div>\n";
}

std::string html_rows(const Rows& rows) {
  std::string out = "<table class=\"rows\">\n";
  for (const auto& [name, value] : rows)
    out += fmt::format("<tr><th>{}</th><td>{}</td></tr>\n", escape_html(name), escape_html(value));
  return out + "</table>\n";
}

std::string html_table(const std::vector<std::vector<std::string>>& rows) {
  std::string out = "<table class=\"grid-table\">\n";
  for (size_t i = 0; i < rows.size(); ++i) {
    out += "<tr>";
    for (const std::string& cell : rows[i])
      out += fmt::format("<{0}>{1}</{0}>", i == 0 ? "th" : "td", escape_html(cell));
    out += "</tr>\n";
  }
  return out + "</table>\n";
}

std::string html_details(const std::string& summary, const std::string& preformatted) {
  return fmt::format("<section><details><summary>{}</summary><pre>{}</pre></details></section>\n",
                     escape_html(summary), escape_html(preformatted));
}

std::string html_verdicts(const std::vector<Verdict>& verdicts) {
  std::string out = "<div class=\"samples\">\n";
  for (const Verdict& verdict : verdicts) {
    const std::string share = fmt::format("{:.0f} %", 100 * verdict.probability);
    const std::string caption =
        verdict.right ? fmt::format("<b>{}</b> {}", escape_html(verdict.truth), share)
                      : fmt::format("<b>{}</b> {}<br>is {}", escape_html(verdict.predicted), share,
                                    escape_html(verdict.truth));
    out += fmt::format("<figure class=\"{}\">{}<figcaption>{}</figcaption></figure>\n",
                       verdict.right ? "right" : "wrong", image_tag(verdict.picture, verdict.truth),
                       caption);
  }
  return out + "</div>\n";
}

std::string html_pictures(const PictureTable& table) {
  std::string out = fmt::format(
      "<div class=\"masks\" style=\"grid-template-columns:repeat({},minmax(0,150px))\">\n",
      table.columns.size());
  const bool named = std::any_of(table.columns.begin(), table.columns.end(),
                                 [](const std::string& name) { return !name.empty(); });
  if (named)
    for (const std::string& name : table.columns)
      out += fmt::format("<div>{}</div>", escape_html(name));
  for (const std::vector<std::string>& row : table.rows)
    for (size_t i = 0; i < row.size() && i < table.columns.size(); ++i)
      out += image_tag(row[i], table.columns[i]) + "\n";
  return out + "</div>\n";
}

}  // namespace vitrail::train

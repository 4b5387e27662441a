# SPDX-License-Identifier: MIT
"""bench/report_page.py: a page as a list of blocks, written twice: as one HTML file that needs nothing else (pictures inline,
no script, no font, no address), and as Markdown with its pictures beside it. So both say the same.

Text may hold `code` and **strong**, which is Markdown already; everything else in it is taken literally.
"""
import html, os, re

STYLE = """
:root { color-scheme: light }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem 1.1rem 4rem; max-width: 66rem; color: #1a1a1a; background: #fff;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; -webkit-text-size-adjust: 100% }
p, ul, ol, pre { max-width: 46rem }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 1rem 0 .4rem; max-width: 46rem }
h2 { font-size: 1.4rem; line-height: 1.25; margin: 2.6rem 0 .6rem; padding-top: .7rem; border-top: 2px solid #1a1a1a }
h3 { font-size: 1.1rem; margin: 1.8rem 0 .4rem }
h2, h3 { break-after: avoid }
a { color: #0b4f8a }
code { font: .9em ui-monospace, "DejaVu Sans Mono", "Liberation Mono", monospace; background: #f2f2f2; padding: .05em .25em; border-radius: 3px }
pre { font: .82rem/1.45 ui-monospace, "DejaVu Sans Mono", "Liberation Mono", monospace; background: #f6f6f6; border: 1px solid #ccc; padding: .7rem .8rem;
  overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere }
.lead { font-size: 1.1rem }
.note { border-left: 4px solid #b35900; background: #fff6ea; padding: .6rem .9rem; max-width: 46rem }
nav ol { columns: 2; padding-left: 1.4rem; font-size: .95rem }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1.2rem 1.6rem; margin: 1rem 0; align-items: start }
.figures > * { min-width: 0 }
figure { margin: 0; break-inside: avoid; max-width: 36rem }
figure svg { display: block; width: 100%; height: auto }
figcaption { font-size: .9rem; color: #333; margin-top: .3rem; line-height: 1.45 }
.table { overflow-x: auto; margin: .8rem 0 1.2rem; max-width: 100% }
table { border-collapse: collapse; font-size: .9rem; line-height: 1.35; font-variant-numeric: tabular-nums }
caption { text-align: left; font-size: .9rem; color: #333; padding-bottom: .35rem }
th, td { padding: .32rem .6rem; border-bottom: 1px solid #ccc; text-align: left; vertical-align: top }
.wide th, .wide td { padding: .28rem .42rem }
thead th { border-bottom: 2px solid #1a1a1a; vertical-align: bottom }
tr { break-inside: avoid }
td.n, th.n { text-align: right }
td.n, td.n small, td code { white-space: nowrap }
td small, th small { display: block; font-weight: normal; color: #444; font-size: .82em; white-space: normal }
td.good { background: #e3f2ec }
td.bad { background: #fbe0d3; font-weight: 600 }
td.bad small { font-weight: normal }
td.none { color: #666; font-style: italic; white-space: nowrap }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .4em; vertical-align: -.05em; print-color-adjust: exact; -webkit-print-color-adjust: exact }
details > summary { cursor: pointer; margin: .6rem 0; color: #0b4f8a }
details table { font-size: .78rem }
@media (max-width: 40rem) {
  body { padding: .6rem .8rem 3rem }
  h1 { font-size: 1.5rem }
  h2 { font-size: 1.25rem }
  nav ol { columns: 1 }
  table { font-size: .8rem }
  th, td { padding: .28rem .4rem }
  td:first-child { min-width: 6.5rem }
  ul, ol { padding-left: 1.3rem }
  .wide th:first-child, .wide td:first-child { position: sticky; left: 0; background: #fff; box-shadow: 1px 0 0 #ccc }
}
@media print {
  body { max-width: none; font-size: 10pt; padding: 0 }
  nav, details { display: none }
  .table { overflow: visible }
  table { font-size: 8pt }
  .figures { grid-template-columns: 1fr 1fr }
  td.good, td.bad, .note { print-color-adjust: exact; -webkit-print-color-adjust: exact }
  a { color: inherit; text-decoration: none }
  @page { margin: 15mm }
}
"""


class Cell:
    """Of a table: its text, a second line in small print, a kind (n: number, good, bad, none) and a colour beside it."""

    def __init__(self, text, kind="", small="", colour=None):
        self.text, self.kind, self.small, self.colour = str(text), kind, small, colour


def cell(x):
    return x if isinstance(x, Cell) else Cell(x)


def inline(text):
    """Escaped, with code and strong as elements."""
    text = re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(str(text), quote=False))
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)


def markdown_literal(text):
    """Of a table's cell: what would end it or begin an element there."""
    return str(text).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


class Page:
    def __init__(self, title, lead):
        self.title, self.lead, self.sections, self.blocks = title, lead, [], []

    def section(self, name, title):
        self.sections.append((name, title))
        self.blocks.append(("h2", name, title))

    def heading(self, title):
        self.blocks.append(("h3", title))

    def text(self, *paragraphs):
        self.blocks += [("p", p) for p in paragraphs if p]

    def note(self, text):
        self.blocks.append(("note", text))

    def points(self, items):
        items = [i for i in items if i]
        if items:
            self.blocks.append(("ul", items))

    def listing(self, text):
        self.blocks.append(("pre", text))

    def table(self, head, rows, caption="", folded=None, kind=""):
        """`folded`: a sentence under which the table waits to be opened."""
        if rows:
            self.blocks.append(("table", [cell(h) for h in head], [[cell(c) for c in r] for r in rows], caption, folded, kind))

    def figures(self, figures):
        """[(name of the file, SVG or None, caption, why there is none)]."""
        if figures:
            self.blocks.append(("figures", figures))

    # HTML

    def html(self):
        toc = "".join(f'<li><a href="#{n}">{inline(t)}</a></li>' for n, t in self.sections)
        body = "\n".join(getattr(self, f"html_{b[0]}")(*b[1:]) for b in self.blocks)
        return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(self.title)}</title><style>{STYLE}</style></head><body>
<h1>{inline(self.title)}</h1>
<p class="lead">{inline(self.lead)}</p>
<nav aria-label="Contents"><ol>{toc}</ol></nav>
{body}
</body></html>
"""

    def html_h2(self, name, title):
        return f'<h2 id="{name}">{inline(title)}</h2>'

    def html_h3(self, title):
        return f"<h3>{inline(title)}</h3>"

    def html_p(self, text):
        return f"<p>{inline(text)}</p>"

    def html_note(self, text):
        return f'<p class="note">{inline(text)}</p>'

    def html_ul(self, items):
        return "<ul>" + "".join(f"<li>{inline(i)}</li>" for i in items) + "</ul>"

    def html_pre(self, text):
        return f"<pre>{html.escape(text, quote=False)}</pre>"

    def html_cell(self, c, tag):
        swatch = f'<span class="swatch" style="background:{c.colour}"></span>' if c.colour else ""
        small = f"<small>{inline(c.small)}</small>" if c.small else ""
        kind = f' class="{c.kind}"' if c.kind else ""
        return f"<{tag}{kind}>{swatch}{inline(c.text)}{small}</{tag}>"

    def html_table(self, head, rows, caption, folded, kind):
        said = f"<caption>{inline(caption)}</caption>" if caption else ""
        top = "".join(self.html_cell(c, "th") for c in head)
        body = "".join("<tr>" + "".join(self.html_cell(c, "td") for c in r) + "</tr>\n" for r in rows)
        table = f'<div class="table {kind}" tabindex="0"><table>{said}<thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>'
        return f"<details><summary>{inline(folded)}</summary>{table}</details>" if folded else table

    def html_figures(self, figures):
        out = []
        for name, svg, caption, why in figures:
            picture = svg or f'<p class="note">{inline(why)}</p>'
            out.append(f'<figure id="{name}">{picture}<figcaption>{inline(caption)}</figcaption></figure>')
        return '<div class="figures">' + "\n".join(out) + "</div>"

    # Markdown

    def markdown(self):
        body = "\n\n".join(getattr(self, f"md_{b[0]}")(*b[1:]) for b in self.blocks)
        return f"# {self.title}\n\n{self.lead}\n\n{body}\n"

    def md_h2(self, name, title):
        return f"## {title}"

    def md_h3(self, title):
        return f"### {title}"

    def md_p(self, text):
        return text

    def md_note(self, text):
        return f"> {text}"

    def md_ul(self, items):
        return "\n".join(f"* {i}" for i in items)

    def md_pre(self, text):
        return f"```\n{text}\n```"

    def md_cell(self, c):
        return markdown_literal(f"{c.text}; {c.small}" if c.small and c.text else c.text or c.small)

    def md_table(self, head, rows, caption, folded, kind):
        line = lambda cells: "| " + " | ".join(cells) + " |"
        rule = ["---:" if c.kind == "n" else "---" for c in rows[0]]
        table = "\n".join([line(map(self.md_cell, head)), line(rule), *(line(map(self.md_cell, r)) for r in rows)])
        table = f"{caption}:\n\n{table}" if caption else table
        return f"<details><summary>{folded}</summary>\n\n{table}\n\n</details>" if folded else table

    def md_figures(self, figures):
        return "\n\n".join(f"![{name}]({name}.svg)\n\n{caption}" if svg else f"> {why}\n\n{caption}" for name, svg, caption, why in figures)

    def write(self, directory):
        """report.html, report.md and the pictures' files; the path of the first."""
        for block in self.blocks:
            for name, svg, _, _ in block[1] if block[0] == "figures" else ():
                if svg:
                    with open(f"{directory}/{name}.svg", "w") as f:
                        f.write(svg)
        for name, text in (("report.md", self.markdown()), ("report.html", self.html())):
            with open(f"{directory}/{name}.new", "w") as f:
                f.write(text)
            os.replace(f"{directory}/{name}.new", f"{directory}/{name}")
        return f"{directory}/report.html"

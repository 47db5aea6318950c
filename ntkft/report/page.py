"""A report as one HTML file: nothing to fetch, nothing to run, made to be read on a phone and on A4 paper.

The page is a column of sections, each with paragraphs, at most one figure (embedded) and at most one table. All text
is plain and escaped here. A table that is wider than the screen scrolls by itself; on paper it is shown whole.
"""

import re
import struct
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from ntkft import plots
from ntkft._errors import refuse


@dataclass(frozen=True)
class Table:
    """Columns and rows of plain text; a column that holds mostly numbers is set to the right, but for the first."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs of plain text, a figure (or the path of a PNG), a table, in this order.

    alt: the figure in words, for those who do not see it; its section's heading if empty
    """

    heading: str
    text: tuple[str, ...]
    figure: Figure | Path | None = None
    table: Table | None = None
    alt: str = ""


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The report as HTML: title, opening paragraph, links to the sections, sections.

    The same arguments give the same page. Raises `InputError` listing every figure that is no PNG file and every table
    row of another length than its columns.
    """
    refuse("page", [problem for section in sections for problem in _problems(section)])
    names = [f"section-{number}" for number in range(1, len(sections) + 1)]
    links = [
        f'<li><a href="#{name}">{escape(section.heading)}</a></li>'
        for name, section in zip(names, sections, strict=True)
    ]
    body = [_section(name, section) for name, section in zip(names, sections, strict=True)]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            f"<header>\n<h1>{escape(title)}</h1>\n<p>{escape(lead)}</p>\n</header>",
            *(['<nav aria-label="Sections">', "<ol>", *links, "</ol>", "</nav>"] if links else []),
            "<main>",
            *body,
            "</main>",
            "</body>",
            "</html>\n",
        ]
    )


def _section(name: str, section: Section) -> str:
    parts = [f'<section id="{name}">', f"<h2>{escape(section.heading)}</h2>"]
    parts += [f"<p>{escape(paragraph)}</p>" for paragraph in section.text]
    if section.figure is not None:
        parts.append(_figure(section.figure, section.alt or section.heading))
    if section.table is not None:
        parts.append(_table(section.table, section.heading))
    return "\n".join([*parts, "</section>"])


def _figure(figure: Figure | Path, alt: str) -> str:
    """The image with its size in pixels, so that the text below does not jump when it is decoded."""
    image = plots.png(figure) if isinstance(figure, Figure) else figure.read_bytes()
    width, height = struct.unpack(">II", image[16:24])
    source = f"data:image/png;base64,{b64encode(image).decode()}"
    return f'<figure><img src="{source}" alt="{escape(alt)}" width="{width}" height="{height}"></figure>'


def _table(table: Table, label: str) -> str:
    """The table in a frame that scrolls sideways, also by keyboard."""
    columns = [tuple(row[column] for row in table.rows) for column in range(len(table.columns))]
    sides = [' class="number"' if column and _mostly_numbers(cells) else "" for column, cells in enumerate(columns)]

    def line(tag: str, cells: tuple[str, ...]) -> str:
        inside = (f"<{tag}{side}>{escape(cell)}</{tag}>" for cell, side in zip(cells, sides, strict=True))
        return f"<tr>{''.join(inside)}</tr>"

    return "\n".join(
        [
            f'<div class="wide" role="region" aria-label="{escape(label)}, table" tabindex="0">',
            "<table>",
            f"<thead>{line('th', table.columns)}</thead>",
            "<tbody>",
            *[line("td", row) for row in table.rows],
            "</tbody>",
            "</table>",
            "</div>",
        ]
    )


def _mostly_numbers(cells: tuple[str, ...]) -> bool:
    return 2 * sum(_NUMBER.fullmatch(cell.strip()) is not None for cell in cells) > len(cells)


def _problems(section: Section) -> list[str]:
    found = []
    if isinstance(section.figure, Path):
        if not section.figure.is_file():
            found.append(f"figure {section.figure} of {section.heading!r} is not a file; draw it first")
        elif not section.figure.read_bytes().startswith(_PNG):
            found.append(f"figure {section.figure} of {section.heading!r} is not a PNG; save it as one")
    if section.table is not None:
        wanted = len(section.table.columns)
        found += [
            f"row {number} of the table of {section.heading!r} has {len(row)} cells; wanted {wanted}, one a column"
            for number, row in enumerate(section.table.rows, start=1)
            if len(row) != wanted
        ]
    return found


_PNG = b"\x89PNG\r\n\x1a\n"
_NUMBER = re.compile(r"|[-–—]|[+−-]?(inf|nan|∞|\d[\d.,  ]*(e[+−-]?\d+)?)\s?%?")
"""A number as reports write it, or what stands for a missing one."""

_STYLE = """
:root { color-scheme: light; --ink: #1d2430; --soft: #5a6472; --line: #dfe3e9; --link: #2f6db3; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  max-width: 43rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; color: var(--ink); background: #fff;
  font: 1.0625rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif;
  overflow-wrap: break-word;
}
h1 { margin: 0 0 .75rem; font-size: clamp(1.6rem, 1.2rem + 2vw, 2.1rem); line-height: 1.2; letter-spacing: -.01em; }
h2 { margin: 0 0 .5rem; font-size: 1.3rem; line-height: 1.3; }
h1, h2 { text-wrap: balance; }
p { margin: 0 0 .9rem; }
a { color: var(--link); }
header p { color: var(--soft); font-size: 1.125rem; }
nav { margin: 1.5rem 0 0; font-size: .9375rem; }
nav ol { margin: 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .4rem 1.25rem; }
nav a { text-decoration: none; }
section { margin-top: 2.25rem; padding-top: 1.75rem; border-top: 1px solid var(--line); }
figure { margin: 1.25rem 0; }
img { display: block; width: 100%; height: auto; }
.wide { margin: 1.25rem 0; overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: .9rem; line-height: 1.35; }
th, td { padding: .4rem .9rem .4rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
td { white-space: nowrap; }
th:last-child, td:last-child { padding-right: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
@page { size: A4; margin: 18mm 16mm; }
@media print {
  body { max-width: none; padding: 0; font-size: 10.5pt; line-height: 1.45; }
  nav { display: none; }
  h2, p:has(+ figure) { break-after: avoid; }
  p, figure, table, tr { break-inside: avoid; }
  thead { display: table-header-group; }
  img { width: auto; max-width: 100%; max-height: 100mm; margin: 0 auto; }
  .wide { overflow: visible; }
  td { white-space: normal; }
}
"""

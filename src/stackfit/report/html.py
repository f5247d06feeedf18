"""One HTML file from a Page: styles, scripts, Plotly and data inside, nothing fetched from anywhere.

Two things keep names from binaries text. Everything written here is escaped, and the scripts set text, never
markup. And the page's own policy (Content-Security-Policy) lets only the scripts run whose SHA-256 it names,
so that a handler in an attribute would be dead even if one got in.

The data are JSON, compressed (gzip) and in base64, which browsers of 2023 and later unpack themselves.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping
from html import escape
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

from stackfit import __version__
from stackfit.image.model import InputError
from stackfit.report.html_model import Block, Cell, Column, Figure, Grid, Page, Prose, Records, Section
from stackfit.text import escape as printable

__all__ = ["plotly_source", "render"]

_SCRIPTS = ("data.js", "theme.js", "table.js", "charts.js", "chains.js", "details.js", "report.js")


def plotly_source() -> str:
    """Plotly's script. InputError: the package that carries it is not installed."""
    spec = importlib.util.find_spec("plotly")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(place) / "package_data" / "plotly.min.js"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise InputError("--html", "charts need Plotly: pip install 'stackfit[html]'")


def render(page: Page) -> str:
    """The file's text; the same page gives the same text."""
    script = _script()
    plotly = plotly_source() if any(isinstance(block, Figure) for block in _blocks(page)) else ""
    hashes = " ".join(f"'sha256-{_digest(text)}'" for text in (script, plotly) if text)
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"
    data = {
        "tables": {block.key: _records(block) for block in _blocks(page) if isinstance(block, Records)},
        "figures": {
            block.key: {"kind": block.kind, "data": block.data}
            for block in _blocks(page)
            if isinstance(block, Figure)
        },
        **page.data,
    }
    title = _text(f"{page.title}: {page.subtitle}" if page.subtitle else page.title)
    sections = "\n".join(map(_section, page.sections))
    links = "".join(f'<li><a href="#{_text(one.key)}">{_text(one.title)}</a></li>' for one in page.sections)
    facts = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(text)}</dd></div>" for name, text in page.facts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="stackfit {_text(__version__)}">
<title>{title}</title>
<style>
{_asset("report.css")}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the report</a>
<header>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<button id="theme" type="button" hidden></button>
</header>
<main id="main">
<h1>{_text(page.title)} <small>{_text(page.subtitle)}</small></h1>
<dl class="facts">{facts}</dl>
<p id="problem" class="prose warning" role="alert" hidden></p>
<noscript><p class="prose warning">Charts and the largest tables need JavaScript.</p></noscript>
{sections}
</main>
<aside id="details" aria-label="Details" tabindex="-1" hidden></aside>
<footer>stackfit {_text(__version__)}</footer>
<script type="text/plain" id="plotly">{_packed(plotly.encode()) if plotly else ""}</script>
<script type="text/plain" id="data">{_packed(_compact(data))}</script>
<script>{script}</script>
</body>
</html>
"""


def _script() -> str:
    """The page's scripts as one, in a scope of their own."""
    return '"use strict";\n(() => {\n' + "".join(map(_asset, _SCRIPTS)) + "})();\n"


def _asset(name: str) -> str:
    return (resources.files("stackfit.report") / "assets" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def _compact(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _text(text: str) -> str:
    """Escaped for HTML; what no screen shows is escaped as on a terminal."""
    return escape(printable(text))


# ---------------------------------------------------------------- blocks


def _blocks(page: Page) -> Iterable[Block]:
    for section in page.sections:
        yield from section.blocks


def _section(section: Section) -> str:
    key = _text(section.key)
    inside = "\n".join(_block(block, section.title) for block in section.blocks)
    return (
        f'<section id="{key}" aria-labelledby="{key}-heading">\n'
        f'<h2 id="{key}-heading">{_text(section.title)}</h2>\n{inside}\n</section>'
    )


def _block(block: Block, section: str) -> str:
    match block:
        case Prose():
            return _prose(block)
        case Grid():
            return _grid(block)
        case Records():
            heading = f"<h3>{_text(block.title)}</h3>" if block.title != section else ""
            return f'{heading}<div class="records" data-key="{_text(block.key)}"></div>'
        case Figure():
            return _figure(block)


def _prose(block: Prose) -> str:
    tone = f" {_text(block.tone)}" if block.tone else ""
    return "".join(f'<p class="prose{tone}">{_text(one)}</p>' for one in block.paragraphs)


def _figure(block: Figure) -> str:
    key = _text(block.key)
    note = f'<p class="note">{_text(block.note)}</p>' if block.note else ""
    side = ' class="half"' if block.half else ""
    return (
        f'<figure data-key="{key}"{side}><figcaption>{_text(block.title)}</figcaption>{note}'
        f'<div class="controls"></div>'
        f'<div class="plot" role="img" aria-label="{_text(block.text)}"></div></figure>'
    )


def _grid(block: Grid) -> str:
    title = _text(block.title)
    caption = f"<caption>{title}</caption>" if title and not block.folded else ""
    head = "".join(f'<th scope="col" class="{side}">{_text(name)}</th>' for name, side in block.columns)
    body = "".join(_grid_row(block, number) for number in range(len(block.rows)))
    table = (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title or "table"}">'
        f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
    return f"<details><summary>{title}</summary>{table}</details>" if block.folded else table


def _grid_row(block: Grid, number: int) -> str:
    row = block.rows[number]
    if number in block.groups:
        first = row[0].text if isinstance(row[0], Cell) else row[0]
        return (
            f'<tr class="group"><th scope="colgroup" colspan="{len(block.columns)}">{_text(first)}</th></tr>'
        )
    cells = []
    for index, (cell, (_, side)) in enumerate(zip(row, block.columns, strict=True)):
        cell = cell if isinstance(cell, Cell) else Cell(cell)
        hint = f' title="{_text(cell.hint)}"' if cell.hint else ""
        kind = f'class="{side}{" " + _text(cell.tone) if cell.tone else ""}"{hint}'
        cells.append(
            f'<th scope="row" {kind}>{_text(cell.text)}</th>'
            if not index
            else f"<td {kind}>{_text(cell.text)}</td>"
        )
    return f"<tr>{''.join(cells)}</tr>"


# ---------------------------------------------------------------- large tables


def _records(block: Records) -> Mapping[str, Any]:
    return {
        "title": block.title,
        "noun": block.noun,
        "order": block.order,
        "opens": block.opens,
        "only": dict(block.only),
        "columns": [_column(one) for one in block.columns],
    }


def _column(column: Column) -> Mapping[str, Any]:
    packed: dict[str, Any] = {
        "key": column.key,
        "label": column.label,
        "kind": column.kind,
        "width": column.width,
        "hint": column.hint,
    }
    values = list(column.values)
    if column.kind in ("text", "code", "choice", "hidden"):
        values = [printable(value) for value in values]
        packed["values"], packed["texts"] = _dictionary(values)
    elif column.kind == "address":  # ascending: differences compress well, and fit a double
        packed["first"] = str(values[0]) if values else "0"
        packed["steps"] = [0, *(after - before for before, after in pairwise(values))]
    else:
        packed["values"] = values
    if column.floor is not None:
        packed["floor"] = [row for row, floor in enumerate(column.floor) if floor]
    return packed


def _dictionary(values: list[str]) -> tuple[list[int] | list[str], list[str] | None]:
    """(values, None), or (indexes, texts) where texts repeat."""
    texts = dict.fromkeys(values)
    if len(texts) * 2 > len(values):
        return values, None
    number = {text: index for index, text in enumerate(texts)}
    return [number[value] for value in values], list(texts)

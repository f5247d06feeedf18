"""What an HTML report consists of: sections of text, small tables, large tables and figures.

A command builds a Page from its results; `html.render` turns it into one file. Texts are plain: names from
binaries go in as they are, and come out as text.

Small tables (Grid) are written into the page and are there without scripts; large ones (Records) are kept in
columns, and shown by the page's script a screenful at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Block",
    "Cell",
    "Column",
    "Figure",
    "Grid",
    "Page",
    "Prose",
    "Records",
    "Section",
    "Series",
    "bars",
    "lines",
]

Number = int | float | None


@dataclass(frozen=True)
class Cell:
    """A cell that is more than text. `tone`: good, bad, doubt, faint, code, sub (set in); `hint` explains."""

    text: str
    tone: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Prose:
    """Paragraphs."""

    paragraphs: tuple[str, ...]
    tone: str = ""  # "note" sets them apart, "warning" more so


@dataclass(frozen=True)
class Grid:
    """A small table. `columns`: (name, "left", "right" or "short": left and on one line); the first cell of a
    row is its heading. `groups`: indexes of rows that head the rows below them. `folded`: only its title
    shows until it is opened."""

    title: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    groups: frozenset[int] = frozenset()
    folded: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a large table.

    `kind`: "text"; "code" (a name from a binary); "choice" (few different texts: can be filtered by);
    "bytes", "number", "address" (integers, None: no value); "hidden" (searched, not shown). `width`: in
    characters. `floor`: for each row, whether the number is a lower limit.
    """

    key: str
    label: str
    kind: str
    values: Sequence[Any]
    width: int = 10
    hint: str = ""
    floor: Sequence[bool] | None = None


@dataclass(frozen=True)
class Records:
    """A large table. `order`: the column sorted by at first, greatest first. `opens`: what a row opens
    ("frame", "context"), "" nothing. `only`: choices that filters start with, by column."""

    key: str
    title: str
    columns: tuple[Column, ...]
    order: str
    opens: str = ""
    only: Mapping[str, str] = field(default_factory=dict)
    noun: str = "rows"


@dataclass(frozen=True)
class Figure:
    """A chart. `kind` names the drawing function of assets/, `data` is its argument; `text` says in words
    what the chart shows, for those who do not see it. `half`: two of them stand side by side."""

    key: str
    title: str
    kind: str
    data: Mapping[str, Any]
    text: str
    note: str = ""
    half: bool = False


Block = Prose | Grid | Records | Figure


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading; `key` is its anchor."""

    key: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A whole report. `facts`: (name, text) shown under the title. `data`: shared by figures and details."""

    title: str
    subtitle: str
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Series:
    """Numbers of one name: of a bar chart one for each group (`low`, `high`: what runs span), of a line chart
    one for each `x`."""

    name: str
    y: Sequence[Number]
    x: Sequence[Number] = ()
    low: Sequence[Number] = ()
    high: Sequence[Number] = ()


def bars(
    key: str,
    title: str,
    groups: Sequence[str],
    series: Sequence[Series],
    axis: str,
    text: str,
    note: str = "",
) -> Figure:
    """A bar of each series in each group."""
    data = {
        "groups": list(groups),
        "axis": axis,
        "series": [
            {"name": one.name, "y": list(one.y), "low": list(one.low), "high": list(one.high)}
            for one in series
        ],
    }
    return Figure(key, title, "bars", data, text, note)


def lines(
    key: str,
    title: str,
    series: Sequence[Series],
    axes: tuple[str, str],
    text: str,
    note: str = "",
    *,
    stacked: bool = False,
    limits: Sequence[tuple[str, float]] = (),
    top: float | None = None,
    half: bool = False,
) -> Figure:
    """Lines over a common x. `stacked`: areas on each other, the first lowest. `limits`: level lines. `top`:
    of the scale, for charts that are compared; None: by the data."""
    data = {
        "axes": list(axes),
        "stacked": stacked,
        "limits": [[name, value] for name, value in limits],
        "top": top,
        "series": [{"name": one.name, "x": list(one.x), "y": list(one.y)} for one in series],
    }
    return Figure(key, title, "lines", data, text, note, half)

"""The HTML reports as files: self-contained, the same bytes each time, names from binaries text."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from stackfit.analysis import analyse
from stackfit.cli.main import main
from stackfit.report.html import render
from stackfit.report.html_check import check_page
from stackfit.report.html_model import Cell, Column, Grid, Page, Prose, Records, Section, Series, bars
from stackfit.report.json import check_json, frames_json

pytest.importorskip("plotly", reason="the extra html is not installed")

SAMPLE = Path(__file__).resolve().parents[2] / "fixtures" / "sample" / "bin" / "x86_64"
LAYOUTS = ["linux-x86_64", "linux-x86_64-4k"]
HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(1)">'


class Reader(HTMLParser):
    """Elements, and the text of scripts by id (those without are the page's own)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self._script: str | None = None
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.elements.append((tag, found))
        if tag == "script":
            self._script = found.get("id") or "own"
            assert self._script not in self.scripts, "a second script"
            self.scripts[self._script] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts[self._script] += data
        else:
            self.text += data

    def unpacked(self, name: str) -> str:
        return gzip.decompress(base64.b64decode(self.scripts[name])).decode()


def hostile_page() -> Page:
    column = Column("name", HOSTILE, "code", [HOSTILE], hint=HOSTILE)
    chart = bars("chart", HOSTILE, [HOSTILE], [Series(HOSTILE, [1])], HOSTILE, HOSTILE, HOSTILE)
    blocks = (
        chart,
        Prose((HOSTILE,)),
        Grid(HOSTILE, ((HOSTILE, "left"),), ((Cell(HOSTILE, hint=HOSTILE),),)),
        Records("names", HOSTILE, (column,), "name", noun=HOSTILE),
    )
    return Page(HOSTILE, HOSTILE, ((HOSTILE, HOSTILE),), (Section("all", HOSTILE, blocks),))


def test_texts_never_become_markup() -> None:
    read = Reader(render(hostile_page()))
    assert set(read.scripts) == {"own", "plotly", "data"}
    assert not [tag for tag, _ in read.elements if tag == "img"]
    assert not [name for _, found in read.elements for name in found if name.startswith("on")]
    assert read.text.count(HOSTILE) >= 8
    assert json.loads(read.unpacked("data"))["tables"]["names"]["columns"][0]["values"] == [HOSTILE]


def test_what_no_screen_shows_is_escaped() -> None:
    text = render(Page("a\x1b[31mb\u202ec", "", (), ()))
    assert "a\\x1b[31mb\\u202ec" in text and "\x1b" not in text and "\u202e" not in text


def test_only_its_own_scripts_may_run_and_nothing_is_fetched() -> None:
    read = Reader(render(hostile_page()))
    (policy,) = [
        found["content"]
        for tag, found in read.elements
        if tag == "meta" and found.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None and policy.startswith("default-src 'none';")
    (allowed,) = re.findall(r"script-src ([^;]*)", policy)
    hashes = [
        "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
        for text in (read.scripts["own"], read.unpacked("plotly"))
    ]
    assert allowed.split() == hashes
    fetching = {"link", "iframe", "object", "embed", "base", "form"}
    assert not [tag for tag, found in read.elements if tag in fetching or "src" in found]
    assert all(str(found["href"]).startswith("#") for tag, found in read.elements if tag == "a")


def data_of(text: str) -> dict[str, Any]:
    return dict(json.loads(Reader(text).unpacked("data")))


def values(table: dict[str, Any], key: str) -> list[Any]:
    (column,) = [one for one in table["columns"] if one["key"] == key]
    if column.get("texts"):
        return [column["texts"][index] for index in column["values"]]
    return list(column["values"])


def test_the_report_says_what_the_json_says_and_is_the_same_each_time() -> None:
    analysis = analyse([SAMPLE / "vmlinux"], [SAMPLE / "vendor_blob.ko"], LAYOUTS)
    text = render(check_page(analysis))
    again = analyse([SAMPLE / "vmlinux"], [SAMPLE / "vendor_blob.ko"], LAYOUTS)
    assert render(check_page(again)) == text

    data, document = data_of(text), check_json(analysis)
    frames = frames_json(analysis)["functions"]
    table = data["tables"]["frames"]
    assert values(table, "name") == [row["name"] for row in frames]
    assert values(table, "frame") == [row["frame"] for row in frames]
    (address,) = [one for one in table["columns"] if one["key"] == "address"]
    assert int(address["first"]) + sum(address["steps"]) == frames[-1]["address"]

    table = data["tables"]["contexts"]
    first = [row for row, name in enumerate(values(table, "layout")) if name == LAYOUTS[0]]
    for row, context in zip(first, document["contexts"], strict=True):
        assert [values(table, key)[row] for key in ("direct", "bound", "found")] == [
            context[key] for key in ("direct", "bound", "found")
        ]
        number = data["contexts"]["chain"][row]
        flat = data["chains"][number] if number >= 0 else []
        names = [frames[index]["name"] if index >= 0 else "(entry frame)" for index in flat[::3]]
        assert names == [link["function"] for link in context["chain"]]
        assert flat[1::3] == [link["depth"] for link in context["chain"]]
    for layout in document["layouts"]:
        for stack in layout["stacks"]:
            assert stack["verdict"] == "not-analysed" or stack["verdict"] in Reader(text).text


@pytest.mark.slow
def test_check_compare_and_simulate_write_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(SAMPLE / "vmlinux")
    layouts = [word for name in LAYOUTS for word in ("--layout", name)]
    storm = "interrupt-storm-amd64"
    through = [str(SAMPLE / "vendor_blob.ko"), "--through", "vendor_blob"]
    for words, sections in (
        (
            ["check", image, *through, *layouts, "--fail-on", ""],
            {"through", "verdicts", "chains", "contexts", "frames", "evidence"},
        ),
        (["compare", image, *layouts, "--scenario", storm], {"decision", "verdicts", "frames", "scenario-0"}),
        (["simulate", "anon-holes"], {"scenario"}),
    ):
        target = tmp_path / f"{words[0]}.html"
        assert main([*words, "--html", str(target)]) == 0
        out, err = capsys.readouterr()
        assert out and not err
        found = {element["id"] for tag, element in Reader(target.read_text()).elements if tag == "section"}
        assert sections <= found, words


@pytest.mark.slow
def test_simulations_show_free_blocks_over_time(tmp_path: Path) -> None:
    target = tmp_path / "simulate.html"
    assert main(["simulate", "anon-holes", "--html", str(target)]) == 0
    figures = data_of(target.read_text())["figures"]
    eight, four = (figures[f"scenario-free-{number}"]["data"]["series"] for number in (0, 1))
    end = [one["y"][-1] for one in eight]
    assert end[0] > 20 and sum(end[1:]) == 0, "much is free, and all of it single pages"
    assert sum(one["y"][-1] for one in four) < 2, "single pages are taken to the last"
    assert figures["scenario-children"]["data"]["series"][0]["y"] == [47, 972]


def test_bad_uses_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = str(SAMPLE / "vmlinux")
    for words in (
        ["check", image, "--html", "-"],
        ["check", image, "--html", str(tmp_path / "missing" / "report.html")],
        ["simulate", "--replay", str(tmp_path), "--html", str(tmp_path / "report.html")],
    ):
        try:
            status = main(words)
        except SystemExit as error:
            status = int(str(error.code))
        assert status == 2, words
        assert "html" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(SystemExit):
        main(["check", image, "--html", str(tmp_path / "report.html")])
    assert "pip install 'stackfit[html]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

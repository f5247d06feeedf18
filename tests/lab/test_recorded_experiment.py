"""The model as it is now against the experiment's recorded runs (fixtures/recordings/experiment)."""

from __future__ import annotations

import dataclasses
import json
import lzma
import tarfile
from pathlib import Path
from statistics import median
from typing import Any

import jsonschema
import pytest

from stackfit.lab.cases import Case
from stackfit.lab.claims import Claim
from stackfit.lab.experiment import Outcome, Row
from stackfit.lab.forecast import Forecast, forecast
from stackfit.layouts import load_layout
from stackfit.report.html import render
from stackfit.report.html_experiment import experiment_page
from stackfit.report.html_model import Grid

REPOSITORY = Path(__file__).resolve().parents[2]
RECORDED = REPOSITORY / "fixtures" / "recordings" / "experiment"
LAYOUTS = {"8k": "linux-i386", "4k": "linux-i386-4k", "8k-shared": "linux-i386-shared"}
# Those that the model once failed, and one of each other kind.
FORKS = (
    "8k-32-ramfs-process", "8k-64-anon-process", "8k-32-anon-thread", "4k-32-anon-process",
    "8k-32-cache-process", "4k-48-fresh-process", "8k-32-fresh-process-threads", "8k-shared-32-ramfs-thread",
)  # fmt: skip

CASE = {field.name for field in dataclasses.fields(Case)}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return dict(json.loads(lzma.decompress((RECORDED / "experiment.json.xz").read_bytes())))


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("experiment")
    with tarfile.open(RECORDED / "runs.tar.xz") as tar:
        names = [member for member in tar.getmembers() if member.name.startswith("costs/")]
        tar.extractall(directory, names, filter="data")
    return directory / "costs"


def now(name: str, costs: Path, seeds: int) -> Forecast:
    stored = json.loads(lzma.decompress((RECORDED / "predictions.json.xz").read_bytes()))[name]
    table = stored["scenario"]
    table["costs"] = str(costs / Path(table["costs"]).name)
    kernel = next(one for one in sorted(LAYOUTS, key=len, reverse=True) if name.startswith(f"{one}-"))
    return forecast(Case(kernel, 0, "", "", name), table, load_layout(LAYOUTS[kernel]), seeds)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORKS)
def test_children(name: str, document: dict[str, Any], costs: Path) -> None:
    row = next(one for one in document["rows"] if one["case"]["name"] == name)
    found = now(name, costs, 3 if name != "8k-64-anon-process" else 9)
    assert found.processes == pytest.approx(row["children"], rel=0.15)
    assert found.failed_order == row["order"]


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["8k", "4k"])
@pytest.mark.parametrize("load", ["cycle", "grow"])
def test_reclaim(kernel: str, load: str, document: dict[str, Any], costs: Path) -> None:
    case = f"{kernel}-64-{load}-process"
    row = next(one for one in document["rows"] if one["case"]["name"] == case)
    found = now(case, costs, 1 if load == "cycle" else 3)
    for name in ("pgscan_kswapd", "pgsteal_kswapd", "pswpout"):
        counted = median(one["counters"][name] / one["counters"]["forks"] for one in row["outcomes"])
        assert 0.5 <= found.rates[name][1] / 1000 / counted <= 2, name
    if load == "cycle":
        assert not found.counters["allocstall"] and not median(
            one["counters"]["allocstall"] for one in row["outcomes"]
        )
    # Two-page stacks end before they have made all children, one-page stacks do not, in the model as counted.
    ended = {one["order"] for one in row["outcomes"]}
    assert (found.least < 1000 and 1 in ended) if case == "8k-64-grow-process" else ended == {None}


def test_what_is_recorded(document: dict[str, Any]) -> None:
    schema = json.loads((REPOSITORY / "docs" / "schemas" / "stackfit.experiment-1.json").read_text())
    jsonschema.validate(document, schema)
    assert len(document["overflows"]) == 9
    for one in document["overflows"]:
        assert abs(one["predicted"] - one["measured"]) <= 64 and one["least"] <= one["measured"]
        assert one["overflows"] == one["fits"] + 1


def test_its_page_shows_claims_counts_and_tables(document: dict[str, Any]) -> None:
    rows = [
        Row(
            Case(**{key: value for key, value in one["case"].items() if key in CASE}),
            Forecast(**one["predicted"]),
            None,
            tuple(Outcome(**outcome) for outcome in one["outcomes"]),
        )
        for one in document["rows"]
    ]
    page = experiment_page([], rows, [], [], [Claim("<b>far</b> more", "holds", "why", "rule")])
    assert [section.key for section in page.sections] == ["claims", "counts", "runs"]
    charts = page.sections[1].blocks
    assert len(charts) == len({row.case.kernel for row in rows if not row.case.reclaim})
    table = page.sections[2].blocks[0]
    assert isinstance(table, Grid)
    assert len(table.rows) == sum(not row.case.reclaim for row in rows)
    text = render(page)
    assert "<b>far</b>" not in text and "far" in text

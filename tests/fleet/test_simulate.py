"""Grids of simulations: each run as `simulate` makes it, and the spread of them."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from stackfit.cli.main import main
from stackfit.fleet.simulate import spread_of
from stackfit.machine import scenario

pytestmark = pytest.mark.slow  # nothing here is about the hot modules: once is enough

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
# A machine of 16 MiB that makes children until there is no block for a stack.
SMALL = """
name = "small"
description = "a very small machine"
costs = "linux-6.1-i386-lab"
layouts = ["linux-2.6-8k", "linux-2.6-4k"]
[memory]
block_order = 10
compaction = false
[[memory.zone]]
name = "Normal"
pages = 4096
managed_kb = 16000
free = [2, 1, 1, 1, 1, 1, 1, 1, 2, 0, 0]
[[step]]
do = "fill"
kind = "anonymous"
until_free_kb = 4096
[[step]]
do = "churn"
kind = "anonymous"
rounds = 20
pages = 16
[[step]]
do = "children"
mode = "process"
"""


def valid(text: str) -> dict[str, Any]:
    schema = json.loads((SCHEMAS / "stackfit.fleet-simulate-1.json").read_text(encoding="utf-8"))
    document = json.loads(text)
    jsonschema.Draft202012Validator(schema).validate(document)
    return dict(document)


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small.toml"
    path.write_text(SMALL, encoding="utf-8")
    return str(path)


def test_runs_are_those_of_simulate(small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, single = tmp_path / "table.json", tmp_path / "single.json"
    words = ["--seeds", "3", "--workers", "0", "--json", str(table), "--output", str(tmp_path / "runs")]
    assert main(["fleet", "simulate", small, *words]) == 0
    out, err = capsys.readouterr()
    assert not err and "small: processes and memory" in out and "seeds 0 to 2" in out
    assert main(["simulate", small, "--seeds", "3", "--json", str(single)]) == 0
    assert (tmp_path / "runs" / "small.json").read_bytes() == single.read_bytes()
    document = valid(table.read_text(encoding="utf-8"))
    alone = json.loads(single.read_text(encoding="utf-8"))["runs"]
    assert [(run["layout"], run["seed"], run["processes"]) for run in document["runs"]] == [
        (run["layout"], run["seed"], run["processes"]) for run in alone
    ]
    first, second = document["cells"]
    for cell in (first, second):
        mine = [run["processes"] for run in alone if run["layout"] == cell["layout"]]
        assert cell["spread"]["processes"]["mean"] == pytest.approx(statistics.mean(mine))
        assert cell["spread"]["processes"]["least"] == min(mine)
        assert cell["spread"]["overflows"] is None
    more = [
        b["processes"] - a["processes"] for a, b in zip(alone[:3], alone[3:], strict=True)
    ]  # by seed: layouts come one after the other
    assert first["against_first"] is None
    assert second["against_first"]["median"] == sorted(more)[1] and second["against_first"]["runs"] == 3


def test_a_cluster_gives_the_same_bytes(small: str, tmp_path: Path, cluster: Any) -> None:
    storm = Path(scenario.__file__).parent / "scenarios" / "interrupt-storm.toml"
    short = tmp_path / "short.toml"
    short.write_text(
        storm.read_text(encoding="utf-8").replace("hours = 0.05", "hours = 0.001"), encoding="utf-8"
    )
    here, there = tmp_path / "here.json", tmp_path / "there.json"
    command = ["fleet", "simulate", small, str(short), "--layout", "linux-2.6-4k", "--json"]
    assert main([*command, str(here), "--workers", "0"]) == 0
    assert main([*command, str(there), "--scheduler", cluster.scheduler_address]) == 0
    assert here.read_bytes() == there.read_bytes()
    cells = valid(here.read_text(encoding="utf-8"))["cells"]
    assert cells[1]["spread"]["processes"] is None and cells[1]["spread"]["overflows"]["least"] > 0


def test_runs_that_cannot_be_made_are_left_out(
    small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = tmp_path / "full.toml"
    full.write_text(SMALL.replace('"small"', '"full"').replace(
        "until_free_kb = 4096", "kb = 90000"), encoding="utf-8")  # fmt: skip
    assert main(["fleet", "simulate", small, str(full), "--workers", "0"]) == 3
    out, err = capsys.readouterr()
    assert err.count("left out: full on linux-2.6-") == 2 and "small: processes and memory" in out
    assert main(["fleet", "simulate", str(full), "--workers", "0"]) == 2
    assert "no run could be made" in capsys.readouterr().err
    assert main(["fleet", "simulate", small, small, "--workers", "0"]) == 2
    assert "scenario given twice" in capsys.readouterr().err


def test_spread() -> None:
    spread = spread_of([5, 1, 4, 2])
    assert (spread.least, spread.q1, spread.median, spread.q3, spread.greatest) == (1, 1, 4, 5, 5)
    assert spread.mean == 3 and spread.deviation == pytest.approx(statistics.stdev([5, 1, 4, 2]))
    assert spread_of([7]).deviation is None

"""simulate --replay and measure pages as they are called: tables, JSON, one line for bad input."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from stackfit.cli.main import main

REPOSITORY = Path(__file__).resolve().parents[2]
RECORDINGS = REPOSITORY / "fixtures" / "recordings"
QEMU = RECORDINGS / "pagetrace-qemu"
NAMES = ("buddyinfo", "pagetypeinfo", "zoneinfo", "vmstat", "meminfo")


def valid(name: str, text: str) -> dict[str, Any]:
    path = REPOSITORY / "docs" / "schemas" / f"stackfit.{name}-1.json"
    document = json.loads(text)
    jsonschema.Draft202012Validator(json.loads(path.read_text(encoding="utf-8"))).validate(document)
    assert document["schema"] == f"stackfit.{name}/1"
    return dict(document)


def test_replay_prints_every_interval_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "replay.json"
    assert main(["simulate", "--replay", str(RECORDINGS / "pagetrace-i386"), "--json", str(target)]) == 0
    out, err = capsys.readouterr()
    assert not err and "\x1b" not in out
    assert out.count("exact") == 6 and out.count("differs") == 2
    assert "6 pages free in the recording only (measured)" in out
    document = valid("replay", target.read_text(encoding="utf-8"))
    assert [run["exact"] for run in document["intervals"]] == [True, False, True, True]
    for run in document["intervals"] + document["through"]:
        for side in ("model", "recorded"):
            pages = sum(n << order for zone in run["zones"] for order, n in enumerate(zone[side]))
            assert pages == run[f"free_{side}"]
        assert run["wrong_pages"] == sum(one["pages"] for one in run["differences"])
        assert all(one["pages"] == sum(n for _, n in one["frames"]) for one in run["differences"])
        assert len(run["impossible_events"]) == sum(one["events"] for one in run["impossible"])


def test_convert_writes_what_replays_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in QEMU.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "events.csv.xz").unlink()
    assert main(["simulate", "--convert", str(QEMU / "events.csv.xz"), str(tmp_path / "events.csv")]) == 0
    assert main(["simulate", "--replay", str(tmp_path), "--json", "-"]) == 0
    document = valid("replay", capsys.readouterr().out)
    assert len(document["through"]) == 6 and all(run["exact"] for run in document["through"])


def test_measure_saved_files(capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(QEMU / f"{name}-5") for name in NAMES]
    assert main(["measure", "pages", *files, "--json", "-"]) == 0
    document = valid("pages", capsys.readouterr().out)
    assert not document["unread"] and [zone["zone"] for zone in document["zones"]] == ["DMA", "Normal"]
    for number, total in enumerate(document["stacks"]):
        assert total["split"] == sum(zone["stacks"][number]["split"] for zone in document["zones"])
        assert total["above_min"] <= total["split"]
    assert main(["measure", "pages", *files]) == 0
    assert "How many more contiguous stacks fit now" in capsys.readouterr().out


def test_measure_with_buddyinfo_alone_says_what_it_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "buddyinfo").write_bytes((QEMU / "buddyinfo-5").read_bytes())
    assert main(["measure", "pages", str(tmp_path), "--json", "-"]) == 0
    document = valid("pages", capsys.readouterr().out)
    assert {row["file"] for row in document["unread"]} == set(NAMES) - {"buddyinfo"}
    assert all(row["above_min"] is None and row["evidence"] == "assumed" for row in document["stacks"])


@pytest.mark.skipif(not os.access("/proc/buddyinfo", os.R_OK), reason="/proc/buddyinfo cannot be read here")
def test_measure_the_machine_that_runs_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "pages", "--json", "-"]) == 0
    assert valid("pages", capsys.readouterr().out)["source"] == "/proc"


@pytest.mark.parametrize(
    "words",
    [
        ["simulate", "--replay", "/nonexistent"],
        ["simulate", "--replay", str(QEMU / "zoneinfo-0")],
        ["simulate", "--convert", str(QEMU / "uname"), "-"],
        ["simulate", "--convert", str(QEMU / "events.csv.xz"), "/nonexistent/out.csv"],
        ["measure", "pages", "/nonexistent"],
        ["measure", "pages", str(QEMU / "uname")],
        ["measure", "pages", str(QEMU / "zoneinfo-0")],
        ["measure", "pages", str(QEMU / "buddyinfo-0"), str(QEMU / "buddyinfo-1")],
        ["measure", "pages", str(QEMU / "buddyinfo-0"), str(QEMU / "zoneinfo-99")],
    ],
)
def test_bad_input_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("stackfit: error: ") and err.count("\n") == 1


def test_simulate_wants_to_know_what(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["simulate"])
    assert stopped.value.code == 2

"""simulate SCENARIO as it is called: what is shipped runs, its JSON is as published, errors are one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from stackfit.cli.main import main
from stackfit.machine.scenario import SCENARIOS

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED = REPOSITORY / "src" / "stackfit" / "machine" / "scenarios"


def simulate(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["simulate", *words, "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert not err
    document = json.loads(out)
    schema = json.loads((REPOSITORY / "docs/schemas/stackfit.simulate-1.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(document)
    return dict(document)


def test_holes_stop_order_1_stacks_early_and_order_0_stacks_when_memory_is_used_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = simulate(capsys, "anon-holes", "--seeds", "2")
    assert before == simulate(capsys, "anon-holes", "--seeds", "2")
    assert [(run["layout"], run["seed"]) for run in before["runs"]] == [
        ("linux-2.6-8k", 0), ("linux-2.6-8k", 1), ("linux-2.6-4k", 0), ("linux-2.6-4k", 1),
    ]  # fmt: skip
    for run in before["runs"]:
        assert sum(count << order for order, count in enumerate(run["buddyinfo"])) == run["free_pages"]
        big = run["layout"] == "linux-2.6-8k"
        assert (run["stopped_by"], run["failed_order"]) == ("oom", 1 if big else 0)
        assert run["stack_bytes"] == run["processes"] * (8192 if big else 4096)
        # Measured with 64 MB (fixtures/recordings/fork-i386): 46 and 971 processes, 27,852 and 980 kB left.
        assert run["processes"] == pytest.approx(46 if big else 971, rel=0.1)
        assert run["free_pages"] * 4 == pytest.approx(27852 if big else 980, rel=0.05)


@pytest.mark.slow
def test_separate_stacks_change_where_it_gets_deep(capsys: pytest.CaptureFixture[str]) -> None:
    document = simulate(capsys, "interrupt-storm")
    shared, separate = document["runs"]
    assert document["era"] is None and shared["processes"] is None
    deepest = {stack["stack"]: stack for stack in shared["stacks"]}
    kinds = {name for name, _ in deepest["process"]["chain"]}
    assert len(kinds) >= 3  # a call, and interrupts on top of it
    assert {stack["stack"] for stack in separate["stacks"] if stack["greatest"]} >= {"hardirq", "softirq"}
    for run in document["runs"]:
        for stack in run["stacks"]:
            if stack["greatest"] is not None:
                assert sum(size for _, size in stack["chain"]) == stack["greatest"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_shipped_scenario_runs_and_says_what_it_assumes(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    document = simulate(capsys, name, "--seeds", "1")
    assert document["scenario"] == name
    assert all(run["assumptions"] for run in document["runs"])
    assert main(["simulate", name, "--seeds", "1"]) == 0
    out, err = capsys.readouterr()
    assert not err and "\x1b" not in out and document["description"] in out


def change(old: str, new: str) -> str:
    text = (SHIPPED / "anon-holes.toml").read_text(encoding="utf-8")
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "neither memory nor interrupts"),
        ("name = 3", "nothing to simulate"),
        (change('era = "linux-6.1"', 'era = "linux-7"'), "linux-7"),
        (change("free_movable = [0,", "free_movable = [-1,"), "free_movable"),
        (change("free_movable = [0, ", "free_movable = ["), "free_movable"),
        (change("managed_kb = 60668", "managed_kb = 100"), "managed"),
        (change("block_order = 10", "block_order = 11"), "block_order"),
        (change("block_order = 10", "block_orders = 10"), "block_order"),
        (change('do = "punch"', 'do = "punsh"'), "do"),
        (change('do = "pin"\nkind = "anonymous"', 'do = "pin"'), "kind"),
        (change("until_free_kb = 1024", "until_free_kb = 0"), "out of memory"),
        (change("until_free_kb = 1024", ""), "either kb or until_free_kb"),
        (change('costs = "linux-6.1-i386-lab"', ""), "costs"),
        (change('do = "children"\nmode = "process"', 'do = "pin"\nkind = "file"'), "makes children"),
        (change("pages = 16352", "pages = 900000000"), "pages"),
        (change("[memory]", "[time]\ndisk = []\n[memory]"), "disk"),
        (change("[memory]", "[time]\ndisk = [12, -1]\n[memory]"), "disk"),
        (change("[memory]", "[time]\nswap = 100\n[memory]"), "swap"),
    ],
)  # fmt: skip
def test_bad_scenarios_are_one_line(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    assert main(["simulate", str(path)]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and says in err


def test_layouts_without_a_stack_to_allocate_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = tmp_path / "static.toml"
    text = (REPOSITORY / "src/stackfit/layouts/presets/linux-2.6-4k.toml").read_text(encoding="utf-8")
    layout.write_text(text.replace('allocation = "contiguous"', 'allocation = "static"'), encoding="utf-8")
    assert main(["simulate", "fresh-boot", "--layout", str(layout)]) == 2
    assert "no stack per process" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--seeds", "0"], ["--seeds", "x"], ["--replay", "x", "fresh-boot"]])
def test_usage_errors(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["simulate", "fresh-boot", *words])
    assert caught.value.code == 2

"""How much to allocate: bound, margin, alignment; nothing where the bound is none."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from stackfit.analysis import analyse
from stackfit.cli.main import main
from stackfit.verdict.allocation import DEFAULT_MARGIN, Margin, parse_margin

REPOSITORY = Path(__file__).resolve().parents[2]
FIRMWARE = REPOSITORY / "fixtures" / "firmware"
IMAGE, LAYOUT = FIRMWARE / "rtos-cortex-m4f.elf", FIRMWARE / "rtos-cortex-m4f.toml"


def test_a_margin_is_a_share_or_bytes() -> None:
    assert (DEFAULT_MARGIN.of(1000), DEFAULT_MARGIN.of(1), DEFAULT_MARGIN.text) == (100, 1, "10 %")
    assert parse_margin("12.5%") == Margin(millipercent=12_500) and parse_margin("12.5 %").of(100) == 13
    assert parse_margin("64").of(10_000) == 64 and parse_margin("0").of(10_000) == 0
    for text in ("", "-1", "1e3", "many", "٣", "%", "9999999999999"):
        with pytest.raises(ValueError, match="neither"):
            parse_margin(text)


def test_each_stack_of_firmware_with_a_bound_has_advice() -> None:
    analysis = analyse([IMAGE], layouts=[LAYOUT], margin=parse_margin("30"))
    stacks = {need.stack.name: (need, analysis.advice(need)) for need in analysis.verdicts[0].stacks}
    assert len(stacks) == 5
    for need, advice in stacks.values():
        assert advice is not None and need.bound == advice.bound and advice.margin == 30
        assert advice.bytes % advice.unit == 0 and 0 <= advice.bytes - advice.bound - 30 < advice.unit


def test_nothing_is_advised_while_something_is_open() -> None:
    analysis = analyse([FIRMWARE / "traps-cortex-m4f.elf"])
    (main_stack,) = [need for need in analysis.verdicts[0].stacks if need.stack.name == "main"]
    assert main_stack.open and analysis.advice(main_stack) is None


def test_margins_of_the_project_and_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    schema = json.loads((REPOSITORY / "docs/schemas/stackfit.check-1.json").read_text(encoding="utf-8"))

    def allocated(*words: str) -> list[int]:
        assert main(["check", str(IMAGE), "--layout", str(LAYOUT), *words, "--json", "-"]) == 0
        document = json.loads(capsys.readouterr().out)
        jsonschema.Draft202012Validator(schema).validate(document)
        return [stack["allocate"]["margin"] for stack in document["layouts"][0]["stacks"]]

    bounds = [need.bound or 0 for need in analyse([IMAGE], layouts=[LAYOUT]).verdicts[0].stacks]
    assert allocated() == [DEFAULT_MARGIN.of(bound) for bound in bounds]
    (tmp_path / "stackfit.toml").write_text('margin = "25%"\n')
    assert allocated() == [-(-bound // 4) for bound in bounds]
    assert allocated("--margin", "8") == [8] * len(bounds)
    (tmp_path / "stackfit.toml").write_text("margin = 16\n")
    assert allocated() == [16] * len(bounds)
    (tmp_path / "stackfit.toml").write_text('margin = "plenty"\n')
    assert main(["check", str(IMAGE)]) == 2
    assert "margin" in capsys.readouterr().err
    assert main(["check", str(IMAGE), "--layout", str(LAYOUT), "--no-config"]) == 0
    assert "margin 10 %, to a multiple of 8 B" in capsys.readouterr().out

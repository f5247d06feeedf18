"""The numbers of the compiled modules are those of the Python enumerations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import stackfit.calls.flow_constants
import stackfit.frames.constants
import stackfit.image.dwarf_constants
import stackfit.isa.constants
from stackfit.frames.model import SiteKind, StackKind, Summary
from stackfit.isa.effects import Operation

SOURCES = Path(__file__).resolve().parents[2] / "src" / "stackfit"


def declared(pxd: Path) -> dict[str, int]:
    return {name: int(value, 0) for name, value in re.findall(r"^ +(\w+) = (\w+)", pxd.read_text(), re.M)}


@pytest.mark.parametrize(
    "module",
    [
        stackfit.isa.constants,
        stackfit.frames.constants,
        stackfit.calls.flow_constants,
        stackfit.image.dwarf_constants,
    ],
)
def test_the_uncompiled_and_the_compiled_modules_use_the_same_numbers(module: object) -> None:
    name = str(module.__name__)  # type: ignore[attr-defined]
    pxd = declared(SOURCES.joinpath(*name.split(".")[1:]).with_suffix(".pxd"))
    python = {key: value for key, value in vars(module).items() if key.isupper() and isinstance(value, int)}
    assert pxd and {key: python.get(key) for key in pxd} == pxd


def test_every_operation_is_declared() -> None:
    pxd = declared(SOURCES / "isa" / "constants.pxd")
    assert {operation.name: pxd.get(operation.name) for operation in Operation} == dict(Operation.__members__)


def test_every_kind_and_every_summary_bit_is_declared() -> None:
    pxd = declared(SOURCES / "frames" / "constants.pxd")
    assert {bit.name: pxd.get(str(bit.name)) for bit in Summary} == dict(Summary.__members__)
    assert {f"SITE_{kind.name}": pxd.get(f"SITE_{kind.name}") for kind in SiteKind} == {
        f"SITE_{kind.name}": kind for kind in SiteKind
    }
    stacks = {
        "FRAME": StackKind.FRAME,
        "SWITCHED": StackKind.OTHER_STACK,
        "BELOW": StackKind.BELOW_ALLOCATION,
    }
    assert {name: pxd.get(name) for name in stacks} == stacks

"""What a diff says of two builds: partners found, sums that add up, frames that objdump confirms."""

from __future__ import annotations

import re
import shutil
import subprocess
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import KernelFiles, fetched, files
from stackfit.frames.analyse import analyse_frames
from stackfit.frames.model import OPEN_FRAME
from stackfit.image.load import load_image, load_program
from stackfit.image.model import Image, InputError
from stackfit.image.pointers import code_pointers
from stackfit.image.tables import read_tables
from stackfit.image.vmlinuz import unpack
from stackfit.isa.code import decode_program
from stackfit.store.diff import diff
from stackfit.store.match import match, stem
from stackfit.store.model import Diff, Frame, Function, Ladder, Need, Snapshot
from stackfit.store.write import fingerprints

CODE = "40:aaaa"


def function(
    number: int, name: str, frame: int | None = 8, module: str | None = None, **more: Any
) -> Function:
    part_of = stem(name) if stem(name) != name else None
    return Function(
        number,
        module,
        name,
        part_of,
        frame,
        more.get("code", f"{number + 20}:{name}{frame}"),
        more.get("open", {}),
    )


def side(*functions: Function, **more: Any) -> Snapshot:
    about = {"machine": "x86_64", "stackfit": "1", "hop_limit": "unlimited", **more.get("about", {})}
    return Snapshot(
        more.get("path", "x.db"), about, None, ((None, "id"),), more.get("assumptions", frozenset()),
        functions, more.get("edges", (array("q"), array("q"))),
        more.get("stacks", ()), more.get("contexts", ()),
    )  # fmt: skip


def partners(old: list[Function], new: list[Function]) -> list[tuple[str, str, str]]:
    return sorted((pair.old.name, pair.new.name, pair.how) for pair in match(old, new).pairs)


# ---------------------------------------------------------------- partners


def test_what_the_compiler_appends_does_not_hide_a_function() -> None:
    for name in ("x.constprop.0", "x.isra.0", "x.part.0.constprop.1", "x.llvm.123", "x.isra.0.cold"):
        assert stem(name) == "x"
    assert stem("x.y") == "x.y"
    old, new = (
        [function(0, "x"), function(1, "y.isra.0")],
        [function(0, "x.constprop.0"), function(1, "y.isra.1")],
    )
    assert partners(old, new) == [("x", "x.constprop.0", "suffix"), ("y.isra.0", "y.isra.1", "suffix")]


def test_a_piece_split_off_is_of_the_function_that_stayed() -> None:
    whole, parted = side(function(0, "x", 200)), side(function(0, "x", 40), function(1, "x.part.0", 176))
    found = diff(whole, parted)
    assert [(one.change, one.name, one.of, one.growth) for one in found.functions] == [
        ("split", "x.part.0", "x", 176),
        ("shrank", "x", None, -160),
    ]
    back = diff(parted, whole)
    assert [(one.change, one.name, one.of) for one in back.functions] == [
        ("grew", "x", None),
        ("joined", "x.part.0", "x"),
    ]


def test_code_that_moved_out_of_its_caller_or_into_it() -> None:
    whole = side(function(0, "x", 200), function(1, "y", 16))
    edges = (array("q", [0, 1, 1]), array("q", [2, 2, 0]))  # x and y call the new one, y calls x too
    parted = side(function(0, "x", 40), function(1, "y", 24), function(2, "helper", 176), edges=edges)
    appeared = diff(whole, parted).functions[0]
    assert (appeared.name, appeared.change, appeared.beside) == ("helper", "appeared", (("x", -160),))
    vanished = diff(parted, whole).functions[-1]
    assert (vanished.name, vanished.change, vanished.beside) == ("helper", "vanished", (("x", 160),))


def test_a_function_that_moves_into_a_module_and_one_that_is_renamed() -> None:
    old = [function(0, "moves"), function(1, "was", code=CODE), function(2, "short", code="4:b")]
    new = [function(0, "moves", module="m"), function(1, "is", code=CODE), function(2, "brief", code="4:b")]
    assert partners(old, new) == [("moves", "moves", "moved"), ("was", "is", "code")]
    found = diff(side(*old), side(*new))
    assert {(one.change, one.name) for one in found.functions} == {
        ("vanished", "short"),
        ("appeared", "brief"),
    }
    assert {(one.old_name, one.name, one.module, one.how) for one in found.renamed} == {
        ("moves", "moves", "m", "moved"),
        ("was", "is", None, "code"),
    }


def test_of_several_with_one_name_the_same_code_comes_first_and_nothing_is_guessed() -> None:
    old = [function(0, "show", code="9:a"), function(1, "show", code="9:b"), function(2, "show", code="9:c")]
    new = [function(0, "show", code="9:c"), function(1, "show", code="9:a"), function(2, "show", code="9:d")]
    pairs = {(pair.old.number, pair.new.number, pair.how) for pair in match(old, new).pairs}
    assert pairs == {(0, 1, "name"), (2, 0, "name"), (1, 2, "name")}
    fewer = match(old, new[1:])  # one of b and c is gone: which one is not known
    assert [(pair.old.number, pair.new.number) for pair in fewer.pairs] == [(0, 1)]
    assert len(fewer.gone) == 2 and len(fewer.come) == 1
    different = match(old, [function(n, "show", code=f"9:{n}") for n in range(3)])
    assert {(pair.old.number, pair.new.number, pair.how) for pair in different.pairs} == {
        (0, 0, "order"),
        (1, 1, "order"),
        (2, 2, "order"),
    }


# ---------------------------------------------------------------- what changed


def test_frames_that_lose_or_gain_their_bound() -> None:
    found = diff(
        side(function(0, "a", 100), function(1, "b", None)),
        side(function(0, "a", None), function(1, "b", 64)),
    )
    assert {(one.change, one.name) for one in found.functions} == {("unbounded", "a"), ("bounded", "b")}
    assert [one.change for one in found.grown(1 << 20)] == ["unbounded"]


def need(found: int, direct: int, bound: int | None, opened: int, *frames: Frame, **more: Any) -> Need:
    key = more.get("key", ("syscall", "read", "", "process", "0"))
    return Need(key, Ladder(found, direct, bound, opened), frames, more.get("size"), more.get("verdict"))


def test_chains_are_compared_function_by_function() -> None:
    old = need(500, 600, None, 3, Frame("a", None, 100), Frame("b", "m", 200), Frame("b", "m", 200))
    new = need(560, 600, None, 3, Frame("a", None, 110), Frame("b.isra.0", "m", 200), Frame("c", None, 250))
    (change,) = diff(side(contexts=(old,)), side(contexts=(new,))).contexts
    assert (change.change, change.growth) == ("grew", 60)
    assert [(one.name, one.old, one.new, one.old_times, one.new_times) for one in change.steps] == [
        ("c", 0, 250, 0, 1),
        ("a", 100, 110, 1, 1),
        ("b.isra.0", 400, 200, 2, 1),
    ]
    assert sum(one.growth for one in change.steps) == 60


@pytest.mark.parametrize(
    ("old", "new", "change", "growth"),
    [
        ((100, 100, 100, 0), (100, 100, 140, 0), "grew", 40),
        ((100, 120, 120, 0), (90, 100, 110, 0), "shrank", -20),
        ((100, 100, 100, 0), (100, 100, None, 0), "unbounded", 0),
        ((100, 100, None, 0), (100, 100, 100, 0), "bounded", 0),
        ((100, 100, 100, 0), (100, 100, 100, 2), "changed", 0),
    ],
)
def test_how_a_need_changed(old: Any, new: Any, change: str, growth: int) -> None:
    (one,) = diff(side(contexts=(need(*old),)), side(contexts=(need(*new),))).contexts
    assert (one.change, one.growth) == (change, growth)


def test_growth_is_more_than_what_is_allowed_and_what_appears_is_none() -> None:
    old = side(function(0, "a", 100), function(1, "b", 100), contexts=(need(10, 10, 10, 0),))
    new = side(
        function(0, "a", 116), function(1, "b", 117), function(2, "c", 4000), contexts=(need(10, 10, 40, 0),)
    )
    found = diff(old, new)
    assert [getattr(one, "name", "context") for one in found.grown(16)] == ["b", "context"]
    assert len(found.grown(0)) == 3 and found.grown(30) == []


def test_open_sites_are_counted_by_function_and_reason_and_module() -> None:
    old = side(function(0, "a", open={"unknown": 2}), function(1, "gone", module="m", open={"unknown": 1}))
    new = side(function(0, "a", open={"unknown": 3, "missing": 1}))
    found = diff(old, new)
    assert {(one.name, one.reason, one.old, one.new) for one in found.open} == {
        ("a", "unknown", 2, 3),
        ("a", "missing", 0, 1),
        ("gone", "unknown", 1, 0),
    }
    assert [(one.module, one.functions, one.open) for one in found.modules] == [
        (None, (1, 1), (2, 4)),
        ("m", (1, 0), (1, 0)),
    ]


def test_what_makes_numbers_differ_is_said() -> None:
    old = side(assumptions=frozenset({("budget", "f", "why")}), about={"stackfit": "0"})
    notes = diff(old, side()).notes
    assert any("stackfit 0 and 1" in note for note in notes)
    assert any("1 only in the old one" in note for note in notes)
    stack = need(1, 1, 1, 0, key=("other", "process"), size=4096)
    found = diff(side(stacks=(stack,)), side(stacks=(need(1, 1, 1, 0, key=("mine", "process"), size=4096),)))
    assert found.stacks == () and any("layouts differ" in note for note in found.notes)
    with pytest.raises(InputError, match="is for i386"):
        diff(side(), side(about={"machine": "i386"}))


# ---------------------------------------------------------------- two kernels

MODULES = ("jitterentropy_rng", "configfs", "xor", "team")


@pytest.fixture(scope="module")
def builds() -> list[KernelFiles]:
    return [
        files(fetched("amd64", rf"linux-image-6\.1\.0-{number}-cloud-amd64-unsigned", may_vanish=True))
        for number in (50, 56)
    ]


@pytest.fixture(scope="module")
def kernels(builds: list[KernelFiles]) -> tuple[Diff, list[list[Path]]]:
    """Two of Debian's builds, each with a few modules: their functions."""
    modules = [[next(one.modules.rglob(f"{name}.ko*")) for name in MODULES] for one in builds]
    sides = [frames_of(one.vmlinuz, those) for one, those in zip(builds, modules, strict=True)]
    return diff(*sides), modules


def frames_of(kernel: Path, modules: list[Path]) -> Snapshot:
    """A snapshot without calls, which would take most of the time."""
    program = load_program([kernel], modules)
    code = decode_program(program)
    frames = analyse_frames(code, read_tables(program), code_pointers(program))
    functions, prints = code.functions, fingerprints(code)
    return side(
        *(
            Function(
                index, program.images[int(functions.image[index])].module, functions.names[index],
                functions.part_of(index),
                None if int(frames.summary[index]) & OPEN_FRAME else int(frames.frame[index]),
                prints[index], {},
            )
            for index in np.flatnonzero((functions.parent < 0) & ~functions.piece).tolist()
        ),
        path=str(kernel),
    )  # fmt: skip


def prologue(path: Path, image: Image, name: str) -> int | None:
    """Bytes of a function's frame as objdump's disassembly shows them: what its first instructions push and
    subtract, and the return address. None: it does more than that."""
    records, names = image.symbols.records, image.symbols.names
    (symbol,) = [number for number, one in enumerate(names) if one == name]
    section = image.sections[int(records["section"][symbol])]
    address = int(records["address"][symbol])
    later = records["address"][
        (records["section"] == records["section"][symbol]) & (records["address"] > address)
    ]
    end = int(later.min()) if later.size else section.end
    command = ["objdump", "-d", "--no-show-raw-insn", f"--section={section.name}"]
    command += [f"--start-address={address}", f"--stop-address={end}", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    total, pushes = 8, True
    for line in text.splitlines():
        instruction = line.partition(":\t")[2].strip()
        if re.match(r"push +%r", instruction) and pushes:
            total += 8
        elif match_ := re.match(r"sub +\$(0x[0-9a-f]+),%rsp$", instruction):
            total += int(match_[1], 16)
            pushes = False
        elif re.match(r"(push|and .*,%rsp|lea .*,%rsp|sub .*,%rsp)", instruction):
            return None
    return total


@pytest.mark.kernel
def test_five_frames_that_grew_between_two_kernels_by_objdump(
    kernels: tuple[Diff, list[list[Path]]], builds: list[KernelFiles], tmp_path: Path
) -> None:
    if shutil.which("objdump") is None:
        pytest.skip("no objdump here")
    found, modules = kernels
    files_of: list[dict[str | None, tuple[Path, Image]]] = []
    for number, (one, those) in enumerate(zip(builds, modules, strict=True)):
        unpacked = tmp_path / f"vmlinux-{number}"
        unpacked.write_bytes(bytes(unpack(str(one.vmlinuz), one.vmlinuz.read_bytes()).elf))
        of: dict[str | None, tuple[Path, Image]] = {None: (unpacked, load_image(one.vmlinuz))}
        of |= {name: (path, load_image(path)) for name, path in zip(MODULES, those, strict=True)}
        files_of.append(of)
    grown = [one for one in found.functions if one.change == "grew" and one.how == "name"]
    assert len(grown) > 100
    checked = 0
    for one in grown:
        frames = [
            prologue(*files_of[number][one.module], one.name)
            for number in (0, 1)
            if files_of[number][one.module][1].symbols.names.count(one.name) == 1
        ]
        if len(frames) == 2 and None not in frames:
            assert frames == [one.old, one.new], one
            checked += 1
        if checked == 5:
            break
    assert checked == 5


@pytest.mark.kernel
def test_most_functions_of_two_kernels_find_their_partner(kernels: tuple[Diff, list[list[Path]]]) -> None:
    found, _ = kernels
    come = sum(one.change in ("appeared", "split") for one in found.functions)
    assert come < 0.03 * len(found.new.functions)
    renamed = {(one.old_name, one.name): one.how for one in found.renamed}
    # kernel/rcu/tree.c: renamed between 6.1.176 and 6.1.192, its code the same.
    assert renamed["rcu_momentary_dyntick_idle", "rcu_momentary_eqs"] == "code"

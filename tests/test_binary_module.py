"""A third-party module as a binary-only vendor ships it: nothing is lost for want of its names.

The same module is analysed as built, where symbols say where its functions are, and without any symbol of its
own. Linking gives both the same addresses, so that functions and call sites can be compared one by one.
"""

from __future__ import annotations

import json
import lzma
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import KernelFiles, load_script
from stackfit.analysis import Analysis, analyse
from stackfit.calls.model import Reason
from stackfit.cli.main import main
from stackfit.frames.analyse import function_roles
from stackfit.frames.model import SiteKind
from stackfit.image.link import link
from stackfit.image.load import load_image
from stackfit.image.model import Image
from stackfit.isa.effects import Operation

pytestmark = pytest.mark.kernel

build_dkms = load_script("build_dkms")
UNDEFINED = "needs a symbol that no image given defines"


@pytest.fixture(scope="module")
def module(amd64_kernel: KernelFiles) -> Any:
    """The module as built and stripped, for `amd64_kernel`."""
    try:
        return build_dkms.build()
    except build_dkms.FetchError as error:
        missing = isinstance(error, build_dkms.MissingTool)
        if os.environ.get("CI") == "true" and not (error.offline or missing):
            pytest.fail(f"third-party module: {error}", pytrace=False)
        pytest.skip(f"no third-party module: {error}")
    except OSError as error:
        pytest.skip(f"no third-party module: the cache cannot be written: {error}")


def modinfo(image: Image, key: str) -> str:
    section = image.section(".modinfo")
    assert section is not None
    fields = dict(
        field.split("=", 1) for field in section.data.tobytes().decode().split("\0") if "=" in field
    )
    return fields.get(key, "")


@pytest.fixture(scope="module")
def dependencies(amd64_kernel: KernelFiles, module: Any) -> list[Path]:
    """The kernel's modules that it needs, and those that they need."""
    files = {path.name.split(".")[0].replace("-", "_"): path for path in amd64_kernel.modules.rglob("*.ko*")}
    found: dict[str, Path] = {}
    wanted = [Path(module.stripped)]
    while wanted:
        for name in filter(None, modinfo(load_image(wanted.pop()), "depends").replace("-", "_").split(",")):
            if name not in found:
                found[name] = files[name]
                wanted.append(files[name])
    assert found, "a module that depends on none cannot show what a missing one does"
    return list(found.values())


@pytest.fixture(scope="module")
def named(amd64_kernel: KernelFiles, module: Any, dependencies: list[Path]) -> Analysis:
    return analyse([amd64_kernel.vmlinuz], [module.module, *dependencies])


@pytest.fixture(scope="module")
def nameless(amd64_kernel: KernelFiles, module: Any, dependencies: list[Path]) -> Analysis:
    return analyse([amd64_kernel.vmlinuz], [module.stripped, *dependencies])


@pytest.fixture(scope="module")
def alone(amd64_kernel: KernelFiles, module: Any) -> Analysis:
    """Without the modules that it depends on."""
    return analyse([amd64_kernel.vmlinuz], [module.stripped])


def functions_of(analysis: Analysis) -> dict[int, tuple[int, int, int, str]]:
    """Frame, instructions reached, summary and name by entry, of the module's functions."""
    functions, frames = analysis.code.functions, analysis.frames
    own = np.flatnonzero((functions.image == 1) & (functions.parent < 0) & ~functions.piece).tolist()
    return {
        int(functions.address[one]): (
            int(frames.frame[one]),
            int(frames.reached[one]),
            int(frames.summary[one]),
            functions.names[one],
        )
        for one in own
    }


def sites_of(analysis: Analysis) -> set[tuple[object, ...]]:
    """The module's call sites, with addresses for the names of functions."""
    functions, calls = analysis.code.functions, analysis.calls
    names = ["", *calls.names]
    fields = ("address", "return_address", "depth", "kind", "tail", "rung", "evidence", "reason")
    return {
        (
            int(functions.address[calls.function[site]]),
            *(int(getattr(calls, field)[site]) for field in fields),
            names[int(calls.name[site]) + 1],
            tuple(
                int(functions.address[one])
                for one in (
                    calls.candidate_sets[calls.candidates[site]] if calls.candidates[site] >= 0 else ()
                )
            ),
        )
        for site in np.flatnonzero(functions.image[calls.function] == 1).tolist()
    }


def test_the_stripped_module_is_the_same_module_without_its_names(module: Any) -> None:
    built, stripped = load_image(module.module), load_image(module.stripped)
    loaded = [
        [
            (one.name, one.address, one.data.tobytes())
            for one in link([image]).images[0].sections
            if one.allocated
        ]
        for image in (built, stripped)
    ]
    assert loaded[0] == loaded[1]  # every relocation writes what it wrote before
    undefined = [
        {
            name
            for name, record in zip(image.symbols.names, image.symbols.records, strict=True)
            if record["section"] == -2 and name
        }
        for image in (built, stripped)
    ]
    assert undefined[0] == undefined[1]
    defined = {
        name
        for name, record in zip(stripped.symbols.names, stripped.symbols.records, strict=True)
        if name and record["section"] >= 0 and record["type"] != 3
    }
    assert defined == {"init_module", "cleanup_module", "__this_module"}


def test_every_function_is_found_without_its_symbol(named: Analysis, nameless: Analysis) -> None:
    expected, found = functions_of(named), functions_of(nameless)
    assert len(expected) > 50
    assert sum(name.startswith("sub_") for *_, name in found.values()) == len(found) - 2  # init and cleanup
    lost = {hex(at): entry for at, entry in expected.items() if at not in found}
    invented = {hex(at): entry for at, entry in found.items() if at not in expected}
    other = {
        hex(at): (expected[at], found[at])
        for at in expected.keys() & found.keys()
        if expected[at][:3] != found[at][:3]
    }
    assert (lost, invented, other) == ({}, {}, {})


def test_every_call_site_is_found_at_the_same_depth(named: Analysis, nameless: Analysis) -> None:
    expected, found = sites_of(named), sites_of(nameless)
    assert len(expected) > 300
    assert sorted(expected - found) == []
    assert sorted(found - expected) == []


def calls_out(analysis: Analysis) -> dict[int, str]:
    """Calls and jumps to symbols that the module does not define: address and name, from its relocations."""
    image, code = analysis.program.images[1], analysis.code
    found: dict[int, str] = {}
    for index, table in image.relocations.items():
        section = image.sections[index]
        if not section.executable:
            continue
        outside = table[image.symbols.records["section"][table["symbol"]] == -2]
        places = outside["offset"] + np.uint64(section.address)
        rows = np.searchsorted(code.address, places, "right") - 1
        branch = np.isin(
            code.instructions.operation[rows], (Operation.CALL, Operation.JUMP, Operation.JUMP_CONDITIONAL)
        )
        for row, symbol in zip(rows[branch].tolist(), outside["symbol"][branch].tolist(), strict=True):
            found[int(code.address[row])] = image.symbols.names[symbol]
    return found


def check_calls_out(analysis: Analysis) -> set[str]:
    """Each call out of the module is a site, resolved to what it names or open by that name.

    Returns the names of the open ones.
    """
    functions, calls = analysis.code.functions, analysis.calls
    missing = set(analysis.program.undefined.values())
    # Thunks and tracing stand for an instruction: a return, an indirect branch (a site of its own), a nop.
    roles = function_roles(functions)
    sites: dict[int, list[int]] = {}
    for site in np.flatnonzero(functions.image[calls.function] == 1).tolist():
        sites.setdefault(int(calls.address[site]), []).append(site)
    wrong, open_names, count = [], set(), 0
    for address, name in calls_out(analysis).items():
        if any(roles[one] for one in functions.named(name)):
            continue
        count += 1
        here = sites.get(address, [])
        if name in missing:
            good = bool(here) and all(
                calls.reason[site] == Reason.UNDEFINED and calls.names[calls.name[site]] == name
                for site in here
            )
            open_names.add(name)
        else:
            good = bool(here) and all(
                calls.candidates[site] >= 0
                and any(
                    name in (functions.names[one], *functions.aliases[one])
                    for one in calls.candidate_sets[calls.candidates[site]]
                )
                for site in here
            )
        if not good:
            wrong.append((hex(address), name))
    assert wrong == []
    assert count > 200
    return open_names


def test_no_call_into_the_kernel_is_lost(nameless: Analysis) -> None:
    assert nameless.program.undefined == {}
    assert check_calls_out(nameless) == set()
    assert not (nameless.calls.reason == Reason.UNDEFINED).any()


def test_without_its_dependencies_exactly_their_symbols_are_open(
    nameless: Analysis, alone: Analysis, dependencies: list[Path]
) -> None:
    symbols = nameless.program.images[1].symbols
    imported = {
        name for name, record in zip(symbols.names, symbols.records, strict=True) if record["section"] == -2
    }
    exported: set[str] = set()
    for path in dependencies:
        strings = load_image(path).section("__ksymtab_strings")
        exported.update(strings.data.tobytes().decode().split("\0") if strings is not None else ())
    theirs = (imported & exported) - {""}
    assert theirs
    assert set(alone.program.undefined.values()) == theirs
    assert check_calls_out(alone) == theirs


@pytest.mark.slow
def test_the_check_says_what_is_missing_and_what_the_module_adds(
    amd64_kernel: KernelFiles, module: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = load_image(module.stripped).module
    layouts = ("linux-x86_64", "linux-x86_64-8k")
    status = main(
        [
            "check",
            str(amd64_kernel.vmlinuz),
            "--modules",
            module.stripped,
            "--through",
            str(name),
            "--fail-on",
            "",
        ]
        + [word for layout in layouts for word in ("--layout", layout)]
        + ["--json", str(tmp_path / "check.json")]
    )
    printed = capsys.readouterr().out
    assert status == 0
    assert f"{name}: " in printed and "adds at most " in printed
    document = json.loads((tmp_path / "check.json").read_text())
    result = document["through"]
    assert 0 < result["own_frames"] <= result["adds_found"] <= result["adds"]
    stacks = {(stack["layout"], stack["name"]): stack for stack in result["stacks"]}
    for layout in layouts:
        stack = stacks[layout, "process"]
        # Its threads run on process stacks: a known chain leads into it.
        assert stack["headroom"] == stack["size"] - stack["need"]
        assert stack["need"] >= result["own_frames"]
        assert layout in printed
    whole, half = (stacks[layout, "process"] for layout in layouts)
    assert (whole["size"], half["size"]) == (16384, 8192)
    assert half["headroom"] < whole["headroom"]
    for layout in document["layouts"]:
        (stack,) = [one for one in layout["stacks"] if one["name"] == "process"]
        assert stack["lower_bound"]
        assert UNDEFINED in json.dumps(stack["open"])


@pytest.mark.slow
def test_the_kernels_own_modules_are_the_same_without_names(
    amd64_kernel: KernelFiles, tmp_path: Path
) -> None:
    """All of them: functions that are only tail-called, exported, or handed to the kernel in a register.

    Labels of hand-written assembly aside, nothing calls what is not found: dead copies, code that only the
    function right before it jumps to, and KVM's emulated instructions, entered by address arithmetic.
    """
    for directory in ("named", "nameless"):
        (tmp_path / directory).mkdir()
    for path in sorted(amd64_kernel.modules.rglob("*.ko*")):
        data = path.read_bytes()
        copy = tmp_path / "named" / path.name.removesuffix(".xz")
        copy.write_bytes(lzma.decompress(data) if path.suffix == ".xz" else data)
        build_dkms.strip_names(copy, tmp_path / "nameless" / copy.name)
    named = analyse([amd64_kernel.vmlinuz], [tmp_path / "named"])
    nameless = analyse([amd64_kernel.vmlinuz], [tmp_path / "nameless"])
    functions, frames = named.code.functions, named.frames
    own = (functions.image > 0) & (functions.parent < 0) & ~functions.piece
    compiled: set[int] = set()  # entries that are no mere labels
    for image in named.program.images[1:]:
        records = image.symbols.records
        compiled.update(records["address"][(records["type"] == 2) & (records["section"] >= 0)].tolist())
    missing, different = [], []
    for index in np.flatnonzero(own).tolist():
        other = nameless.code.functions.at(int(functions.address[index]))
        if other < 0:
            missing.append(index)
        elif int(frames.frame[index]) != int(nameless.frames.frame[other]):
            different.append(functions.names[index])
    assert different == []
    found = nameless.code.functions
    invented = found.address[(found.image > 0) & ~np.isin(found.address, functions.address)]
    assert [hex(address) for address in invented.tolist()] == []
    lost = [index for index in missing if int(functions.address[index]) in compiled]
    assert len(lost) < 0.005 * int(own.sum())
    # Nothing that another function calls directly is lost.
    callee = named.frames.site_callee
    called = set(callee[(named.frames.site_kind == SiteKind.CALL) & (callee >= 0)].tolist())
    assert [functions.names[index] for index in lost if index in called] == []


def test_a_module_of_another_release_is_used_with_a_warning(
    amd64_kernel: KernelFiles, module: Any, tmp_path: Path
) -> None:
    release = amd64_kernel.release
    other = release.translate(str.maketrans("0123456789", "1234567890"))
    data = Path(module.stripped).read_bytes()
    assert data.count(f"vermagic={release} ".encode()) == 1
    path = tmp_path / Path(module.stripped).name
    path.write_bytes(data.replace(f"vermagic={release} ".encode(), f"vermagic={other} ".encode()))
    (warning,) = analyse([amd64_kernel.vmlinuz], [path]).warnings
    assert str(path) in warning and other in warning and release in warning


def test_a_missing_compiler_is_one_line_that_names_its_package(
    amd64_kernel: KernelFiles,
    module: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = shutil.which

    def without_gcc(name: str, *, path: str | None = None) -> str | None:
        return None if name.startswith("gcc") else found(name, path=path)

    monkeypatch.setattr(build_dkms, "RECIPE", -1)  # nothing in the cache
    monkeypatch.setattr(build_dkms.shutil, "which", without_gcc)
    assert build_dkms.main([]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1].startswith("build_dkms: gcc-")
    assert "apt-get install gcc-" in printed.err

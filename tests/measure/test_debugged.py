"""Marks by debug information and by the scan, on dumps of real kernels reduced to the pages read."""

from __future__ import annotations

import lzma
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stackfit.image.load import load_image
from stackfit.image.model import Image, InputError
from stackfit.measure.core import Dump, open_dump
from stackfit.measure.debugged import agreement, debugged_marks, dump_marks
from stackfit.measure.dump import stack_marks
from stackfit.measure.model import Mark

DUMPS = Path(__file__).resolve().parents[2] / "fixtures" / "recordings" / "dumps"


def dump_of(machine: str, tmp_path: Path) -> Dump:
    path = tmp_path / "core"
    path.write_bytes(lzma.decompress((DUMPS / f"{machine}.core.xz").read_bytes()))
    return open_dump(path)


def of_that_build(dump: Dump, path: Path) -> Image:
    image = load_image(path)
    if image.build_id != dump.build_id:
        pytest.skip(f"the dump is of build-id {dump.build_id}, {path} is {image.build_id}")
    return image


def named(marks: tuple[Mark, ...], stack: str) -> dict[str, int]:
    return {mark.owner: mark.bytes for mark in marks if mark.stack == stack}


@pytest.mark.kernel
def test_amd64_marks_by_drgn_and_by_the_scan_are_the_same(
    amd64_recorded_kernel: Any, amd64_recorded_vmlinux: Path, tmp_path: Path
) -> None:
    pytest.importorskip("drgn")
    dump = dump_of("amd64", tmp_path)
    kernel = of_that_build(dump, amd64_recorded_kernel.vmlinuz)
    found = dump_marks(dump, kernel, of_that_build(dump, amd64_recorded_vmlinux))
    assert found.compared == (62, ())  # 51 tasks, the idle one, 2 that have ended, 8 stacks of a CPU
    tasks = named(found.marks, "process")
    assert tasks["init (1)"] == 3608 and tasks["swapper/0"] == 1632 and tasks["kthreadd (2)"] == 2224
    assert named(found.marks, "irq") == {"CPU 0": 1544}
    assert named(found.marks, "entry") == {"CPU 0": 184}
    assert [mark.kind for mark in found.marks].count("ended") == 2
    assert named(found.marks, "nmi") == {"CPU 0": 0}


@pytest.mark.kernel
def test_amd64_irq_stacks_are_found_without_debug_information(
    amd64_recorded_kernel: Any, tmp_path: Path
) -> None:
    dump = dump_of("amd64", tmp_path)
    found = stack_marks(dump, of_that_build(dump, amd64_recorded_kernel.vmlinuz))
    assert named(found, "irq") == {"CPU 0": 1544}
    assert named(found, "debug") == {"CPU 0": 0}
    assert [mark.kind for mark in found].count("ended") == 2


@pytest.mark.kernel
def test_i386_marks_by_drgn_and_by_the_scan_are_the_same(i386_vmlinux: Path, tmp_path: Path) -> None:
    pytest.importorskip("drgn")
    dump = dump_of("i386", tmp_path)
    debug = of_that_build(dump, i386_vmlinux)
    found = dump_marks(dump, None, debug)
    assert found.compared is not None and found.compared[1] == ()
    assert found.compared[0] == 52  # by the scan alone: 51 tasks and the idle one
    assert dump_marks(dump, debug, debug).compared == (55, ())
    assert named(found.marks, "hardirq") == {"CPU 0": 924}
    assert named(found.marks, "softirq") == {"CPU 0": 744}
    assert named(found.marks, "process")["init (1)"] == 3432


def test_a_dump_says_which_kernel_it_is_of(tmp_path: Path) -> None:
    dump = dump_of("amd64", tmp_path)
    assert dump.release == "6.1.0-56-cloud-amd64"
    assert dump.build_id == "3b43fad5034874490492495d552c0af6a5fab235"
    process = [mark for mark in stack_marks(dump) if mark.stack == "process"]
    assert len(process) == 53 and {mark.kind for mark in process} == {""}
    assert dump_marks(dump).notes  # and what is not known without an image


@pytest.mark.kernel
def test_another_kernel_is_refused(i386_kernel: Any, amd64_recorded_kernel: Any, tmp_path: Path) -> None:
    dump = dump_of("amd64", tmp_path)
    with pytest.raises(InputError, match="is i386, the dump x86_64"):
        stack_marks(dump, load_image(i386_kernel.vmlinuz))
    other = replace(load_image(amd64_recorded_kernel.vmlinuz), build_id="00")
    for made in (stack_marks, debugged_marks):
        with pytest.raises(InputError, match="build-id 00 is not that of the dump"):
            made(dump, other)


def test_what_differs_is_listed() -> None:
    def mark(owner: str, size: int, address: int, kind: str = "user") -> Mark:
        return Mark("process", owner, size, 16384, kind, owner, address)

    scan = (mark("", 100, 1), mark("", 200, 2), mark("", 50, 9))
    debugged = (mark("a", 100, 1), mark("b", 208, 2), mark("c", 1, 3), mark("CPU 0", 5, 4, "cpu"))
    equal, differ = agreement(scan, debugged)
    assert equal == 1
    assert differ == ("b: 208 B, the scan has 200 B", "c: 1 B at 0x3, not found by the scan")

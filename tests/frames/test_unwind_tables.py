"""Depths at call sites of AArch64 and Arm code that others compiled, against its unwind tables."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cross
from conftest import KernelFiles, fetch_kernel, fetched
from stackfit.frames.analyse import analyse_frames
from stackfit.frames.switches import find_switches
from stackfit.frames.witness import Witness, cfi_witness
from stackfit.image.cfi import read_cfi
from stackfit.image.link import link
from stackfit.image.load import load_image
from stackfit.image.model import SYMBOL_DTYPE, Image, Symbols
from stackfit.image.pointers import code_pointers
from stackfit.image.tables import read_tables
from stackfit.isa.code import decode_program

PROFILED = r"""
void __attribute__((naked)) __gnu_mcount_nc(void)
{ __asm__ volatile("mov ip, lr\n\tpop {lr}\n\tbx ip"); }
extern int far(int *);
int __attribute__((noinline)) near(int a) { int b[40]; b[a] = a; return far(b) + far(b + 1); }
int __attribute__((noinline)) far(int *p) { return p[1]; }
"""
BOUNDED = """
long random(long n)
{ char *p = __builtin_alloca(n & 0x3ff); __asm__ volatile("" :: "r"(p) : "memory"); return n; }
"""


def with_functions_of_tables(image: Image) -> Image:
    """A stripped image with the functions that its unwind tables begin."""
    table = read_cfi(image)
    assert table is not None
    records = []
    for start in np.unique(table.start).tolist():
        for number, section in enumerate(image.sections):
            if section.executable and section.address <= start < section.end:
                records.append((start, 0, number, 2, 0))
    names = [f"f{record[0]:x}" for record in records]
    return replace(image, symbols=Symbols(names, np.array(records, SYMBOL_DTYPE)))


def held_against(image: Image, debug: Image) -> Witness:
    program = link([image])
    code = decode_program(program)
    frames = analyse_frames(
        code, read_tables(program), code_pointers(program), switches=find_switches(program, code)
    )
    witness = cfi_witness(code, frames, image, debug)
    assert witness is not None
    return witness


@pytest.mark.kernel
def test_the_c_library_for_arm64(arm64_libc: Path) -> None:
    image = with_functions_of_tables(load_image(arm64_libc))
    witness = held_against(image, image)
    assert witness.defined > 10_000 and not witness.disagreements


@pytest.mark.kernel
def test_the_arm64_kernel(arm64_kernel: KernelFiles) -> None:
    """The shipped image, which has no sections and no unwind tables, against those of its debug package."""
    kernel = fetch_kernel.Cache(fetch_kernel.default_cache())
    entry = kernel.resolved().get(f"arm64 {fetch_kernel.ARCHITECTURES['arm64']}")
    if fetch_kernel.describe(kernel, "arm64", entry, True, False) is None and not os.environ.get(
        "STACKFIT_LARGE"
    ):
        pytest.skip(
            "the debug package of 260 MB is not in the cache: scripts/fetch_kernel.py --arch arm64 --debug"
        )
    debug = load_image(fetched("arm64", debug=True).vmlinux)
    witness = held_against(load_image(arm64_kernel.vmlinuz), debug)
    assert witness.defined > 190_000 and witness.equal >= 0.999 * witness.defined


def test_a_call_of_the_profiler_takes_off_what_was_pushed_for_it(tmp_path: Path) -> None:
    source = tmp_path / "profiled.c"
    source.write_text(PROFILED)
    image = cross.build(tmp_path, "cortex-a7", [source], "-O2", "-pg", "-g1")
    tracked = cross.track(image)
    witness = cfi_witness(tracked.code, tracked.frames, tracked.program.images[0], tracked.program.images[0])
    assert witness is not None and witness.defined and not witness.disagreements
    near = tracked.named("near")
    assert int(tracked.frames.site_depth[tracked.frames.site_function == near].min()) >= 160


def test_an_allocation_of_a_number_of_bits_is_bounded(tmp_path: Path) -> None:
    """Rounded up after it is masked: the first mask bounds it, not the one that rounds."""
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.skip("no aarch64-linux-gnu-gcc")
    source = tmp_path / "bounded.c"
    source.write_text(BOUNDED)
    tracked = cross.track(cross.build(tmp_path, "aarch64", [source], "-O2"))
    frame = int(tracked.frames.frame[tracked.named("random")])
    assert 1024 < frame <= 1024 + 64

"""Functions of real C and compiler libraries that are written in assembly, sized from their code."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from stackfit.analysis import Analysis, analyse
from stackfit.frames.model import OPEN_FRAME

NEWLIB, PICOLIBC = (
    Path("/usr/lib/arm-none-eabi/newlib"),
    Path("/usr/lib/picolibc/riscv64-unknown-elf/lib/release"),
)


def libgcc(prefix: str, *flags: str) -> Path:
    command = [f"{prefix}-gcc", *flags, "-print-libgcc-file-name"]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def loaded(*paths: Path) -> Analysis:
    for path in paths:
        if not path.exists():
            pytest.skip(f"no {path}")
    return analyse(paths)


@pytest.fixture(scope="module")
def cortex_m0() -> Analysis:
    directory = NEWLIB / "thumb" / "v6-m" / "nofp"
    if not directory.exists():
        pytest.skip(f"no {directory}")
    library = libgcc("arm-none-eabi", "-mcpu=cortex-m0")
    return loaded(directory / "libc.a", directory / "librdimon.a", library)


def frame(analysis: Analysis, name: str) -> int:
    """The frame of the one function of that name, which has to be bounded."""
    (index,) = analysis.code.functions.named(name)
    assert not int(analysis.frames.summary[index]) & OPEN_FRAME, name
    return int(analysis.frames.frame[index])


def test_what_saves_and_restores_registers_takes_no_stack(cortex_m0: Analysis) -> None:
    """setjmp stores them into its buffer; longjmp leaves for another function's frame and never returns."""
    assert frame(cortex_m0, "setjmp") == 0 and frame(cortex_m0, "longjmp") == 0
    (index,) = cortex_m0.code.functions.named("longjmp")
    called = bool((cortex_m0.calls.function == index).any())
    assert not called


def test_helpers_of_the_arm_abi(cortex_m0: Analysis) -> None:
    """As their source says (libgcc config/arm/lib1funcs.S, bpabi-v6m.S): division by zero pushes r0 and lr, a
    switch r1 or r0 and r1, a product r4 to r7, lr, and r7 and lr once more."""
    expected = {
        "__aeabi_uidiv": 8, "__aeabi_uidivmod": 8, "__aeabi_idiv": 8, "__aeabi_lmul": 28,
        "__gnu_thumb1_case_sqi": 4, "__gnu_thumb1_case_uqi": 4, "__gnu_thumb1_case_shi": 8,
        "__gnu_thumb1_case_si": 8, "__aeabi_memcpy": 8, "memcpy": 20,
    }  # fmt: skip
    found = {name: frame(cortex_m0, name) for name in expected}
    assert found == expected


def test_a_switch_by_a_helper_reaches_all_its_cases(cortex_m0: Analysis) -> None:
    """Formatted output is full of them; nothing of its code is left out."""
    unreached = (cortex_m0.frames.visitor < 0) & ~cortex_m0.code.padding()
    for name in ("_vfprintf_r", "_svfprintf_r", "__svfscanf_r", "_strtod_l"):
        (index,) = cortex_m0.code.functions.named(name)
        assert frame(cortex_m0, name) > 50
        own = slice(int(cortex_m0.code.first[index]), int(cortex_m0.code.first[index + 1]))
        assert int(unreached[own].sum()) == 0, name


def test_a_semihosting_call_takes_no_stack_of_the_target(cortex_m0: Analysis) -> None:
    """bkpt 0xab halts for the debugger, which reads registers and memory; control comes back behind it."""
    functions, table = cortex_m0.code.functions, cortex_m0.code
    rows = [
        row
        for part in table.sections
        for row in range(*np.searchsorted(table.address, [part.section.address, part.section.end]).tolist())
        if table.instructions.length[row] == 2
        and part.section.data[int(table.address[row]) - part.section.address :][:2].tobytes() == b"\xab\xbe"
    ]
    assert len(rows) > 20
    depth, reached = cortex_m0.frames.depth, cortex_m0.frames.visitor >= 0
    for row in rows:
        assert reached[row] and reached[row + 1], functions.names[int(table.function[row])]
        assert depth[row] == depth[row + 1]


def test_functions_of_riscv_libraries() -> None:
    flags = ("-march=rv32imac", "-mabi=ilp32")
    directory = PICOLIBC / "rv32imac" / "ilp32"
    if not directory.exists():
        pytest.skip(f"no {directory}")
    analysis = loaded(directory / "libc.a", libgcc("riscv64-unknown-elf", *flags))
    for name, expected in (
        ("setjmp", 0), ("longjmp", 0), ("memcpy", 16), ("strcmp", 0), ("__mulsi3", 0), ("__divdi3", 0),
        ("__adddf3", 32), ("memset", 0),
    ):  # fmt: skip
        found = frame(analysis, name)
        assert found == expected, name

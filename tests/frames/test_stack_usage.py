"""Frames on Arm, AArch64 and RISC-V against what gcc says of them, and against its unwind tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import cross
from stackfit.frames.arguments import may_store_arguments
from stackfit.frames.model import OPEN_FRAME, Summary
from stackfit.frames.witness import cfi_witness
from stackfit.image.model import Machine

REPOSITORY = Path(__file__).resolve().parents[2]
FIRMWARE = REPOSITORY / "fixtures" / "firmware"
STUBS = """
struct pair { int a, b; };
struct block { long long w[5]; };
int sink(void *p, ...) { return *(char *)p; }
int leaf(int a) { return a; }
long long wide(long long a, int b) { return a + b; }
double real(double a, double b) { return a; }
struct block fill(int a, struct pair b) { struct block r = {{a, b.a}}; return r; }
int (*hooks[8])(int, int);
volatile int port;
void *memset(void *to, int value, __SIZE_TYPE__ count) { return to; }
void *memcpy(void *to, const void *from, __SIZE_TYPE__ count) { return to; }
"""


def rows(text: str) -> list[tuple[str, int, str]]:
    """(function, bytes, kind) of `.su` files."""
    found = []
    for line in text.splitlines():
        place, size, kind = line.split("\t")
        found.append((place.rsplit(":", 1)[1], int(size), kind))
    return found


def compare(tracked: cross.Tracked, stated: list[tuple[str, int, str]]) -> int:
    """How many static rows are equal; anything that differs fails."""
    equal = 0
    arm = tracked.program.machine is Machine.ARM
    for name, size, kind in stated:
        index = tracked.named(name)
        frame, summary = int(tracked.frames.compiler_frame[index]), int(tracked.frames.summary[index])
        if kind != "static":
            if kind == "dynamic":
                assert summary & (OPEN_FRAME | Summary.BOUNDED), name
            continue
        assert not summary & OPEN_FRAME, name
        if not arm and frame == 0 and size == 16:
            continue  # -msave-restore: gcc counts a save that it leaves out before a tail call
        doubtful = may_store_arguments(tracked.code, index) if arm else 0
        assert frame in (size, size + doubtful), (name, size, frame)
        equal += 1
    return equal


@pytest.mark.parametrize("level", ["-O0", "-O2", "-Os"])
@pytest.mark.parametrize("target", cross.TARGETS)
def test_frames_of_generated_functions(tmp_path: Path, target: str, level: str) -> None:
    """Each target has other functions at each level; the seeds are fixed."""
    count = 30
    seed = list(cross.TARGETS).index(target) * 3 + ["-O0", "-O2", "-Os"].index(level)
    command = [sys.executable, str(REPOSITORY / "scripts" / "generate_c.py"), str(count), str(seed)]
    source, stubs = tmp_path / "functions.c", tmp_path / "stubs.c"
    source.write_text(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    stubs.write_text(STUBS)
    image = cross.build(tmp_path, target, [source, stubs], level, "-fstack-usage", "-g1")
    tracked = cross.track(image)
    stated = rows((tmp_path / "functions.su").read_text())
    assert compare(tracked, stated) > count
    unreached = (tracked.frames.visitor < 0) & ~tracked.code.padding()
    own = [tracked.named(name) for name, _, _ in stated]
    assert not unreached[
        [index for index in range(len(unreached)) if tracked.code.function[index] in own]
    ].any()
    witness = cfi_witness(tracked.code, tracked.frames, tracked.program.images[0], tracked.program.images[0])
    assert witness is not None and not witness.disagreements
    if level != "-O0":  # there the tables speak of the frame pointer
        assert witness.defined > 2 * count


@pytest.mark.parametrize("name", sorted(path.stem for path in FIRMWARE.glob("*.su")))
def test_frames_of_our_firmware(name: str) -> None:
    tracked = cross.track(FIRMWARE / f"{name}.elf")
    stated = rows((FIRMWARE / f"{name}.su").read_text())
    # Hand-written assembly in naked functions has no row that could be right: gcc says 0.
    stated = [row for row in stated if row[0] not in ("PendSV_Handler", "SVC_Handler", "trap_entry")]
    known = [row for row in stated if tracked.code.functions.named(row[0])]
    assert compare(tracked, known) >= 9

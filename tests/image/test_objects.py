"""Relocatable objects and archives of Arm, AArch64 and RISC-V: linked here, and by a linker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cross
from stackfit.analysis import Analysis, analyse
from stackfit.calls.model import Evidence, Reason
from stackfit.cli.main import main
from stackfit.frames.model import OPEN_FRAME
from stackfit.image.archive import read_archive
from stackfit.image.load import load_images
from stackfit.image.model import InputError
from stackfit.verdict.model import StackNeed

REPOSITORY = Path(__file__).resolve().parents[2]


def calls(analysis: Analysis) -> set[tuple[str, int, str]]:
    """(caller, depth, callee) of every site with a callee."""
    names, found = analysis.code.functions.names, set()
    sites = analysis.calls
    for site in range(len(sites)):
        number = int(sites.candidates[site])
        for callee in sites.candidate_sets[number] if number >= 0 else ():
            found.add((names[int(sites.function[site])], int(sites.depth[site]), names[callee]))
    return found


def objects(directory: Path, target: str, sources: dict[str, str], *options: str) -> list[Path]:
    """One object of each source."""
    if not cross.has_compiler(target):
        pytest.skip(f"no {cross.TARGETS[target][0]}-gcc")
    prefix, flags = cross.TARGETS[target]
    made = []
    for name, text in sources.items():
        source = directory / name
        source.write_text(text)
        made.append(directory / f"{source.stem}.o")
        command = [f"{prefix}-gcc", *flags, *cross.COMMON, *options, "-c", str(source), "-o", str(made[-1])]
        subprocess.run(command, check=True)
    return made


def archive(directory: Path, target: str, members: list[Path], *options: str) -> Path:
    path = directory / "made.a"
    command = [f"{cross.TARGETS[target][0]}-ar", "rcs", *options, str(path), *map(str, members)]
    subprocess.run(command, check=True)
    return path


@pytest.mark.parametrize("target", cross.TARGETS)
def test_calls_and_frames_are_those_of_the_linked_image(tmp_path: Path, target: str) -> None:
    """An archive of two members, and the image that the linker makes of them (it relaxes RISC-V's calls)."""
    generate = [sys.executable, str(REPOSITORY / "scripts" / "generate_c.py"), "12", "7"]
    text = subprocess.run(generate, check=True, capture_output=True, text=True).stdout
    members = objects(tmp_path, target, {"functions.c": text, "callees.c": cross.CALLEES}, "-Os")
    linked = analyse([cross.build(tmp_path, target, [one.with_suffix(".c") for one in members], "-Os")])
    unlinked = analyse([archive(tmp_path, target, members)])
    assert unlinked.program.objects and unlinked.program.path == str(tmp_path / "made.a")
    own = set(unlinked.code.functions.names)
    expected = {call for call in calls(linked) if {call[0], call[2]} <= own}
    assert len(expected) > 30 and expected == {call for call in calls(unlinked) if call[2] in own}
    for name in sorted(own):
        (here,), (there,) = unlinked.code.functions.named(name), linked.code.functions.named(name)
        for table in ("frame", "compiler_frame", "summary"):
            assert getattr(unlinked.frames, table)[here] == getattr(linked.frames, table)[there], name
    outside = {callee for caller, _, callee in calls(linked) if caller in own} - own
    needed = unlinked.calls.reason == Reason.UNDEFINED
    assert {unlinked.calls.names[number] for number in unlinked.calls.name[needed].tolist()} >= {
        name for name in outside if not name.startswith(("__riscv_save", "__riscv_restore"))
    }


def test_what_no_object_defines_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (one,) = objects(
        tmp_path, "cortex-m4f", {"one.c": "int away(int); int f(int a) { return away(a) + 1; }"}, "-Os"
    )
    analysis = analyse([one])
    (site,) = np.flatnonzero(analysis.calls.reason == Reason.UNDEFINED).tolist()
    assert analysis.calls.names[int(analysis.calls.name[site])] == "away"
    assert analysis.calls.evidence[site] == Evidence.OPEN and analysis.frames.frame.tolist() == [8]
    assert main(["calls", str(one), "--open"]) == 0
    assert "needs a symbol that no image given defines: away" in capsys.readouterr().out
    assert main(["check", str(one)]) == 0
    assert "objects that were not linked" in capsys.readouterr().out


def test_a_weak_definition_gives_way_to_another_member_s(tmp_path: Path) -> None:
    weak = "__attribute__((weak)) int hook(int a) { return a; } int f(int a) { return hook(a) + 1; }"
    strong = "int use(void *); int hook(int a) { char b[64]; b[0] = a; return use(b); }"
    made = objects(tmp_path, "rv32imac", {"weak.c": weak, "strong.c": strong}, "-Os")
    analysis = analyse([archive(tmp_path, "rv32imac", made)])
    (site,) = np.flatnonzero(analysis.calls.function == analysis.code.functions.named("f")[0]).tolist()
    (callee,) = analysis.calls.candidate_sets[int(analysis.calls.candidates[site])]
    assert int(analysis.code.functions.image[callee]) == 1 and analysis.frames.frame[callee] >= 64


def test_a_call_between_instruction_sets(tmp_path: Path) -> None:
    """A32 calls T32 at every second byte by blx; T32 calls A32."""
    caller = "int t(int); int a(int x) { return t(x) + 1; } int leaf(int x) { return x; }"
    callee = 'asm(".text\\n.thumb\\n.thumb_func\\nodd: bx lr\\n"); int leaf(int);'
    callee += " int t(int x) { return leaf(x) + 2; }"
    made = objects(tmp_path, "cortex-a7", {"a.c": caller}, "-O1", "-fno-toplevel-reorder")
    made += objects(tmp_path, "cortex-a7", {"t.c": callee}, "-O1", "-mthumb", "-fno-toplevel-reorder")
    assert {("a", 8, "t"), ("t", 8, "leaf")} == calls(analyse(made))


def test_a_task_that_begins_at_a_function_of_a_library(tmp_path: Path) -> None:
    source = "int leaf(int *p) { return *p; } int f(int a) { int b[20]; b[3] = a; return leaf(b) + 1; }"
    (one,) = objects(tmp_path, "rv64gc", {"one.c": source}, "-O1", "-fno-inline")
    layout = tmp_path / "layout.toml"
    layout.write_text('name = "mine"\nextends = "bare-metal"\n[[task]]\nentry = "f"\nsize = 256\n')
    analysis = analyse([one], layouts=[layout])
    (stack,) = [one for one in analysis.verdicts[0].stacks if one.stack.name == "task f"]
    assert stack.bound == 96 and stack.verdict.value == "fits-if"


def test_what_always_lies_on_a_task_s_stack_is_counted(tmp_path: Path) -> None:
    """On a Cortex-M an exception's frame and what the context switch saves, which an object need not show."""
    plain = "int f(int a) { volatile int b[20]; b[3] = a; return b[a]; }"
    (one,) = objects(tmp_path, "cortex-m4f", {"one.c": plain}, "-O1")
    layout = tmp_path / "layout.toml"

    def need(declared: str, *files: Path) -> StackNeed:
        layout.write_text(f'name = "mine"\nextends = "cortex-m"\n[[task]]\nentry = "f"\n{declared}')
        (stack,) = [
            need
            for need in analyse(files, layouts=[layout]).verdicts[0].stacks
            if need.stack.name == "task f"
        ]
        return stack

    own = 80
    assert need("size = 256\n", one).verdict.value == "unknown"
    stated = need("size = 256\nsaved = 40\n", one)
    assert (stated.bound, stated.verdict.value) == (own + 36 + 40, "fits-if")
    assert need("size = 128\nsaved = 40\n", one).verdict.value == "may-exceed"
    # Another object's code may use floating point, whatever the first one's may.
    soft = tmp_path / "soft"
    soft.mkdir()
    (other,) = objects(soft, "cortex-m3", {"other.c": "int h(int a) { return a; }"}, "-O1")
    real = "float x; float r(float a) { return a * x; }"
    real += " int f(int a) { volatile int b[20]; b[3] = a; return r(b[a]); }"
    (one,) = objects(tmp_path, "cortex-m4f", {"two.c": real}, "-O1", "-fno-inline")
    assert need("size = 512\nsaved = 40\n", other, one).stack.reserve_base == 108 + 40


def test_what_a_file_says_of_the_context_switch_counts_on_any_machine(tmp_path: Path) -> None:
    (one,) = objects(tmp_path, "rv64gc", {"one.c": "int f(int a) { return a; }"}, "-O1")
    layout = tmp_path / "layout.toml"
    task = '[[task]]\nentry = "f"\nsize = 256\n'
    layout.write_text(f'name = "mine"\nextends = "bare-metal"\n{task}saved = 48\n{task}saved = 16\n')
    stacks = {one.stack.name: one for one in analyse([one], layouts=[layout]).verdicts[0].stacks}
    assert (stacks["task f"].bound, stacks["task f #2"].bound) == (48, 16)


# ---------------------------------------------------------------- real libraries

LIBRARIES = {
    "newlib T32": ("/usr/lib/arm-none-eabi/newlib/thumb/v6-m/nofp", "arm-none-eabi", ("-mcpu=cortex-m0",)),
    "newlib A32": ("/usr/lib/arm-none-eabi/newlib/arm/v5te/hard", "arm-none-eabi",
                   ("-march=armv5te+fp", "-mfloat-abi=hard")),
    "picolibc RV32": ("/usr/lib/picolibc/riscv64-unknown-elf/lib/release/rv32imac/ilp32",
                      "riscv64-unknown-elf", ("-march=rv32imac", "-mabi=ilp32")),
}  # fmt: skip


@pytest.fixture(scope="module", params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Analysis:
    """The C library and the compiler's."""
    directory, prefix, flags = LIBRARIES[request.param]
    libc = Path(directory) / "libc.a"
    if not libc.exists():
        pytest.skip(f"no {libc}")
    command = [f"{prefix}-gcc", *flags, "-print-libgcc-file-name"]
    libgcc = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return analyse([libc, libgcc])


def test_functions_of_a_library_have_frames(library: Analysis) -> None:
    """All but those of the unwinder, which sets the stack pointer itself."""
    functions, summary = library.code.functions, library.frames.summary
    opened = {functions.names[index] for index in np.flatnonzero(summary & OPEN_FRAME).tolist()}
    allowed = {
        "_Unwind_RaiseException", "_Unwind_ForcedUnwind", "_Unwind_Resume", "_Unwind_Resume_or_Rethrow",
        "execute_cfa_program", "unwind_phase2_forced",
    }  # fmt: skip
    assert opened <= allowed and len(functions) > 1300
    needed = library.calls.reason == Reason.UNDEFINED
    names = {library.calls.names[number] for number in library.calls.name[needed].tolist()}
    # What an operating system or the linker script has to provide.
    assert not {"memcpy", "strlen", "_malloc_r", "__aeabi_idiv", "__gnu_thumb1_case_uqi"} & names


# ---------------------------------------------------------------- archives


def member(name: bytes, body: bytes, size: int | None = None) -> bytes:
    length = len(body) if size is None else size
    header = (
        name.ljust(16) + b"0".ljust(12) + b"0".ljust(6) * 2 + b"644".ljust(8) + str(length).encode().ljust(10)
    )
    return header + b"`\n" + body + b"\n" * (len(body) & 1)


def test_names_of_members_in_both_ways() -> None:
    data = b"!<arch>\n" + member(b"/", b"\0\0\0\0") + member(b"//", b"a_long_name_of_a_member.o/\nother.o/\n")
    data += member(b"short.o/", b"one") + member(b"/0", b"two") + member(b"/27", b"three")
    data += member(b"#1/12", b"bsd_name.o\0\0four")
    found = read_archive("x.a", data)
    assert [(one.name, bytes(one.data)) for one in found] == [
        ("short.o", b"one"), ("a_long_name_of_a_member.o", b"two"), ("other.o", b"three"),
        ("bsd_name.o", b"four"),
    ]  # fmt: skip
    assert all(data[one.offset : one.offset + len(one.data)] == bytes(one.data) for one in found)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"!<thin>\n", "thin archive"),
        (b"!<arch>\nrubbish", "no header"),
        (b"!<arch>\n" + member(b"a.o/", b"x")[:-2] + b"", "no header|beyond"),
        (b"!<arch>\n" + member(b"a.o/", b"x", 10**9), "beyond the end"),
        (b"!<arch>\n" + member(b"a.o/", b"x").replace(b"1         `", b"-1        `"), "no number"),
        (b"!<arch>\n" + member(b"/7", b"x"), "not among its long names"),
        (b"!<arch>\n" + member(b"#1/99", b"x"), "longer than the member"),
    ],
)
def test_what_is_no_archive(data: bytes, cause: str) -> None:
    with pytest.raises(InputError, match=cause):
        read_archive("x.a", data)


@given(st.binary(max_size=200), st.integers(0, 199))
def test_any_bytes_end_in_members_or_one_error(noise: bytes, at: int) -> None:
    sound = (
        b"!<arch>\n" + member(b"//", b"long_name.o/\n") + member(b"/0", b"body") + member(b"b.o/", b"more")
    )
    data = sound[:at] + noise + sound[at + len(noise) :]
    if data[:8] in (b"!<arch>\n", b"!<thin>\n"):
        try:
            assert all(one.offset + len(one.data) <= len(data) for one in read_archive("x.a", data))
        except InputError as error:
            assert "\n" not in str(error)


def test_an_archive_without_objects_and_one_with_others(tmp_path: Path) -> None:
    path = tmp_path / "x.a"
    path.write_bytes(b"!<arch>\n" + member(b"readme/", b"text"))
    with pytest.raises(InputError, match="holds no ELF object"):
        load_images(path)
    (one,) = objects(tmp_path, "rv32imac", {"one.c": "int f(void) { return 1; }"})
    body = one.read_bytes()
    path.write_bytes(
        b"!<arch>\n" + member(b"one.o/", body) + member(b"one.o/", body) + member(b"readme/", b"text")
    )
    images, warnings = load_images(path)
    assert [image.module for image in images] == ["one.o", "one.o#2"]
    assert warnings == [f"{path}: 1 members are no ELF objects, readme first"]


def test_objects_beside_a_linked_image(tmp_path: Path) -> None:
    (one,) = objects(tmp_path, "rv32imac", {"one.c": "int f(void) { return 1; }"})
    image = REPOSITORY / "fixtures" / "firmware" / "rtos-riscv32.elf"
    with pytest.raises(InputError, match="give it alone"):
        analyse([image, one])

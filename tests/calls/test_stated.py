"""What compilers said of frames and calls, held against the code: gcc's .su and .ci, clang's .stack_sizes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import cross
import elves
from elves import ALLOC, EXECUTE, Elf, Part
from stackfit.analysis import analyse
from stackfit.cli.main import main
from stackfit.frames.statements import read_statements, stack_sizes
from stackfit.image.elf import read_elf
from stackfit.image.model import InputError

SOURCE = """
int sink(void *p, ...); extern int (*hook)(int);
static __attribute__((noinline)) int inner(int n) { char b[n]; return sink(b) + hook(n); }
int fixed(int n) { char b[40]; return sink(b) + inner(n); }
int tail(int n) { return hook(n); }
int _start(int n) { return fixed(n) + tail(n) + 1; }
"""
OTHER = """
static __attribute__((noinline)) int inner(int n) { volatile char b[100]; b[n] = n; return b[3]; }
int (*hook)(int); int sink(void *p, ...) { return inner(*(char *)p); }
"""


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an image, and what gcc wrote beside it."""
    directory = tmp_path_factory.mktemp("stated")
    for name, text in (("unit.c", SOURCE), ("other.c", OTHER)):
        (directory / name).write_text(text)
    options = ("-Os", "-fstack-usage", "-fcallgraph-info=su,da")
    sources = [directory / "unit.c", directory / "other.c"]
    cross.build(directory, "cortex-m3", sources, *options)
    return directory


def test_rows_and_calls_of_gcc_are_those_of_the_code(build: Path) -> None:
    """Static functions of one name are told by their units."""
    analysis = analyse([build / "image.elf"], witnesses=[build])
    usage, graph = analysis.stated
    assert [(one.kind, one.rows, one.compared, one.equal) for one in usage.usage.kinds] == [
        ("static", 5, 5, 5), ("dynamic,bounded", 0, 0, 0), ("dynamic", 1, 0, 0)
    ]  # fmt: skip
    assert not usage.usage.missing and not usage.usage.ambiguous
    assert graph.name == "gcc -fcallgraph-info" and graph.calls == 8 and not graph.missing
    (row,) = [row for _, row in graph.usage.pairs if row.objects]
    assert row.function == "inner" and row.objects[0].startswith("b ") and "unit.c:3" in row.objects[0]


def test_a_difference_is_a_row_with_both_numbers(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (build / "unit.su").read_text()
    size = int(text.split("fixed\t")[1].split("\t")[0])
    text = text.replace(f"fixed\t{size}\t", f"fixed\t{size - 8}\t")
    (tmp_path / "unit.su").write_text(text + "gone.c:1:2:gone\t8\tstatic\n")
    graph = (build / "unit.ci").read_text().replace('targetname: "__indirect_call"', 'targetname: "nowhere"')
    (tmp_path / "unit.ci").write_text(graph)
    target = tmp_path / "frames.json"
    command = ["frames", str(build / "image.elf"), "--witness", str(tmp_path)]
    assert main([*command, "--json", str(target)]) == 0
    printed = capsys.readouterr().out
    assert "1 not (frames --witness lists them)" in printed and "nowhere" in printed
    usage, calls = json.loads(target.read_text())["stated"]
    (difference,) = usage["differences"]
    found = (difference["function"], difference["stated"], difference["frame"])
    assert found == ("fixed", size - 8, size)
    assert difference["source"] == f"{tmp_path / 'unit.su'}:2" and usage["missing"] == 1
    assert [one["callee"] for one in calls["missing_calls"]] == ["nowhere", "nowhere"]
    (opened,) = usage["open"]
    assert (opened["function"], opened["kind"], opened["stated"]) == ("inner", "dynamic", 16)


def test_a_bound_that_only_the_compiler_knows_is_an_assumption(build: Path, tmp_path: Path) -> None:
    rows = (build / "unit.su").read_text().replace("inner\t16\tdynamic", "only\t80\tdynamic,bounded")
    (tmp_path / "unit.su").write_text(rows)
    unit = (build / "unit.c").read_text().replace("inner", "only")
    (tmp_path / "unit.c").write_text(unit)
    (tmp_path / "other.c").write_text(OTHER)
    image = cross.build(tmp_path, "cortex-m3", [tmp_path / "unit.c", tmp_path / "other.c"], "-Os")
    analysis = analyse([image], witnesses=[tmp_path / "unit.su"])
    (entry,) = analysis.assumptions.dynamics
    assert (entry.function, entry.bytes, entry.source) == ("only", 80, f"{tmp_path / 'unit.su'}:1")
    index = analysis.code.functions.named("only")[0]
    assert analysis.applied.limits.frame[index] == 80 and not analysis.applied.limits.open_frame[index]
    # The user's own word wins.
    mine = tmp_path / "mine.toml"
    mine.write_text(
        'name = "mine"\n[[dynamic]]\nfunction = "only"\nbytes = 96\nreason = "n < 80"\nsource = "me"\n'
    )
    analysis = analyse([image], assumptions=[mine], witnesses=[tmp_path / "unit.su"])
    assert analysis.applied.limits.frame[index] == 96


def test_sizes_that_clang_left_in_objects_and_images(tmp_path: Path) -> None:
    clang = next((one for one in ("clang", "clang-16", "clang-14") if shutil.which(one)), None)
    if clang is None:
        pytest.skip("no clang")
    (tmp_path / "unit.c").write_text(SOURCE)
    compared = 0
    for target in ("thumbv7m-none-eabi", "armv7a-none-eabi", "aarch64-none-elf", "riscv32", "riscv64"):
        made = tmp_path / f"{target}.o"
        command = [clang, f"--target={target}", "-ffreestanding", "-O1", "-fstack-size-section", "-c"]
        subprocess.run([*command, str(tmp_path / "unit.c"), "-o", str(made)], check=True)
        (stated,) = analyse([made]).stated
        assert stated.name == "clang .stack_sizes" and not stated.usage.missing
        assert not stated.usage.differences, target
        compared += stated.usage.kinds[0].equal
    assert compared >= 15
    # Of an object that was linked since, by name.
    (rows,) = read_statements([tmp_path / "riscv32.o"])
    assert {row.function for row in rows.rows} == {"fixed", "tail", "_start"}


def test_a_section_of_an_image_by_address() -> None:
    """As a linker leaves it: an address of a word and a ULEB128 number, one after the other."""
    text = Part(".text", bytes.fromhex("89b0 7047 00bf 7047"), flags=ALLOC | EXECUTE, address=0x8000)
    sizes = (0x8001).to_bytes(4, "little") + b"\xa4\x01" + (0x8007).to_bytes(4, "little") + b"\0"
    parts = [
        text,
        *elves.symbols(32, [("f", 0x8001, 1), ("g", 0x8007, 1)], first=2),
        Part(".stack_sizes", sizes, flags=0),
    ]
    image = read_elf("a.elf", Elf(32, elves.ARM, elves.EXEC, parts).build())
    assert [(row.function, row.bytes) for row in stack_sizes(image)] == [("f", 164), ("g", 0)]
    parts[-1] = Part(".stack_sizes", sizes[:5] + b"\x80", flags=0)
    with pytest.raises(InputError, match="amid an entry"):
        stack_sizes(read_elf("a.elf", Elf(32, elves.ARM, elves.EXEC, parts).build()))


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("a.su", b"a.c:1:2:f\tmany\tstatic\n", "line 1: no row"),
        ("a.su", b"a.c:1:2:f\t8\tguessed\n", "line 1: no row"),
        ("a.su", b"\xff\xfe", "not text"),
        ("a.ci", b'graph: { title: "a.c"\nnonsense\n', "line 2: no node or edge"),
        ("a.o", Elf(64, elves.X86_64, parts=[Part(".text", b"\xc3")]).build(), "no section .stack_sizes"),
    ],
)
def test_what_is_no_statement(tmp_path: Path, name: str, content: bytes, cause: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=cause):
        read_statements([path])


def test_a_directory_without_any_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no files \*.su or \*.ci"):
        read_statements([tmp_path])
    with pytest.raises(InputError, match="No such file"):
        read_statements([tmp_path / "gone.su"])

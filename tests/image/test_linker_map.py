"""GNU ld's map: names for an image that lost its symbols, and what the linker left out."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import cross
from stackfit.analysis import analyse
from stackfit.cli.main import main
from stackfit.image.linker_map import InputSection, is_linker_map, read_linker_map
from stackfit.image.model import InputError

ONE = """
int other(int *); static __attribute__((noinline)) int shared(int a) { int b[10]; b[1] = a; return other(b); }
int unused(int a) { int b[30]; b[a] = a; return other(b) + shared(a); }
int _start(int a) { return shared(a) + 1; }
"""
TWO = """
static __attribute__((noinline)) int shared(int a) { volatile int b[50]; b[1] = a; return b[2]; }
int other(int *p) { return shared(*p) + 1; }
"""


@pytest.fixture(scope="module", params=["cortex-m3", "rv32imac"])
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stripped image, the whole one, its map, and gcc's files."""
    target = request.param
    if not cross.has_compiler(target):
        pytest.skip(f"no compiler for {target}")
    directory = tmp_path_factory.mktemp("map")
    prefix, flags = cross.TARGETS[target]
    for name, text in (("one.c", ONE), ("two.c", TWO)):
        (directory / name).write_text(text)
    compiler = [f"{prefix}-gcc", *flags, *cross.COMMON, "-Os", "-ffunction-sections", "-fstack-usage"]
    subprocess.run([*compiler, "-c", "one.c", "two.c"], check=True, cwd=directory)
    link = [*compiler, "-nostdlib", "-Wl,--gc-sections,-e,_start,-Map=image.map", "one.o", "two.o"]
    subprocess.run([*link, "-o", "image.elf"], check=True, cwd=directory)
    subprocess.run([f"{prefix}-strip", "-o", "bare.elf", "image.elf"], check=True, cwd=directory)
    return directory


def test_functions_get_their_names_and_units_back(build: Path) -> None:
    whole = analyse([build / "image.elf"], witnesses=[build])
    bare = analyse([build / "bare.elf"], witnesses=[build / "image.map", build])
    assert bare.program.images[0].symbol_source == "map"

    def frames(analysis: object) -> list[tuple[str, int, int]]:
        code, table = analysis.code, analysis.frames.frame  # type: ignore[attr-defined]
        return list(zip(code.functions.names, code.functions.address.tolist(), table.tolist(), strict=True))

    assert frames(bare) == frames(whole)
    (stated,) = bare.stated
    # Both static functions of one name, each by its unit; the one that nothing uses is gone.
    assert sum(one.equal for one in stated.usage.kinds) == 4 and not stated.usage.differences
    assert (stated.usage.missing, stated.discarded, stated.usage.ambiguous) == (1, 1, 0)


def test_on_the_command_line(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--witness", str(build / "image.map"), "--witness", str(build / "one.su")]
    assert main(["frames", str(build / "bare.elf"), *words, "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["image"]["names"] == "map"
    assert {"shared", "other", "_start"} <= {row["name"] for row in document["functions"]}
    assert main(["frames", str(build / "bare.elf"), *words]) == 0
    assert "1 rows name no function of the image (1 that the linker discarded)" in capsys.readouterr().out


def test_a_map_of_another_image_is_refused(build: Path, tmp_path: Path) -> None:
    linked = read_linker_map(build / "image.map")
    (address,) = [f"{at:#x}" for name, at, _ in linked.outputs if name == ".text"]
    path = tmp_path / "other.map"
    text = (build / "image.map").read_text()
    first = next(line for line in text.split("\n") if line.startswith(".text "))
    path.write_text(text.replace(first, first.replace("0x", "0x1", 1).replace("0x10000", "0x1000", 1)))
    assert address not in path.read_text().split(".text ", 1)[1].split("\n")[0]
    with pytest.raises(InputError, match=r"is of another image: \.text"):
        analyse([build / "bare.elf"], witnesses=[path])


def test_units_and_functions_of_input_sections() -> None:
    member = InputSection(".text.startup.main", 0, 8, "/usr/lib/libc.a(libc_tinystdio_puts.c.o)")
    assert (member.unit, member.function) == ("libc_tinystdio_puts.c", "main")
    plain = InputSection(".text", 0, 8, "build/one.o")
    assert (plain.unit, plain.function) == ("one.c", None)


def test_what_is_no_map(tmp_path: Path) -> None:
    path = tmp_path / "a.map"
    path.write_text("Memory Configuration\n\nName\n")
    assert is_linker_map(path)
    with pytest.raises(InputError, match="without sections"):
        read_linker_map(path)
    with pytest.raises(InputError, match="No such file"):
        is_linker_map(tmp_path / "gone.map")

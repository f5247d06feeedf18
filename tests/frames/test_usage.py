"""Frames against gcc's -fstack-usage of the same build."""

from __future__ import annotations

import lzma
import subprocess
from pathlib import Path

import pytest

from stackfit.analysis import analyse
from stackfit.cli.main import main
from stackfit.frames.usage import UsageRow, read_usage, usage_witness
from stackfit.image.model import InputError
from toolchain import has_gcc

SOURCE = """
int other(int *);
static __attribute__((noinline)) int one(int a) { int b[20]; b[0] = a; return other(b) + b[3]; }
int two(int a) { return one(a) + one(a + 1); }
int other(int *p) { volatile int n = *p; return n; }
int _start(void) { return two(3); }
"""
HEAD = "object,file,line,column,function,bytes,kind\n"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An executable and gcc's table of it."""
    if not has_gcc(32):
        pytest.skip("no gcc for -m32")
    directory = tmp_path_factory.mktemp("usage")
    (directory / "unit.c").write_text(SOURCE)
    subprocess.run(
        ["gcc", "-m32", "-Os", "-ffreestanding", "-fno-pic", "-fno-stack-protector", "-fcf-protection=none",
         "-fstack-usage", "-c", "unit.c"],
        cwd=directory, check=True,
    )  # fmt: skip
    subprocess.run(
        ["gcc", "-m32", "-nostdlib", "-no-pie", "-static", "-o", "image", "unit.o"], cwd=directory, check=True
    )
    rows = [line.split("\t") for line in (directory / "unit.su").read_text().splitlines()]
    table = HEAD + "".join(
        f'unit.o,unit.c,{place.split(":")[1]},1,{place.split(":")[3]},{size},"{kind}"\n'
        for place, size, kind in rows
    )
    path = directory / "stack-usage.csv.xz"
    path.write_bytes(lzma.compress(table.encode()))
    return directory / "image", path


def test_every_row_is_equal(build: tuple[Path, Path]) -> None:
    image, table = build
    analysis = analyse([image])
    rows = read_usage(table)
    witness = usage_witness(analysis.program, analysis.code, analysis.frames, rows)
    assert sum(kind.rows for kind in witness.kinds) == len(rows) == 4
    assert sum(kind.equal for kind in witness.kinds) == 4
    assert not witness.differences and not witness.missing and not witness.ambiguous


def test_what_differs_and_what_is_not_there(build: tuple[Path, Path]) -> None:
    image, table = build
    analysis = analyse([image])
    rows = [*read_usage(table), UsageRow("unit.c", "gone", 8, "static")]
    rows = [UsageRow(one.unit, one.function, 4, one.kind) if one.function == "one" else one for one in rows]
    witness = usage_witness(analysis.program, analysis.code, analysis.frames, rows)
    assert witness.missing == 1
    (difference,) = witness.differences
    assert (difference.row.function, difference.row.bytes) == ("one", 4) and difference.frame > 4


def test_on_the_command_line(build: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    image, table = build
    assert main(["frames", str(image), "--stack-usage", str(table)]) == 0
    assert "100.00%" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "no row of stack usage"),
        (b"\xfd7zXZ\0broken", "xz: corrupt"),
        (b"a,b\n1,2\n", "line 2"),
        (HEAD.encode() + b"a.o,a.c,1,1,f,many,static\n", "line 2"),
        (HEAD.encode() + b"a.o,a.c,1,1,f,8,guessed\n", "line 2"),
    ],
)
def test_what_is_no_table(tmp_path: Path, content: bytes, cause: str) -> None:
    path = tmp_path / "table"
    path.write_bytes(content)
    with pytest.raises(InputError, match=cause):
        read_usage(path)

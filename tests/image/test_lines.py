"""Source lines of addresses: as they stand in the source that gcc compiled, and as addr2line finds them."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from stackfit.image.lines import SourceLine, SourceLines
from stackfit.image.load import load_image
from stackfit.image.model import Image, InputError
from toolchain import compile_object

HEADER = """
static inline __attribute__((always_inline)) int twice(int x)
{
    return sink(x) + sink(x + 1); /* inlined */
}
"""
SOURCE = """
extern int sink(int);
#include "sub/twice.h"
__attribute__((noinline)) int sink(int x)
{
    volatile int kept = x;
    return kept; /* sink */
}
__attribute__((section(".text.other"))) int other(int x)
{
    return sink(x) + 1; /* other */
}
int _start(int x)
{
    return twice(x) + other(x);
}
"""


def program(directory: Path, *options: str) -> Path:
    (directory / "sub").mkdir(exist_ok=True)
    (directory / "sub" / "twice.h").write_text(HEADER)
    compiled = compile_object(directory, SOURCE, 64, "-O1", *options)
    linked = directory / "program"
    subprocess.run(["ld", "-Ttext=0x401000", str(compiled), "-o", str(linked)], check=True)
    return linked


def line_of(text: str, words: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if words in line)


def calls(image: Image, path: Path) -> list[int]:
    """Addresses of the call instructions, as objdump finds them."""
    text = subprocess.run(["objdump", "-d", str(path)], capture_output=True, text=True, check=True).stdout
    return [int(line.split(":")[0], 16) for line in text.splitlines() if "\tcall" in line]


@pytest.mark.parametrize("version", [3, 4, 5])
def test_calls_have_the_line_on_which_they_stand(version: int, tmp_path: Path) -> None:
    path = program(tmp_path, f"-gdwarf-{version}")
    image = load_image(path)
    lines = SourceLines(image)
    found = [lines.at(address) for address in calls(image, path)]
    inlined = SourceLine("sub/twice.h", line_of(HEADER, "inlined"), str(tmp_path))
    assert found.count(inlined) == 2
    other = SourceLine("code64.c", line_of(SOURCE, "other */"), str(tmp_path))
    assert other in found
    assert other.path == str(tmp_path / "code64.c")
    assert lines.at(0x400000) is None
    assert lines.unit(0x400000) is None


def test_paths_that_the_build_mapped_stay_relative(tmp_path: Path) -> None:
    path = program(tmp_path, "-g", f"-ffile-prefix-map={tmp_path.parent}/=")
    image = load_image(path)
    files = {line.file for address in calls(image, path) if (line := SourceLines(image).at(address))}
    assert files == {f"{tmp_path.name}/code64.c", f"{tmp_path.name}/sub/twice.h"}


def test_an_image_without_debug_information_has_no_lines(tmp_path: Path) -> None:
    path = program(tmp_path)
    assert SourceLines(load_image(path)).at(0x401000) is None


def test_damaged_debug_information_is_an_input_error_or_an_answer(tmp_path: Path) -> None:
    path = program(tmp_path, "-g")
    whole, image = path.read_bytes(), load_image(path)
    addresses = calls(image, path)
    chance = random.Random(0)
    refused = 0
    for name in (".debug_line", ".debug_info", ".debug_aranges", ".debug_abbrev"):
        section = image.section(name)
        assert section is not None
        for _ in range(60):
            data = bytearray(whole)
            for _ in range(3):
                data[section.offset + chance.randrange(section.size)] = chance.choice(
                    (0, 1, 0x7F, 0x80, 0xFF)
                )
            damaged = tmp_path / "damaged"
            damaged.write_bytes(data)
            lines = SourceLines(load_image(damaged))
            try:
                for address in addresses:
                    lines.at(address)
            except InputError as error:
                assert "debug information" in str(error) and str(damaged) in str(error)
                refused += 1
    assert refused


@pytest.mark.kernel
def test_lines_of_a_kernel_are_those_of_addr2line(amd64_recorded_vmlinux: Path) -> None:
    if shutil.which("addr2line") is None:
        pytest.skip("no addr2line here")
    image = load_image(amd64_recorded_vmlinux)
    lines = SourceLines(image)
    text = image.section(".text")
    assert text is not None
    chance = random.Random(1)
    asked = [text.address + chance.randrange(text.size) for _ in range(30)]
    command = ["addr2line", "-e", str(amd64_recorded_vmlinux), *map(hex, asked)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    compared = 0
    for address, answer in zip(asked, told, strict=True):
        line = lines.at(address)
        place, _, number = answer.split(" (discriminator")[0].rpartition(":")
        if line is None:
            assert number in ("?", "0"), (hex(address), answer)
            continue
        assert number == str(line.line), (hex(address), answer, line)
        unit = lines.unit(address)
        assert unit is not None
        # binutils up to 2.40 takes the second file of a unit of GNU as, DWARF 5, for its first.
        main = unit.get_top_DIE().attributes["DW_AT_name"].value.decode()
        assert Path(place).name in (Path(line.file).name, Path(main).name), (hex(address), answer, line)
        compared += Path(place).name == Path(line.file).name
    assert compared > 15

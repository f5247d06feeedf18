"""Flat binaries: the same functions and frames as the ELF file that they are made of."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from stackfit import choices
from stackfit.analysis import analyse
from stackfit.cli.main import main
from stackfit.image import flat
from stackfit.image.flat import Flat, read_flat
from stackfit.image.model import InputError

FIRMWARE = Path(__file__).resolve().parents[2] / "fixtures" / "firmware"


def flattened(directory: Path, name: str, prefix: str, *options: str) -> Path:
    if shutil.which(f"{prefix}-objcopy") is None:
        pytest.skip(f"no {prefix}-objcopy")
    path = directory / f"{name}.bin"
    command = [f"{prefix}-objcopy", "-O", "binary", *options, str(FIRMWARE / f"{name}.elf"), str(path)]
    subprocess.run(command, check=True)
    return path


def test_cortex_m_starts_where_its_vectors_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = flattened(tmp_path, "rtos-cortex-m4f", "arm-none-eabi", "-j", ".vectors", "-j", ".text")
    flat = analyse([path], flat=Flat("thumb", 0))
    whole = analyse([FIRMWARE / "rtos-cortex-m4f.elf"])
    names = ("boot reset", "boot Reset", "isr SysTick", "isr PendSV")
    found = {one.title: one for one in flat.contexts if one.title in names}
    assert {"isr SysTick", "isr PendSV"} <= found.keys()
    for title, context in found.items():
        (other,) = [one for one in whole.contexts if one.title == title]
        frames = [
            [int(one.frames.frame[start.entry]) for start in known.starts[:1]]
            for one, known in ((flat, context), (whole, other))
        ]
        assert frames[0] == frames[1], title
    assert main(["frames", str(path), "--arch", "thumb", "--base", "0x0", "--top", "3"]) == 0
    assert "sub_" in capsys.readouterr().out


def test_what_is_said_of_it_has_to_be_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(64))
    assert main(["frames", str(path)]) == 2
    assert "a flat binary needs --arch and --base" in capsys.readouterr().err
    assert main(["frames", str(path), "--arch", "riscv32"]) == 2
    assert "needs both" in capsys.readouterr().err
    assert main(["frames", str(FIRMWARE / "rtos-riscv32.elf"), "--arch", "riscv32", "--base", "0"]) == 2
    assert "says itself what it is" in capsys.readouterr().err
    with pytest.raises(InputError, match="beyond the address space"):
        read_flat("a.bin", bytes(64), Flat("arm", 0xFFFFFFF0))
    for architecture, base in (("thumb", 0x8000001), ("arm", 2), ("aarch64", 2), ("riscv32", 3)):
        with pytest.raises(InputError, match="instructions are at multiples of"):
            read_flat("a.bin", bytes(64), Flat(architecture, base))
    assert main(["frames", str(path), "--arch", "riscv32", "--base", "0x80000000"]) == 0  # zeros: no code


def test_the_command_line_offers_what_can_be_read() -> None:
    assert tuple(flat.ARCHITECTURES) == choices.ARCHITECTURES

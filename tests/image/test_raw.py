"""Kernel images without an ELF file: headers that lie, and what a shipped arm64 image holds."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import numpy as np
import pytest

from conftest import KernelFiles
from stackfit.image.load import load_image
from stackfit.image.model import Image, ImageKind, InputError, Machine
from stackfit.image.raw import is_raw_kernel


def header(machine: bytes = b"ARM\x64", at: int = 0x38, size: int = 1 << 16) -> bytearray:
    data = bytearray(size)
    data[at : at + len(machine)] = machine
    return data


def refusal(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "Image"
    path.write_bytes(data)
    with pytest.raises(InputError) as raised:
        load_image(path)
    assert str(raised.value).startswith(str(path)) and "\n" not in str(raised.value)
    return raised.value.cause


def test_images_are_told_by_their_headers() -> None:
    assert is_raw_kernel(header())
    riscv = header(b"RISCV\0\0\0", 0x30)
    assert not is_raw_kernel(riscv)
    riscv[0x38:0x3C] = b"RSC\x05"
    assert is_raw_kernel(riscv)
    assert is_raw_kernel(header((0x016F2818).to_bytes(4, "little"), 0x24))
    zboot = header(b"zimg", 4)
    zboot[:2] = b"MZ"
    assert is_raw_kernel(zboot)
    assert not is_raw_kernel(b"MZ" + bytes(100)) and not is_raw_kernel(b"")


def test_an_image_without_names_is_one_clear_line(tmp_path: Path) -> None:
    assert "no kallsyms tables" in refusal(tmp_path, bytes(header()))
    assert "no kallsyms tables" in refusal(tmp_path, gzip.compress(bytes(header())))


def test_a_payload_outside_the_file(tmp_path: Path) -> None:
    zboot = header(b"zimg", 4)
    zboot[:2], zboot[8:16] = b"MZ", (1 << 15).to_bytes(4, "little") + (1 << 20).to_bytes(4, "little")
    assert "does not fit in the file" in refusal(tmp_path, bytes(zboot))
    zboot[12:16] = (64).to_bytes(4, "little")
    assert "no kernel image that is known here" in refusal(tmp_path, bytes(zboot))


def test_a_zimage_without_a_payload(tmp_path: Path) -> None:
    zimage = header((0x016F2818).to_bytes(4, "little"), 0x24)
    assert "without compressed data" in refusal(tmp_path, bytes(zimage))
    zimage[0x1000:0x1006] = b"\xfd7zXZ\0"
    assert refusal(tmp_path, bytes(zimage)).startswith("xz")


def test_damaged_images_are_refused_or_read(tmp_path: Path) -> None:
    rng = random.Random(4)
    for _ in range(20):
        data = header(size=1 << 14)
        data[0x40:] = rng.randbytes(len(data) - 0x40)
        refusal(tmp_path, bytes(data))


@pytest.fixture(scope="module")
def image(arm64_kernel: KernelFiles) -> Image:
    return load_image(arm64_kernel.vmlinuz)


@pytest.mark.kernel
def test_arm64_image_as_it_is_shipped(image: Image, arm64_kernel: KernelFiles) -> None:
    assert (image.machine, image.kind) == (Machine.AARCH64, ImageKind.KERNEL)
    assert image.release == arm64_kernel.release and image.symbol_source == "kallsyms"
    assert image.build_id is not None and len(image.build_id) == 40
    assert len(image.symbols) > 40_000
    names = [section.name for section in image.sections]
    for name in (".text", ".init.text", "__ksymtab", "__ex_table", "__bug_table", ".altinstructions", ".BTF"):
        assert names.count(name) == 1, name
    for before, after in zip(image.sections, image.sections[1:], strict=False):
        assert before.end == after.address
    # Every pointer that the image relocates itself by leads into it.
    low, high = image.sections[0].address, image.sections[-1].end
    assert image.pointers.size > 100_000
    assert low <= int(image.pointers[0]) and int(image.pointers[-1]) < high
    assert (np.diff(image.pointers.astype(np.int64)) > 0).all()


@pytest.mark.kernel
def test_arm64_image_truncated(image: Image, arm64_kernel: KernelFiles, tmp_path: Path) -> None:
    data = arm64_kernel.vmlinuz.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    assert refusal(tmp_path, data[: len(data) // 2])

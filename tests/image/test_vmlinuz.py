"""A bzImage gives ELF file, release and KASLR places whatever its compression; a bad one one clear line."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import sys
import tracemalloc
import types
import zlib
from collections.abc import Callable
from typing import Any

import lz4.block
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stackfit.image.compression import compression_of, decompress
from stackfit.image.elf import read_elf
from stackfit.image.model import Image, InputError
from stackfit.image.vmlinuz import is_bzimage, unpack

RELEASE = "6.1.0-test"
BLOCK = 256 << 10  # what `lzop` and the kernel use


def lz4_legacy(data: bytes) -> bytes:
    out = [b"\x02\x21\x4c\x18"]
    for at in range(0, len(data), 8 << 20):
        block = lz4.block.compress(data[at : at + (8 << 20)], store_size=False)
        out += [struct.pack("<I", len(block)), block]
    return b"".join(out)


def zstd_piped(data: bytes) -> bytes:
    """`zstd` reading a pipe, as the kernel's build does: the frame does not say how big its content is."""
    out = io.BytesIO()
    with zstandard.ZstdCompressor(write_checksum=True).stream_writer(out, closefd=False) as writer:
        writer.write(data)
    return out.getvalue()


def lzop(data: bytes, pack: Callable[[bytes], bytes] = bytes) -> bytes:
    """An lzop file; blocks that `pack` does not make smaller are stored, as lzop does."""
    out = b"\x89LZO\0\r\n\x1a\n" + struct.pack(">HHHBBIIIIB", 0x1030, 0x20A0, 0x0940, 1, 5, 0x3, 0, 0, 0, 0)
    blocks = [out, struct.pack(">I", zlib.adler32(out[9:]))]
    for at in range(0, len(data), BLOCK):
        block = data[at : at + BLOCK]
        packed = pack(block)
        blocks.append(struct.pack(">III", len(block), min(len(packed), len(block)), zlib.adler32(block)))
        blocks.append(struct.pack(">I", zlib.adler32(packed)) + packed if len(packed) < len(block) else block)
    return b"".join([*blocks, bytes(4)])


def xz_with_filter(data: bytes) -> bytes:
    """The kernel's xz: x86 branch filter before LZMA2."""
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 20}]
    return lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)


METHODS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "xz": xz_with_filter,
    "zstd": zstd_piped,
    "lz4": lz4_legacy,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "lzo": lzop,
}


def elf(bits64: bool = True, text: bytes = b"\xc3" * 64) -> bytes:
    """The smallest ELF file with `.text` and section names, section headers last as objcopy leaves them."""
    names = b"\0.text\0.shstrtab\0"
    header = 64 if bits64 else 52
    base = 0xFFFFFFFF81000000 if bits64 else 0xC1000000
    body = text + names
    body += bytes(-(header + len(body)) % 8)
    ident = b"\x7fELF" + bytes([2 if bits64 else 1, 1, 1]) + bytes(9)
    shoff = header + len(body)
    if bits64:
        head = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base, 0, shoff, 0, 64, 0, 0, 64, 3, 2)
        form = "<IIQQQQIIQQ"
    else:
        head = struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, base, 0, shoff, 0, 52, 0, 0, 40, 3, 2)
        form = "<IIIIIIIIII"
    sections = bytes(struct.calcsize(form))
    sections += struct.pack(form, 1, 1, 6, base, header, len(text), 0, 0, 1, 0)
    sections += struct.pack(form, 7, 3, 0, 0, header + len(text), len(names), 0, 0, 1, 0)
    return ident + head + body + sections


def words(*values: int) -> bytes:
    return b"".join(struct.pack("<I", value & 0xFFFFFFFF) for value in values)


def bzimage(
    content: bytes, method: str = "gzip", packed: bytes | None = None, trailer: bytes | None = None
) -> bytes:
    """A bzImage as `arch/x86/boot` lays it out: setup sectors, decompressor stub, payload, more stub."""
    packed = METHODS[method](content) if packed is None else packed
    if trailer is None:
        trailer = b"" if method == "gzip" else struct.pack("<I", len(content))
    setup = bytearray(3 * 512)
    setup[0x1F1] = 2
    setup[0x1FE:0x200] = b"\x55\xaa"
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, 0x20F)
    struct.pack_into("<H", setup, 0x20E, 0x300)
    banner = RELEASE.encode() + b" (someone@somewhere) #1 SMP\0"
    setup[0x500 : 0x500 + len(banner)] = banner
    struct.pack_into("<II", setup, 0x248, 48, len(packed) + len(trailer))
    return bytes(setup) + b"\x90" * 48 + packed + trailer + b"\xf4" * 100


@pytest.mark.parametrize("method", METHODS)
def test_every_compression_gives_the_same_kernel(method: str) -> None:
    kernel = elf(text=bytes(range(256)) * 4000)
    unpacked = unpack("vmlinuz", bzimage(kernel + words(0, 0, 0), method))
    assert unpacked.elf == kernel
    assert unpacked.compression == method
    assert unpacked.release == RELEASE
    assert read_elf("vmlinuz", unpacked.elf).sections[1].name == ".text"


def test_places_of_a_64_bit_kernel_are_sign_extended_and_in_their_groups() -> None:
    table = words(0, 0x81000008, 0x82A00010, 0, 0x81000100, 0, 0x81000020, 0x81000030, 0x83000000)
    unpacked = unpack("vmlinuz", bzimage(elf() + table))
    assert unpacked.relocations_64.tolist() == [0xFFFFFFFF81000008, 0xFFFFFFFF82A00010]
    assert unpacked.inverse_32.tolist() == [0xFFFFFFFF81000100]
    assert unpacked.relocations_32.tolist() == [0xFFFFFFFF81000020, 0xFFFFFFFF81000030, 0xFFFFFFFF83000000]
    assert unpacked.relocations_64.dtype == np.uint64
    assert unpacked.notes == ()


def test_a_kernel_without_inverse_places_has_two_groups() -> None:
    unpacked = unpack("vmlinuz", bzimage(elf() + words(0, 0x81000008, 0, 0x81000020)))
    assert unpacked.relocations_64.tolist() == [0xFFFFFFFF81000008]
    assert unpacked.inverse_32.size == 0
    assert unpacked.relocations_32.tolist() == [0xFFFFFFFF81000020]


def test_places_of_a_32_bit_kernel_are_not_sign_extended() -> None:
    unpacked = unpack("vmlinuz", bzimage(elf(bits64=False) + words(0, 0xC1000004, 0xC1000008)))
    assert unpacked.relocations_32.tolist() == [0xC1000004, 0xC1000008]
    assert unpacked.relocations_64.size == unpacked.inverse_32.size == 0


@pytest.mark.parametrize(
    "tail", [b"", words(0x81000008, 0), words(0, 1, 0, 2, 0, 3, 0, 4), words(0, 0, 0)[:-1]]
)
def test_an_absent_or_unknown_table_is_noted_and_gives_no_places(tail: bytes) -> None:
    unpacked = unpack("vmlinuz", bzimage(elf() + tail))
    assert unpacked.relocations_64.size + unpacked.relocations_32.size + unpacked.inverse_32.size == 0
    assert len(unpacked.notes) == 1 and "not known" in unpacked.notes[0]
    assert unpacked.elf == elf()


def test_setup_sectors_of_zero_mean_four() -> None:
    image = bytearray(bzimage(elf()))
    image[0x1F1] = 0
    assert unpack("vmlinuz", bytes(image[: 3 * 512]) + bytes(2 * 512) + bytes(image[3 * 512 :])).elf == elf()


def test_no_version_string_is_no_release() -> None:
    image = bytearray(bzimage(elf()))
    struct.pack_into("<H", image, 0x20E, 0)
    assert unpack("vmlinuz", bytes(image)).release is None


def test_only_a_setup_header_makes_a_bzimage() -> None:
    assert is_bzimage(bzimage(elf()))
    assert not is_bzimage(elf())
    assert not is_bzimage(b"")
    assert not is_bzimage(bzimage(elf())[:0x204])


def patched(offset: int, data: bytes) -> bytes:
    image = bytearray(bzimage(elf()))
    image[offset : offset + len(data)] = data
    return bytes(image)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "not an x86 bzImage"),
        (elf(), "not an x86 bzImage"),
        (bzimage(elf())[:0x210], "setup header is truncated"),
        (patched(0x206, b"\x07\x02"), "boot protocol 2.07"),
        (patched(0x248, b"\xff\xff\xff\xff"), "does not fit in the file"),
        (patched(0x24C, bytes(4)), "payload of 0 bytes"),
        (bzimage(elf())[:-120], "does not fit in the file"),
        (bzimage(b"", packed=b"plain data"), "no known compression"),
        (bzimage(b"no ELF file, though long enough to hold the header of one: 64 bytes"), "not an ELF file"),
        (bzimage(elf()[:-1]), "section headers, or they lie beyond its end"),
        (bzimage(elf(), trailer=b"\1\2\3\4"), "followed by 01 02 03 04"),
        (bzimage(elf(), "xz", trailer=b""), "not followed by its decompressed size"),
        (bzimage(elf(), "lz4", trailer=b"\1\2\3\4"), "not by its size"),
        (bzimage(elf(), "zstd", trailer=struct.pack("<I", len(elf())) + b"more"), "not by its size"),
    ],
)
def test_a_bad_image_is_one_line_that_names_file_and_cause(data: bytes, cause: str) -> None:
    with pytest.raises(InputError) as caught:
        unpack("boot/vmlinuz", data)
    assert cause in str(caught.value)
    assert str(caught.value).startswith("boot/vmlinuz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_a_truncated_payload_is_an_error(method: str) -> None:
    content = elf(text=np.random.default_rng(1).bytes(100_000))
    packed = METHODS[method](content)
    for cut in (len(packed) // 2, len(packed) - 5):
        with pytest.raises(InputError):
            unpack("vmlinuz", bzimage(content, method, packed=packed[:cut]))


@pytest.mark.parametrize("method", METHODS)
def test_a_bomb_stops_at_the_cap(method: str) -> None:
    size, cap = 32 << 20, 1 << 20
    bomb = METHODS[method](bytes(size))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=f"more than the {cap} bytes accepted"):
            decompress("x.ko", bomb, cap)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 << 20  # an lz4 block of 8 MiB, twice


@pytest.mark.parametrize("method", METHODS)
def test_content_of_exactly_the_cap_is_accepted(method: str) -> None:
    data = b"stack" * 1000
    assert decompress("x.ko", METHODS[method](data), len(data)) == data
    with pytest.raises(InputError, match="more than"):
        decompress("x.ko", METHODS[method](data), len(data) - 1)


@pytest.mark.parametrize("method", METHODS)
def test_data_behind_a_compressed_module_is_an_error_and_padding_is_not(method: str) -> None:
    data = b"stack" * 1000
    packed = METHODS[method](data)
    assert compression_of(packed) == method
    assert decompress("x.ko", packed + bytes(8)) == data
    with pytest.raises(InputError):
        decompress("x.ko", packed + b"\xff\xff\xff\xff garbage")


def test_zstd_with_a_stated_size_and_without_agree() -> None:
    data = b"stack" * 100_000
    assert decompress("x.ko", zstandard.compress(data)) == decompress("x.ko", zstd_piped(data)) == data


def test_lz4_of_several_blocks() -> None:
    data = bytes(range(256)) * 80_000  # 20 MB: three blocks of at most 8 MiB
    assert decompress("x", lz4_legacy(data)) == data


def test_lzo_goes_through_the_lzo_module(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("lzo")
    calls: list[int] = []

    def unpack_block(block: bytes, header: bool, size: int) -> bytes:
        assert not header
        calls.append(size)
        return zlib.decompress(block)

    module.decompress = unpack_block  # type: ignore[attr-defined]
    module.error = zlib.error  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lzo", module)
    data = b"stack" * 100_000
    packed = lzop(data, zlib.compress)
    assert decompress("x", packed) == data
    assert calls == [BLOCK, len(data) - BLOCK]
    damaged = bytearray(packed)
    damaged[60] ^= 0xFF
    with pytest.raises(InputError, match="corrupt"):
        decompress("x", bytes(damaged))


def test_lzo_without_the_module_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lzo", None)
    with pytest.raises(InputError, match="python-lzo"):
        unpack("vmlinuz", bzimage(elf(), packed=lzop(elf() * 10, zlib.compress)))


@settings(max_examples=150, deadline=None)
@given(
    method=st.sampled_from(sorted(METHODS)),
    flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=6),
    cut=st.none() | st.integers(0, 1 << 20),
)
def test_any_damage_gives_an_error_or_a_result(
    method: str, flips: list[tuple[int, int]], cut: int | None
) -> None:
    image = bytearray(bzimage(elf(text=bytes(range(256))) + words(0, 0x81000008, 0, 0), method))
    for place, mask in flips:
        image[place % len(image)] ^= mask
    data = bytes(image if cut is None else image[: cut % len(image)])
    try:
        unpacked = unpack("vmlinuz", data, cap=1 << 20)
    except InputError:
        return
    assert unpacked.elf[:4] == b"\x7fELF"
    assert unpacked.relocations_64.dtype == unpacked.relocations_32.dtype == np.uint64


def values_at(
    image: Image, places: NDArray[np.uint64], size: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """(which places lie in a section with data, the signed number of `size` bytes at each)."""
    found = np.zeros(places.size, bool)
    values = np.zeros(places.size, np.int64)
    for section in image.sections:
        if not section.allocated or not section.data.size:
            continue
        inside = (places >= section.address) & (places + np.uint64(size) <= section.end)
        at = (places[inside] - np.uint64(section.address)).astype(np.int64)
        raw = section.data[at[:, None] + np.arange(size)]
        values[inside] = raw.copy().view(f"<i{size}").reshape(-1)
        found |= inside
    return found, values


def link_range(image: Image) -> tuple[int, int]:
    used = [section for section in image.sections if section.allocated and section.address]
    return min(section.address for section in used), max(section.end for section in used)


def odd(values: NDArray[np.int64], low: int, high: int, physical: int) -> NDArray[np.int64]:
    """The values that are no address in [low, high], neither as such nor as physical address.

    Early boot code holds physical addresses (link address − `physical`): KASLR moves them as well.
    """
    virtual = (values >= low) & (values <= high)
    return values[~virtual & ((values < low - physical) | (values > high - physical))]


@pytest.mark.kernel
def test_places_of_the_amd64_kernel_hold_kernel_addresses(amd64_kernel: Any) -> None:
    unpacked = unpack("vmlinuz", amd64_kernel.vmlinuz.read_bytes())
    assert unpacked.release == amd64_kernel.release
    image = read_elf("vmlinuz", unpacked.elf)
    low, high = link_range(image)
    for places, size in ((unpacked.relocations_64, 8), (unpacked.relocations_32, 4)):
        assert places.size > 50_000
        assert np.unique(places).size == places.size
        found, values = values_at(image, places, size)
        # As signed numbers; __START_KERNEL_map is −2 GiB.
        others = odd(values[found], low - (1 << 64), high - (1 << 64), -(1 << 31))
        assert not others.any()  # 0: an undefined weak symbol
        assert others.size < 20
        # Places of the per-CPU template are given where it is loaded, between sections.
        missing = places[~found]
        assert missing.size < 100
        assert bool(((missing > low) & (missing < high)).all())


@pytest.mark.kernel
def test_inverse_places_of_the_amd64_kernel_refer_to_per_cpu_offsets(amd64_kernel: Any) -> None:
    unpacked = unpack("vmlinuz", amd64_kernel.vmlinuz.read_bytes())
    image = read_elf("vmlinuz", unpacked.elf)
    percpu = image.section(".data..percpu")
    assert percpu is not None and percpu.address == 0
    found, values = values_at(image, unpacked.inverse_32, 4)
    assert found.all() and found.size > 5000
    # The place holds (per-CPU offset − its own address), the addend of a %rip operand included.
    targets = (values + unpacked.inverse_32.astype(np.int64)) & 0xFFFFFFFF
    assert int(((targets + 16) & 0xFFFFFFFF).max()) < percpu.size + 32


@pytest.mark.kernel
def test_places_of_the_i386_kernel_hold_kernel_addresses(i386_kernel: Any) -> None:
    unpacked = unpack("vmlinuz", i386_kernel.vmlinuz.read_bytes())
    assert unpacked.release == i386_kernel.release
    assert unpacked.relocations_64.size == unpacked.inverse_32.size == 0
    image = read_elf("vmlinuz", unpacked.elf)
    low, high = link_range(image)
    found, values = values_at(image, unpacked.relocations_32, 4)
    assert found.all() and found.size > 200_000
    others = odd(values & 0xFFFFFFFF, low, high, 0xC0000000)
    # 0: an undefined weak symbol; a few lie an addend's width behind the kernel.
    assert others.size < 20
    assert np.count_nonzero(others) < 5

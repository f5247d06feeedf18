"""ELF files: what is read from sound ones, and that any other ends in one InputError."""

from __future__ import annotations

import contextlib
import functools
import struct
import tempfile
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import elves
import toolchain
from elves import ALLOC, COMPRESSED, EXECUTE, NOBITS, NOTE, RELA, STRTAB, SYMTAB, WRITE, Elf, Part
from stackfit.frames.analyse import analyse_frames
from stackfit.image import elf
from stackfit.image.attributes import read_arm_attributes
from stackfit.image.elf import is_elf, read_elf
from stackfit.image.link import link
from stackfit.image.load import load_image
from stackfit.image.model import Image, ImageKind, InputError, Machine
from stackfit.image.pointers import code_pointers
from stackfit.image.tables import read_tables
from stackfit.isa.code import decode_program

TEXT = Part(".text", b"\x90\x90\xc3\xcc", flags=ALLOC | EXECUTE)
MODES = pytest.mark.parametrize("bits", [64, 32])


def machine(bits: int) -> int:
    return elves.X86_64 if bits == 64 else elves.I386


def refused(data: bytes, cause: str) -> InputError:
    with pytest.raises(InputError, match=cause) as caught:
        read_elf("file.ko", data)
    assert str(caught.value).startswith("file.ko") and "\n" not in str(caught.value)
    return caught.value


def analysed(data: bytes) -> None:
    """The whole way that any file goes."""
    program = link([read_elf("file.ko", data)])
    code = decode_program(program)
    analyse_frames(code, read_tables(program), code_pointers(program))


# ---------------------------------------------------------------- sound files


@MODES
def test_sections_symbols_and_relocations_of_an_object(bits: int, tmp_path: Path) -> None:
    source = "extern int g(int); int table[3] = {1}; static int h(void) { return 2; }\n"
    source += "int (*pointer)(int) = g; int f(int x) { return g(x) + table[x] + h(); }"
    image = toolchain.compiled(tmp_path, source, bits, "-O0")
    assert image.kind is ImageKind.MODULE and image.module == f"code{bits}"
    assert image.machine is (Machine.X86_64 if bits == 64 else Machine.I386)
    text = image.section(".text")
    assert (
        text is not None
        and text.executable
        and text.allocated
        and not text.writable
        and text.data.size == text.size
    )
    records = dict(zip(image.symbols.names, image.symbols.records, strict=True))
    assert records["g"]["section"] == -2  # undefined
    assert image.sections[int(records["f"]["section"])] is text
    assert (records["f"]["type"], records["f"]["binding"]) == (2, 1)
    assert (records["h"]["type"], records["h"]["binding"]) == (2, 0)
    assert int(records["table"]["size"]) == 12
    calls = image.relocations[image.sections.index(text)]
    assert {image.symbols.names[index] for index in calls["symbol"].tolist()} >= {"g", "table"}
    assert bool((calls["offset"] < text.size).all())


@MODES
def test_an_executable_has_addresses_and_a_build_id(bits: int) -> None:
    note = struct.pack("<III", 4, 20, 3) + b"GNU\0" + bytes(range(20))
    other = struct.pack("<III", 4, 4, 1) + b"GNU\0" + bytes(4)
    data = Elf(bits, machine(bits), elves.EXEC, [
        Part(".text", b"\xc3" * 8, flags=ALLOC | EXECUTE, address=0x8000), Part(".notes", other + note, NOTE),
        *elves.symbols(bits, [("main", 0x8004, 1), ("absolute", 7, elves.ABS)], first=3),
    ]).build()  # fmt: skip
    image = read_elf("a.out", data)
    assert image.kind is ImageKind.EXECUTABLE and image.module is None
    assert image.build_id == bytes(range(20)).hex()
    assert image.symbols.records["section"].tolist() == [-2, 1, -1]
    assert image.symbols.records["address"].tolist() == [0, 0x8004, 7]


def test_a_kernel_tells_its_release_and_a_module_its_name() -> None:
    banner = b"\0xLinux version 6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-12) #1\0"
    kernel = read_elf(
        "vmlinux", Elf(type=elves.EXEC, parts=[TEXT, Part("__ksymtab", b""), Part(".rodata", banner)]).build()
    )
    assert (kernel.kind, kernel.release) == (ImageKind.KERNEL, "6.1.0-56-cloud-amd64")
    info = b"license=GPL\0name=snd_hda\0vermagic=6.1.0-56-cloud-amd64 SMP preempt\0broken\0=\0"
    module = read_elf("x/snd-hda.ko", Elf(parts=[TEXT, Part(".modinfo", info)]).build())
    assert (module.module, module.release) == ("snd_hda", "6.1.0-56-cloud-amd64")
    for path in ("dir/snd-hda.ko.xz", "snd-hda.ko", "snd-hda"):
        assert read_elf(path, Elf(parts=[TEXT]).build()).module == "snd_hda"


@pytest.mark.parametrize("method", [1, 2])
@MODES
def test_compressed_sections_are_read(bits: int, method: int) -> None:
    content = b"\xc3\x90" * 500
    body = zlib.compress(content) if method == 1 else zstandard.compress(content)
    image = read_elf(
        "a.o", Elf(bits, machine(bits), parts=[compressed(bits, method, len(content), body)]).build()
    )
    assert image.sections[1].data.tobytes() == content
    assert image.sections[1].size == len(content) and not image.sections[1].flags & COMPRESSED


def compressed(bits: int, method: int, size: int, body: bytes) -> Part:
    header = struct.pack("<IIQQ", method, 0, size, 1) if bits == 64 else struct.pack("<III", method, size, 1)
    return Part(".text", header + body, flags=ALLOC | EXECUTE | COMPRESSED)


def test_more_sections_than_the_header_can_count() -> None:
    # gABI: e_shnum 0 and e_shstrndx 0xffff stand for sh_size and sh_link of entry 0.
    parts = [
        TEXT,
        *elves.symbols(64, [("f", 0, 0xFFFF)], first=2),
        Part(".x", struct.pack("<2I", 0, 1), 18, 0, link=2),
    ]
    whole = Elf(parts=parts, section_count=0, names_index=0xFFFF)
    data = bytearray(whole.build())
    start = struct.unpack_from("<Q", data, 40)[0]
    struct.pack_into("<Q", data, start + 32, len(parts) + 2)
    struct.pack_into("<I", data, start + 40, len(parts) + 1)
    image = read_elf("a.o", bytes(data))
    assert [section.name for section in image.sections][1] == ".text"
    assert image.symbols.records["section"].tolist() == [-2, 1]


def test_relocations_of_one_section_may_come_in_several_tables() -> None:
    table = Part(".rela.text", elves.rela(0, 1, 1), RELA, 0, link=2, info=1, entry_size=24)
    text = Part(".text", bytes(16), flags=ALLOC | EXECUTE)
    again = Part(".rela.more", elves.rela(8, 1, 1, -5), RELA, 0, link=2, info=1, entry_size=24)
    debug = Part(".rela.debug", elves.rela(999, 1, 1), RELA, 0, link=2, info=6, entry_size=24)
    parts = [
        text,
        *elves.symbols(64, [("f", 0, 1)], first=2),
        table,
        again,
        Part(".debug", b"x", flags=0),
        debug,
    ]
    image = read_elf("a.o", Elf(parts=parts).build())
    assert image.relocations[1]["offset"].tolist() == [0, 8]
    assert image.relocations[1]["addend"].tolist() == [0, -5]
    assert set(image.relocations) == {1}  # those of debug information are left to its readers


# ---------------------------------------------------------------- files that are something else


@pytest.mark.parametrize("data", [b"", b"\x7f", b"\x7fELF", b"MZ" + bytes(100), bytes(64)])
def test_other_files_are_refused(data: bytes) -> None:
    assert not is_elf(data) or len(data) < 52
    refused(data, "not an ELF file")


@pytest.mark.parametrize(
    ("number", "bits", "name"),
    [(elves.MIPS, 32, "MIPS"), (83, 32, "AVR"), (94, 32, "Xtensa"), (999, 64, "number 999")],
)
def test_other_machines_are_named(number: int, bits: int, name: str) -> None:
    assert (
        refused(Elf(bits, number, elves.EXEC, [TEXT]).build(), f"machine {name} is not supported").offset
        == 18
    )


def test_big_endian_other_classes_and_other_types_are_refused() -> None:
    refused(Elf(64, elves.X86_64, parts=[TEXT], big_endian=True).build(), "big-endian")
    refused(Elf(32, elves.X86_64, parts=[TEXT]).build(), "class does not fit")
    refused(Elf(64, elves.I386, parts=[TEXT]).build(), "class does not fit")
    refused(Elf(type=4, parts=[TEXT]).build(), "ELF type 4")
    data = bytearray(Elf(parts=[TEXT]).build())
    data[4] = 7
    refused(bytes(data), "unknown ELF class 7")


# ---------------------------------------------------------------- headers that lie


@MODES
def test_section_headers_that_cannot_be(bits: int) -> None:
    def build(**more: int) -> bytes:
        return Elf(bits, machine(bits), parts=[TEXT], **more).build()  # type: ignore[arg-type]

    refused(build(section_offset=0), "no section headers")
    refused(build(section_offset=1 << 31), "beyond the end")
    refused(build(section_offset=len(build()) - 8), "beyond the end")
    refused(build(section_entry_size=0), "entries of 0 bytes")
    refused(build(section_entry_size=13), "entries of 13 bytes")
    refused(build(section_count=0), "0 sections")
    refused(build(section_count=60000), "beyond the end")
    refused(build(names_index=77), "section name table 77")


@MODES
@pytest.mark.parametrize(
    ("part", "cause"),
    [
        (Part(".text", b"\xc3", size=1 << 20), "ends beyond the end of the file"),
        (Part(".text", b"\xc3", offset=(1 << 32) - 1), "ends beyond the end of the file"),
        (Part(".bss", b"", NOBITS, size=(1 << 32) - 1, address=(1 << 32) - 1), None),
        (Part(".text", b"\xc3", name_offset=1 << 20), "name lies outside"),
        (Part(".symtab", bytes(24), SYMTAB, 0, link=99, entry_size=24), "string table"),
        (Part(".symtab", bytes(24), SYMTAB, 0, link=1, entry_size=24), "string table"),  # itself
        (Part(".symtab", bytes(24), SYMTAB, 0, link=2, entry_size=0), "symbols of 0 bytes"),
        (Part(".symtab", bytes(24), SYMTAB, 0, link=2, entry_size=7), "symbols of 7 bytes"),
    ],
)
def test_sections_that_cannot_be(bits: int, part: Part, cause: str | None) -> None:
    if part.entry_size == 24 and bits == 32:
        part = Part(part.name, part.data, part.type, part.flags, link=part.link, entry_size=16)
    data = Elf(bits, machine(bits), parts=[part]).build()
    if cause is None and bits == 64:
        assert read_elf("a.o", data).sections[1].size == (1 << 32) - 1
    else:
        refused(data, cause or "beyond the address space")


def test_a_section_that_wraps_around_the_address_space() -> None:
    part = Part(".text", b"\xc3" * 16, flags=ALLOC | EXECUTE, address=2**64 - 8)
    refused(Elf(type=elves.EXEC, parts=[part]).build(), "beyond the address space")
    part.address = 2**64 - 17  # to its end but for one byte
    analysed(Elf(type=elves.EXEC, parts=[part]).build())


def test_symbols_and_relocations_that_cannot_be() -> None:
    def build(value: bytes, **more: int) -> bytes:
        table = Part(".rela.text", value, RELA, 0, **{"link": 2, "info": 1, "entry_size": 24, **more})
        return Elf(parts=[TEXT, *elves.symbols(64, [("f", 0, 1)], first=2), table]).build()

    refused(build(elves.rela(0, 9, 1)), "names no symbol")
    refused(build(elves.rela(4, 1, 1)), "lies outside .text")
    refused(build(elves.rela(2**64 - 1, 1, 1)), "lies outside .text")
    refused(build(elves.rela(0, 1, 1), entry_size=0), "relocations of 0 bytes")
    refused(build(elves.rela(0, 1, 1), info=0), "apply to no section")
    refused(build(elves.rela(0, 1, 1), info=1000), "apply to no section")
    assert read_elf("a.o", build(elves.rela(0, 1, 1), link=0)).relocations == {}
    strings = Part(".strtab", b"\0", STRTAB, 0)
    far = Part(".symtab", bytes(24) + elves.symbol(64, 0, 0, 55), SYMTAB, 0, link=2, entry_size=24)
    refused(Elf(parts=[far, strings]).build(), "section 55, which does not exist")
    unnamed = Part(".symtab", bytes(24) + elves.symbol(64, 70, 0, 1), SYMTAB, 0, link=2, entry_size=24)
    refused(Elf(parts=[unnamed, strings]).build(), "name lies outside")


def test_the_other_machines_form_of_relocations_is_refused() -> None:
    # The kernel's module loader knows only Elf64_Rela and Elf32_Rel.
    parts = [TEXT, *elves.symbols(64, [("f", 0, 1)], first=2)]
    wrong = Part(
        ".rel.text", struct.pack("<QQ", 0, 1 << 32 | 1), elves.SHT_REL, 0, link=2, info=1, entry_size=16
    )
    refused(Elf(parts=[*parts, wrong]).build(), "other machine's form")
    parts = [TEXT, *elves.symbols(32, [("f", 0, 1)], first=2)]
    wrong = Part(".rela.text", struct.pack("<III", 0, 1 << 8 | 1, 0), RELA, 0, link=2, info=1, entry_size=12)
    refused(Elf(32, elves.I386, parts=[*parts, wrong]).build(), "other machine's form")


# ---------------------------------------------------------------- small files that describe huge things


@MODES
@pytest.mark.parametrize("method", [1, 2])
@pytest.mark.parametrize("promised", [0, 1, 100])
def test_a_compressed_section_cannot_be_larger_than_it_says(bits: int, method: int, promised: int) -> None:
    bomb = bytes(64 << 20)
    body = zlib.compress(bomb, 9) if method == 1 else zstandard.ZstdCompressor(9).compress(bomb)
    data = Elf(bits, machine(bits), parts=[compressed(bits, method, promised, body)]).build()
    del bomb
    assert len(data) < 1 << 20
    tracemalloc.start()
    with pytest.raises(InputError):
        read_elf("bomb.ko", data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_compressed_sections_that_cannot_be() -> None:
    refused(Elf(parts=[Part(".x", b"\x01\0\0\0", flags=COMPRESSED)]).build(), "shorter than its header")
    refused(Elf(parts=[compressed(64, 3, 10, b"abc")]).build(), "unknown method 3")
    refused(Elf(parts=[compressed(64, 1, 10, b"abc")]).build(), "compressed section")
    refused(Elf(parts=[compressed(64, 1, 1 << 40, b"abc")]).build(), "more than a file of this size may hold")
    refused(
        Elf(parts=[compressed(64, 1, 50, zlib.compress(bytes(40)))]).build(), "holds 40 bytes, 50 promised"
    )


def test_all_compressed_sections_share_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elf, "MAXIMUM_DECOMPRESSED", 1000)
    one = compressed(64, 1, 600, zlib.compress(bytes(600)))
    assert read_elf("a.o", Elf(parts=[one]).build()).sections[1].size == 600
    refused(Elf(parts=[one, one]).build(), "more than a file of this size may hold")


def test_names_that_overlap_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    long = b"\0" + b"n" * 5000 + b"\0"
    entries = bytes(24) + b"".join(elves.symbol(64, 1 + at, 0, elves.ABS) for at in range(1000))
    parts = [Part(".symtab", entries, SYMTAB, 0, link=2, entry_size=24), Part(".strtab", long, STRTAB, 0)]
    data = Elf(parts=parts).build()
    assert len(read_elf("a.o", data).symbols.names[1]) == 5000
    monkeypatch.setattr(elf, "MAXIMUM_NAMES", 100_000)
    refused(data, "symbol names of more than")


def test_relocation_tables_that_overlap_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elf, "MAXIMUM_RELOCATIONS", 100)
    table = Part(".rela.text", elves.rela(0, 1, 1) * 60, RELA, 0, link=2, info=1, entry_size=24)
    parts = [TEXT, *elves.symbols(64, [("f", 0, 1)], first=2), table]
    assert len(read_elf("a.o", Elf(parts=parts).build()).relocations[1]) == 60
    refused(Elf(parts=[*parts, table]).build(), "120 relocations")


def test_many_notes_and_strings_without_end_take_no_time() -> None:
    note = struct.pack("<III", 0, 0, 9) * 2000
    parts = [Part(f".note{i}", note, NOTE) for i in range(100)]
    assert read_elf("a.o", Elf(parts=[TEXT, *parts]).build()).build_id is None
    endless = Part(".strtab", b"\0" + b"x" * 100, STRTAB, 0)
    table = Part(".symtab", bytes(24) + elves.symbol(64, 1, 0, 3), SYMTAB, 0, link=2, entry_size=24)
    assert read_elf("a.o", Elf(parts=[table, endless, TEXT]).build()).symbols.names[1] == "x" * 100


# ---------------------------------------------------------------- corrupted files


@functools.cache
def sound(bits: int) -> bytes:
    """A small object with code, data, relocations and the kernel's tables."""
    source = (
        "extern int g(int); static int k(int x) { return x + 1; } int (*table[2])(int) = { k, g };\n"
        "int f(int n) { char a[n]; if (__builtin_expect(n > 3, 0)) __builtin_trap();"
        " switch (n) { case 1: return g(2); case 2: return k(n); case 3: return g(3); case 4: return g(n);"
        " case 5: return 9; } return table[n & 1](a[0]); }\n"
        'asm(".pushsection __ex_table,\\"a\\"; .long f - ., f - ., 1; .popsection;"'
        '".pushsection __bug_table,\\"a\\"; .long f - ., 0; .word 1, 1; .popsection;"'
        '".pushsection __jump_table,\\"a\\"; .long f - ., f - .; .long 0, 0; .popsection;"'
        '".pushsection .altinstructions,\\"a\\"; .long f - ., f - .; .word 1, 0; .byte 3, 2; .popsection;"'
        '".pushsection __ksymtab_strings,\\"a\\"; .asciz \\"f\\"; .popsection;"'
        '".pushsection __ksymtab,\\"a\\"; .long f - ., 0, 0; .popsection;"'
        '".pushsection .modinfo,\\"a\\"; .asciz \\"name=x\\", \\"vermagic=6.1.0 SMP\\"; .popsection;");'
    )
    with tempfile.TemporaryDirectory() as directory:
        return toolchain.compile_object(Path(directory), source, bits, "-O2").read_bytes()


EDGES = st.sampled_from([0, 1, 2, 3, 7, 0x7F, 0x80, 0xFF])


@MODES
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_a_corrupted_object_is_read_or_refused(bits: int, data: st.DataObject) -> None:
    raw = bytearray(sound(bits))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(EDGES)
    cut = data.draw(st.sampled_from([None, None, None, 1])) and data.draw(st.integers(0, len(raw)))
    with contextlib.suppress(InputError):
        analysed(bytes(raw[:cut]))


@MODES
@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_corrupted_headers_are_read_or_refused(bits: int, data: st.DataObject) -> None:
    """Whole fields of the file header and of section headers, where one byte decides most."""
    raw = bytearray(sound(bits))
    entry, form = (64, "<IIQQQQIIQQ") if bits == 64 else (40, "<10I")
    start = struct.unpack_from("<Q" if bits == 64 else "<I", raw, 40 if bits == 64 else 32)[0]
    count = (len(raw) - start) // entry
    top = 2 ** (bits if bits == 64 else 32) - 1
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, count - 1))
        fields = list(struct.unpack_from(form, raw, start + index * entry))
        which = data.draw(st.integers(0, 9))
        limit = 2**32 - 1 if which in (0, 1, 6, 7) else top
        value = data.draw(
            st.one_of(
                st.integers(0, 40),
                st.integers(0, len(raw)),
                st.sampled_from([limit, limit // 2, limit // 2 + 1]),
            )
        )
        fields[which] = min(value, limit)
        struct.pack_into(form, raw, start + index * entry, *fields)
    with contextlib.suppress(InputError):
        analysed(bytes(raw))


@MODES
def test_the_sound_object_is_read(bits: int) -> None:
    image = read_elf("x.ko", sound(bits))
    assert (image.module, image.release) == ("x", "6.1.0")
    tables = read_tables(link([image]))
    assert [len(tables.exceptions.place), len(tables.bugs.place), len(tables.alternatives.place)] == [1, 1, 1]
    analysed(sound(bits))


@pytest.mark.kernel
@pytest.mark.parametrize("arch", ["amd64", "i386"])
def test_every_module_of_a_kernel_is_read(arch: str, request: pytest.FixtureRequest) -> None:
    kernel = request.getfixturevalue(f"{arch}_kernel")
    paths = sorted(kernel.modules.rglob("*.ko"))[::10]
    images: list[Image] = [read_elf(str(path), path.read_bytes()) for path in paths]
    assert len(images) > 100
    for image, path in zip(images, paths, strict=True):
        assert image.kind is ImageKind.MODULE and image.release == kernel.release
        assert image.module == path.name.removesuffix(".ko").replace("-", "_")
        assert image.build_id is not None and len(image.symbols) > 0
        assert all(
            len(table) == 0 or int(np.max(table["symbol"])) < len(image.symbols)
            for table in image.relocations.values()
        )
        assert not any(section.flags & WRITE and section.executable for section in image.sections)


def test_attributes_of_an_arm_object_that_make_no_sense(tmp_path: Path) -> None:
    """A profile that is no character, as damage makes it."""
    firmware = Path(__file__).resolve().parents[2] / "fixtures" / "firmware" / "nested-cortex-m4f.elf"
    data = bytearray(firmware.read_bytes())
    at = data.index(b"aeabi\0")
    profile = data.index(b"\x07\x4d", at)  # Tag_CPU_arch_profile, M; the tag behind it goes into the number
    data[profile + 1] |= 0x80
    path = tmp_path / "odd.elf"
    path.write_bytes(data)
    attributes = read_arm_attributes(load_image(path))
    assert attributes is not None and attributes.profile == ""

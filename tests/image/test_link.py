"""Linking modules: addresses, relocations, exports, what stays undefined, and modules that do not fit."""

from __future__ import annotations

import itertools
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import elves
import toolchain
from elves import ALLOC, EXECUTE, NOBITS, RELA, SHT_REL, Elf, Part
from stackfit.image.elf import read_elf
from stackfit.image.link import link
from stackfit.image.load import load_image
from stackfit.image.model import Image, ImageKind, InputError, Machine, Program

MODES = pytest.mark.parametrize("bits", [64, 32])
UNDEFINED = {64: 0xFFFF_FFFF_F000_0000, 32: 0xFE00_0000}


def machine(bits: int) -> int:
    return elves.X86_64 if bits == 64 else elves.I386


def kernel(
    bits: int, exports: dict[str, int], release: str = "6.1.0", relative: bool = True, fields: int = 3
) -> Image:
    """A kernel that exports these addresses."""
    strings, table, base = b"", b"", 0x1000
    offsets = {}
    for name in exports:
        offsets[name] = len(strings)
        strings += name.encode() + b"\0"
    strings_at = 0x9000
    for index, (name, address) in enumerate(exports.items()):
        place = base + index * 4 * fields
        values = [address, strings_at + offsets[name], 0][:fields]
        if relative:
            table += b"".join(
                struct.pack("<i", v - (place + 4 * i) if v else 0) for i, v in enumerate(values)
            )
        else:
            table += struct.pack(f"<{fields}{'Q' if bits == 64 else 'I'}", *values)
    banner = f"Linux version {release} (x)".encode()
    parts = [
        Part("__ksymtab", table, address=base),
        Part("__ksymtab_strings", strings, address=strings_at),
        Part(".text", b"\xc3" * 64, flags=ALLOC | EXECUTE, address=0x4000),
        Part(".rodata", banner, address=0x5000),
    ]
    return read_elf("vmlinux", Elf(bits, machine(bits), elves.EXEC, parts).build())


def module(
    bits: int,
    name: str,
    text: bytes,
    symbols: list[tuple[str, int, int]],
    *relocations: bytes,
    **more: object,
) -> Image:
    kind = ("rela", RELA, 24) if bits == 64 else ("rel", SHT_REL, 8)
    parts = [
        Part(".text", text, flags=ALLOC | EXECUTE),
        *elves.symbols(bits, symbols, first=2),
        Part(f".{kind[0]}.text", b"".join(relocations), kind[1], 0, link=2, info=1, entry_size=kind[2]),
        Part(".modinfo", f"name={name}\0vermagic={more.get('release', '6.1.0')} SMP\0".encode()),
    ]
    return read_elf(f"{name}.ko", Elf(bits, machine(bits), parts=parts).build())


def calling(bits: int, name: str, callee: str) -> Image:
    """A module whose five bytes are a call of `callee`."""
    if bits == 64:
        return module(64, name, b"\xe8\0\0\0\0", [("f", 0, 1), (callee, 0, 0)], elves.rela(1, 2, 4, -4))
    return module(32, name, b"\xe8\xfc\xff\xff\xff", [("f", 0, 1), (callee, 0, 0)], elves.rel(1, 2, 2))


def call_target(program: Program, image: int) -> int:
    text = program.images[image].section(".text")
    assert text is not None
    displacement = int.from_bytes(text.data[1:5].tobytes(), "little", signed=True)
    return (text.address + 5 + displacement) & (2**64 - 1 if program.machine is Machine.X86_64 else 2**32 - 1)


# ---------------------------------------------------------------- relocations and exports


@MODES
@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("fields", [2, 3])
def test_a_call_reaches_what_the_kernel_exports(bits: int, relative: bool, fields: int) -> None:
    base = kernel(bits, {"other": 0x4010, "printk": 0x4020}, relative=relative, fields=fields)
    program = link([base, calling(bits, "a", "printk")])
    assert call_target(program, 1) == 0x4020
    assert program.undefined == {} and program.warnings == ()


@MODES
def test_what_nobody_exports_gets_an_address_of_its_own(bits: int) -> None:
    program = link(
        [
            kernel(bits, {}),
            calling(bits, "a", "missing"),
            calling(bits, "b", "missing"),
            calling(bits, "c", "x"),
        ]
    )
    assert sorted(program.undefined.values()) == ["missing", "x"]
    assert call_target(program, 1) == call_target(program, 2) != call_target(program, 3)
    assert {call_target(program, 1): "missing", call_target(program, 3): "x"} == program.undefined
    assert all(address >= UNDEFINED[bits] for address in program.undefined)


@MODES
def test_modules_use_each_others_exports_but_the_kernels_first(bits: int, tmp_path: Path) -> None:
    source = """
    int helper(void) { return 1; } int both(void) { return 2; }
    asm(".pushsection __ksymtab_strings,\\"a\\"; 1: .asciz \\"helper\\"; 2: .asciz \\"both\\"; .popsection;"
        ".pushsection __ksymtab,\\"a\\"; .long helper - ., 1b - ., 0, both - ., 2b - ., 0; .popsection");
    """
    exporter = toolchain.compiled(tmp_path, source, bits)
    program = link(
        [kernel(bits, {"both": 0x4008}), exporter, calling(bits, "a", "helper"), calling(bits, "b", "both")]
    )
    names = dict(
        zip(
            program.images[1].symbols.names,
            program.images[1].symbols.records["address"].tolist(),
            strict=True,
        )
    )
    assert call_target(program, 2) == names["helper"]
    assert call_target(program, 3) == 0x4008
    assert program.undefined == {}


def test_every_relocation_type_writes_what_the_supplement_says() -> None:
    kinds = {
        1: (8, False),
        2: (4, True),
        4: (4, True),
        10: (4, False),
        11: (4, False),
        24: (8, True),
        0: (0, False),
    }
    for kind, (width, relative) in kinds.items():
        one = module(64, "a", bytes(16), [("f", 3, 1)], elves.rela(4, 1, kind, 5))
        text = link([one]).images[0].section(".text")
        assert text is not None
        value = text.address + 3 + 5 - (text.address + 4 if relative else 0)
        expected = bytes(4) + (value % 2 ** (8 * width)).to_bytes(width, "little") + bytes(12 - width)
        assert text.data.tobytes() == expected, kind
    for kind, relative in ((1, False), (2, True), (4, True), (0, None)):
        one = module(32, "a", bytes(4) + b"\x05\0\0\0" + bytes(8), [("f", 3, 1)], elves.rel(4, 1, kind))
        text = link([one]).images[0].section(".text")
        assert text is not None
        value = 5 if relative is None else text.address + 3 + 5 - (text.address + 4 if relative else 0)
        assert text.data.tobytes() == bytes(4) + (value % 2**32).to_bytes(4, "little") + bytes(8), kind


def test_the_images_given_are_not_changed() -> None:
    one = calling(64, "a", "missing")
    link([kernel(64, {}), one])
    text = one.section(".text")
    assert text is not None and text.data.tobytes() == b"\xe8\0\0\0\0" and text.address == 0
    assert one.symbols.records["address"].tolist() == [0, 0, 0]


@MODES
def test_sections_get_distinct_addresses_and_symbols_theirs(bits: int) -> None:
    def one(name: str) -> Image:
        return read_elf(
            f"{name}.ko",
            Elf(
                bits,
                machine(bits),
                parts=[
                    Part(".text", b"\xc3" * 7, flags=ALLOC | EXECUTE),
                    Part(".bss", type=NOBITS, size=5000),
                    Part(".empty"),
                    Part(".comment", b"x", flags=0),
                    *elves.symbols(bits, [("f", 6, 1), ("b", 4999, 2), ("a", 9, elves.ABS)], first=5),
                ],
            ).build(),
        )

    program = link([one("a"), one("b")])
    loaded = sorted(
        (s.address, s.address + max(s.size, 1))
        for image in program.images
        for s in image.sections
        if s.allocated
    )
    assert len(loaded) == 6
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(loaded))
    for image in program.images:
        text, bss = image.sections[1], image.sections[2]
        assert image.symbols.records["address"].tolist() == [0, text.address + 6, bss.address + 4999, 9]
        assert bss.data.size == 0 and image.sections[4].address == 0


# ---------------------------------------------------------------- what does not fit


def test_a_module_of_another_kernel_is_linked_with_a_warning() -> None:
    base = kernel(64, {"printk": 0x4020})
    other = module(64, "old", b"\xc3", [("f", 0, 1)], elves.rela(0, 1, 0), release="5.10.0")
    program = link([base, calling(64, "a", "printk"), other])
    assert program.warnings == ("old.ko: built for 5.10.0, the kernel is 6.1.0",)
    assert call_target(program, 1) == 0x4020


def test_images_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(InputError, match=r"a\.ko: is for i386, vmlinux for x86_64"):
        link([kernel(64, {}), calling(32, "a", "x")])
    with pytest.raises(InputError, match="vmlinux: is not a kernel module"):
        link([kernel(64, {}), kernel(64, {})])
    with pytest.raises(InputError, match="vmlinux: is not a kernel module"):
        link([calling(64, "a", "x"), kernel(64, {})])


@pytest.mark.parametrize(
    ("bits", "kind"), [(64, 3), (64, 9), (64, 26), (64, 2**32 - 1), (32, 3), (32, 10), (32, 255)]
)
def test_an_unknown_relocation_type_names_the_module(bits: int, kind: int) -> None:
    entry = elves.rela(0, 1, kind) if bits == 64 else elves.rel(0, 1, kind)
    bad = module(bits, "bad", bytes(16), [("f", 0, 1)], entry)
    with pytest.raises(InputError, match=rf"bad\.ko: relocation type {kind} is not known"):
        link([kernel(bits, {}), calling(bits, "a", "x"), bad])


@pytest.mark.parametrize(("offset", "kind"), [(1, 1), (4, 1), (5, 2), (7, 11), (7, 24)])
def test_a_relocation_that_reaches_beyond_its_section(offset: int, kind: int) -> None:
    bad = module(64, "bad", bytes(8), [("f", 0, 1)], elves.rela(offset, 1, kind))
    with pytest.raises(InputError, match=r"bad\.ko: a relocation reaches beyond its section"):
        link([bad])


def test_relocations_of_a_section_without_data() -> None:
    parts = [
        Part(".bss", type=NOBITS, size=64),
        *elves.symbols(64, [("f", 0, 1)], first=2),
        Part(".rela.bss", elves.rela(8, 1, 1), RELA, 0, link=2, info=1, entry_size=24),
    ]
    with pytest.raises(InputError, match="reaches beyond its section"):
        link([read_elf("bad.ko", Elf(parts=parts).build())])


@MODES
@pytest.mark.parametrize("size", [1 << 29, (1 << 32) - 1])
def test_modules_larger_than_their_address_range_are_refused_before_memory_is_taken(
    bits: int, size: int
) -> None:
    one = Elf(bits, machine(bits), parts=[Part(".bss", type=NOBITS, size=size)]).build()
    with pytest.raises(InputError, match="larger than"):
        link([read_elf("a.ko", one), read_elf("b.ko", one)])


def test_export_tables_that_make_no_sense_export_nothing() -> None:
    strings = Part("__ksymtab_strings", b"endless" * 1000, address=0x9000)
    for table in (b"", b"abc", bytes(12), bytes(range(24)), struct.pack("<3i", 0x100, 0x9000 - 0x1004, 0)):
        base = read_elf(
            "vmlinux", Elf(type=elves.EXEC, parts=[Part("__ksymtab", table, address=0x1000), strings]).build()
        )
        program = link([base, calling(64, "a", "endless")])
        assert list(program.undefined.values()) == ["endless"]


def test_a_kernel_alone_and_an_object_alone() -> None:
    base = kernel(64, {})
    assert link([base]).images == (base,)
    program = link([calling(64, "a", "g")])
    assert len(program.images) == 1 and list(program.undefined.values()) == ["g"]


@pytest.mark.kernel
@pytest.mark.parametrize("arch", ["amd64", "i386"])
def test_every_symbol_of_a_distributions_modules_is_found(arch: str, request: pytest.FixtureRequest) -> None:
    files = request.getfixturevalue(f"{arch}_kernel")
    path = request.getfixturevalue(f"{arch}_vmlinux")
    base = read_elf(str(path), np.memmap(path, np.uint8, "r").data)
    modules = [read_elf(str(one), one.read_bytes()) for one in sorted(files.modules.rglob("*.ko"))]
    program = link([base, *modules])
    assert program.undefined == {} and program.warnings == ()
    assert len(program.images) == len(modules) + 1 > 1000


def test_a_kernel_at_the_end_of_the_addresses_leaves_none_for_modules(tmp_path: Path) -> None:
    image = load_image(Path(__file__).resolve().parents[2] / "fixtures" / "firmware" / "rtos-aarch64.elf")
    number = next(at for at, one in enumerate(image.sections) if one.allocated and one.size)
    last = replace(image.sections[number], address=0xFFFF_FFFF_FFFF_F000 - image.sections[number].size)
    sections = (*image.sections[:number], last, *image.sections[number + 1 :])
    far = replace(image, kind=ImageKind.KERNEL, sections=sections)
    added = replace(image, path="m.ko", module="m", kind=ImageKind.MODULE, relocations={})
    with pytest.raises(InputError, match=r"m\.ko: no addresses are left for modules"):
        link([far, added])

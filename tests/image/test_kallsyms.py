"""Names and addresses come out of kallsyms tables of every era as they went in."""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackfit.image.elf import read_elf
from stackfit.image.kallsyms import read_kallsyms
from stackfit.image.model import SYMBOL_DTYPE, Image, ImageKind, InputError, Machine, Section, Symbols
from stackfit.image.vmlinuz import unpack

STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STT_NOTYPE, STT_OBJECT, STT_FUNC = 0, 1, 2
SHF_WRITE, SHF_ALLOC, SHF_EXEC = 1, 2, 4
PERCPU_SIZE = 0x1000
TEXT_SIZE, DATA_SIZE = 0x40000, 0x10000
BIG = "a_rust_symbol_" + "QZXJ" * 60  # no token covers it: more than 127 codes

Named = list[tuple[int, str, str]]  # address, nm letter, name


@dataclass(frozen=True)
class Era:
    """What differs between releases and configurations."""

    machine: Machine = Machine.X86_64
    addressing: str = "relative"  # or "percpu" (CONFIG_KALLSYMS_ABSOLUTE_PERCPU), "absolute", "place"
    order: str = "old"  # or "new" (6.4)
    seqs: int = 0  # bytes of an entry of kallsyms_seqs_of_names
    wide: bool = False  # num_syms and markers are words (4.19)
    long_names: bool = False  # two-byte lengths (6.1)


ERAS = {
    "4.19 relative": Era(wide=True),
    "4.19 absolute": Era(wide=True, addressing="absolute"),
    "4.19 per-CPU": Era(wide=True, addressing="percpu"),
    "4.19 i386": Era(Machine.I386),
    "5.10 per-CPU": Era(addressing="percpu"),
    "5.10 absolute": Era(addressing="absolute"),
    "5.10 i386 absolute": Era(Machine.I386, addressing="absolute"),
    "6.1 per-CPU": Era(addressing="percpu", long_names=True),
    "6.1 i386": Era(Machine.I386, long_names=True),
    "6.2 per-CPU": Era(addressing="percpu", long_names=True, seqs=3),
    "6.2 first form of seqs": Era(addressing="percpu", long_names=True, seqs=4),
    "6.2 i386": Era(Machine.I386, long_names=True, seqs=3),
    "6.4 per-CPU": Era(addressing="percpu", order="new", long_names=True, seqs=3),
    "6.4 absolute": Era(addressing="absolute", order="new", long_names=True, seqs=3),
    "6.12 relative": Era(order="new", long_names=True, seqs=3),
    "6.12 i386": Era(Machine.I386, order="new", long_names=True, seqs=3),
    "place-relative": Era(addressing="place", order="new", long_names=True, seqs=3),
}


def base_of(era: Era) -> int:
    return 0xFFFFFFFF81000000 if era.machine is Machine.X86_64 else 0xC1000000


def symbols_for(era: Era, count: int = 700) -> Named:
    """`count` symbols in the tables' order: absolute per-CPU ones first, then text and data."""
    base = base_of(era)
    named: Named = []
    if era.addressing == "percpu":
        named += [(16 * i, "A", f"cpu_counter_{i}") for i in range(20)]
    text = count - len(named) - 200
    letters = "TtWtw"
    named += [
        (base + 48 * i, letters[i % 5], f"sys_do_{i % 37}_work.part.{i}" if i % 7 else f"__x64_sys_{i}")
        for i in range(text)
    ]
    named[-1] = (*named[-1][:2], "helper.cold")
    named[-2] = (*named[-2][:2], "helper.cold")  # local names repeat
    if era.long_names:
        named[-5] = (*named[-5][:2], BIG)
    data = base + TEXT_SIZE
    named += [(data + 32 * i, "DdRbV"[i % 5], f"table_of_{i}") for i in range(200)]
    return named


# Tokens at unused codes, as scripts/kallsyms.c assigns them to frequent pairs of tokens.
PAIRS = [b"sys_", b"__x64_sys_", b"do_", b"work", b".part.", b"table_of_", b"cpu_", b"counter_", b"tsys_"]


def token_table() -> list[bytes]:
    tokens = [b""] * 256
    for code in range(256):
        character = bytes([code])
        if character.isalnum() or character in b"_.$":
            tokens[code] = character
    free = [code for code in range(256) if not tokens[code]]
    for code, token in zip(free, PAIRS, strict=False):
        tokens[code] = token
    return tokens


def compress(text: bytes, tokens: list[bytes]) -> bytes:
    by_length = sorted((token for token in tokens if token), key=len, reverse=True)
    out, at = bytearray(), 0
    while at < len(text):
        token = next(token for token in by_length if text.startswith(token, at))
        out.append(tokens.index(token))
        at += len(token)
    return bytes(out)


def tables(named: Named, era: Era, at: int) -> bytes:
    """The tables as scripts/kallsyms.c writes them, the first byte at link address `at`."""
    word = era.machine.word
    pointer, mask = ("<Q", (1 << 64) - 1) if word == 8 else ("<I", (1 << 32) - 1)
    tokens = token_table()
    out = bytearray()

    def label() -> None:
        out.extend(bytes(-len(out) % word))

    def numbers() -> None:
        label()
        out.extend(struct.pack(pointer if era.wide else "<I", len(named)))
        label()
        stream, markers = bytearray(), []
        for index, (_, letter, name) in enumerate(named):
            if index % 256 == 0:
                markers.append(len(stream))
            codes = compress((letter + name).encode(), tokens)
            if len(codes) <= 0x7F:
                stream.append(len(codes))
            elif era.long_names:
                stream += bytes([len(codes) & 0x7F | 0x80, len(codes) >> 7])
            else:
                stream.append(len(codes))
            stream += codes
        out.extend(stream)
        label()
        for marker in markers:
            out.extend(struct.pack(pointer if era.wide else "<I", marker))

    def seqs() -> None:
        if era.seqs:
            label()
            for index in sorted(range(len(named)), key=lambda i: named[i][2]):
                out.extend(index.to_bytes(era.seqs, "big" if era.seqs == 3 else "little"))

    def token_tables() -> None:
        label()
        index, offset = [], 0
        for token in tokens:
            index.append(offset)
            offset += len(token) + 1
            out.extend(token + b"\0")
        label()
        out.extend(struct.pack("<256H", *index))

    def addresses() -> None:
        label()
        relative_base = base_of(era)
        for address, letter, _ in named:
            if era.addressing == "absolute":
                out.extend(struct.pack(pointer, address))
            elif era.addressing == "relative":
                out.extend(struct.pack("<I", address - relative_base))
            elif era.addressing == "place":
                out.extend(struct.pack("<I", (address - (at + len(out))) & 0xFFFFFFFF))
            else:
                out.extend(struct.pack("<i", address if letter == "A" else relative_base - address - 1))
        if era.addressing in ("relative", "percpu"):
            label()
            out.extend(struct.pack(pointer, relative_base & mask))

    if era.order == "old":
        addresses()
        numbers()
        seqs()
        token_tables()
    else:
        numbers()
        token_tables()
        addresses()
        seqs()
    label()
    return bytes(out)


def section(name: str, flags: int, address: int, data: bytes, size: int | None = None) -> Section:
    kind = 1 if data else 8
    length = len(data) if size is None else size
    return Section(name, kind, flags, address, 0x1000, length, 0, 0, 0, np.frombuffer(data, np.uint8))


def image_with(content: bytes, era: Era) -> Image:
    """A kernel image without symbol table: per-CPU template at 0, text, data, .rodata holding `content`."""
    base = base_of(era)
    sections = (
        section("", 0, 0, b""),
        section(".text", SHF_ALLOC | SHF_EXEC, base, b"\xcc" * TEXT_SIZE),
        section(".data", SHF_ALLOC | SHF_WRITE, base + TEXT_SIZE, b"", DATA_SIZE),
        section(".rodata", SHF_ALLOC, base + TEXT_SIZE + DATA_SIZE, content),
        section(".data..percpu", SHF_ALLOC | SHF_WRITE, 0, bytes(PERCPU_SIZE)),
    )
    none = Symbols([], np.empty(0, SYMBOL_DTYPE))
    return Image("vmlinux", None, ImageKind.KERNEL, era.machine, sections, none, {})


def rodata(named: Named, era: Era, before: int = 4096) -> bytes:
    """Tables amid other read-only data, some of which looks a little like them."""
    noise = np.random.default_rng(7)
    head = noise.integers(0, 256, before // 2, np.uint8).tobytes() + bytes(before - before // 2)
    at = base_of(era) + TEXT_SIZE + DATA_SIZE + len(head)
    strings = b"\0".join(b"%d" % number for number in range(2000))
    rising = struct.pack("<200H", *range(200)) + struct.pack("<64I", *range(0, 64 * 3000, 3000))
    return head + tables(named, era, at) + rising + strings


@pytest.mark.parametrize("era", ERAS.values(), ids=ERAS.keys())
def test_every_era_gives_names_and_addresses_in_order(era: Era) -> None:
    named = symbols_for(era)
    symbols = read_kallsyms(image_with(rodata(named, era), era))
    assert symbols.names == [name for _, _, name in named]
    assert symbols.records["address"].tolist() == [address for address, _, _ in named]
    assert not symbols.records["size"].any()


@pytest.mark.parametrize("count", [300, 511, 512, 513, 769, 1024, 1025])
@pytest.mark.parametrize("name", ["4.19 relative", "6.1 i386", "6.2 per-CPU", "6.4 per-CPU"])
def test_any_number_of_names_fits_its_markers(name: str, count: int) -> None:
    era = ERAS[name]
    named = symbols_for(era, count)
    assert len(named) == count
    assert read_kallsyms(image_with(rodata(named, era), era)).names == [item[2] for item in named]


def test_what_follows_the_markers_may_look_like_one_more() -> None:
    """Four markers need no padding: the permutation's first bytes 00 00 01 00 read as an offset of 65,536."""
    era = ERAS["6.2 per-CPU"]
    named = symbols_for(era, 1024)
    named[1] = (*named[1][:2], "A_first")
    assert min(name for _, _, name in named) == "A_first"
    assert read_kallsyms(image_with(rodata(named, era), era)).names == [item[2] for item in named]


def test_a_byte_of_128_and_more_is_a_length_before_6_1() -> None:
    era = replace(ERAS["5.10 per-CPU"], long_names=False)
    named = symbols_for(era)
    name = "q" * 127  # KSYM_NAME_LEN was 128, the letter included
    named[300] = (*named[300][:2], name)
    assert read_kallsyms(image_with(rodata(named, era), era)).names[300] == name


def test_letters_become_binding_type_and_section() -> None:
    era = ERAS["6.1 per-CPU"]
    named = symbols_for(era)
    records = read_kallsyms(image_with(rodata(named, era), era)).records
    expected = {
        "T": (STB_GLOBAL, STT_FUNC, 1),
        "t": (STB_LOCAL, STT_FUNC, 1),
        "W": (STB_WEAK, STT_FUNC, 1),
        "w": (STB_WEAK, STT_FUNC, 1),
        "D": (STB_GLOBAL, STT_OBJECT, 2),
        "d": (STB_LOCAL, STT_OBJECT, 2),
        "b": (STB_LOCAL, STT_OBJECT, 2),
        "R": (STB_GLOBAL, STT_OBJECT, 2),
        "V": (STB_WEAK, STT_OBJECT, 2),
        "A": (STB_GLOBAL, STT_OBJECT, 4),
    }
    seen = set()
    for (_, letter, name), record in zip(named, records, strict=True):
        found = (int(record["binding"]), int(record["type"]), int(record["section"]))
        assert found == expected[letter], (letter, name)
        seen.add(letter)
    assert seen == set(expected)


def test_a_symbol_in_no_section_is_absolute_and_an_end_label_is_not() -> None:
    era = ERAS["6.12 relative"]
    named = symbols_for(era)
    end = base_of(era) + TEXT_SIZE + DATA_SIZE
    content = rodata([*named, (end + 0x80000, "B", "far_away")], era)
    symbols = read_kallsyms(image_with(content, era))
    assert symbols.names[-1] == "far_away"
    assert int(symbols.records["section"][-1]) == -1
    assert int(symbols.records["type"][-1]) == STT_NOTYPE
    behind = end + len(content)
    symbols = read_kallsyms(image_with(rodata([*named, (behind + 24, "R", "__end_rodata")], era), era))
    assert int(symbols.records["section"][-1]) == 3


def test_tables_are_found_in_another_section_than_rodata() -> None:
    era = ERAS["6.1 per-CPU"]
    named = symbols_for(era)
    image = image_with(rodata(named, era), era)
    sections = (*image.sections[:3], replace(image.sections[3], name=".data.kallsyms"), image.sections[4])
    assert len(read_kallsyms(replace(image, sections=sections))) == len(named)


@pytest.mark.parametrize("content", [b"", bytes(100_000), b"0\x001\x002\x00" * 1000])
def test_an_image_without_tables_is_one_clear_line(content: bytes) -> None:
    with pytest.raises(InputError, match=r"vmlinux: .*no kallsyms tables") as caught:
        read_kallsyms(image_with(content, Era()))
    assert "\n" not in str(caught.value)


def spoiled(era: Era, what: str) -> Image:
    named = symbols_for(era)
    content = bytearray(rodata(named, era))
    tokens = content.index(b"0\x001\x002\x003\x00")
    if what == "num_syms":
        count = content.rindex(struct.pack("<II", len(named), 0), 0, tokens)
        content[count] ^= 1
    elif what == "name length":
        first = compress(("T" + "__x64_sys_0").encode(), token_table())
        content[content.index(bytes([len(first)]) + first)] += 1
    elif what == "addresses":
        lowest = struct.pack("<i", -1)  # the first relative symbol
        content[content.index(lowest + struct.pack("<i", -49))] = 0
    elif what == "seqs":
        order = sorted(range(len(named)), key=lambda i: named[i][2])
        content[content.index(order[0].to_bytes(3, "big") + order[1].to_bytes(3, "big"), 0, tokens) + 2] ^= 1
    return image_with(bytes(content), era)


@pytest.mark.parametrize("what", ["num_syms", "name length", "addresses", "seqs"])
def test_tables_that_contradict_each_other_are_refused(what: str) -> None:
    with pytest.raises(InputError, match="kallsyms token table is unusable") as caught:
        read_kallsyms(spoiled(ERAS["6.2 per-CPU"], what))
    assert caught.value.offset is not None


SAMPLES = {
    name: rodata(symbols_for(ERAS[name], 520), ERAS[name], before=64)
    for name in ("4.19 i386", "6.2 per-CPU", "6.12 relative", "place-relative")
}


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(SAMPLES)),
    flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=0, max_size=8),
    cut=st.tuples(st.integers(0, 1 << 20), st.booleans()),
)
def test_any_damage_gives_an_error_or_consistent_symbols(
    name: str, flips: list[tuple[int, int]], cut: tuple[int, bool]
) -> None:
    content = bytearray(SAMPLES[name])
    for place, value in flips:
        content[place % len(content)] = value
    data = bytes(content[: cut[0] % len(content)] if cut[1] else content)
    try:
        symbols = read_kallsyms(image_with(data, ERAS[name]))
    except InputError:
        return
    assert len(symbols.names) == symbols.records.size > 256
    addresses = symbols.records["address"]
    assert bool((addresses[1:] >= addresses[:-1]).all())
    assert all(name and "\n" not in name for name in symbols.names)


@pytest.mark.parametrize("fill", [b"\0\0\1\0", struct.pack("<256H", *range(256)), b"\1"])
def test_hostile_data_ends_soon(fill: bytes) -> None:
    """Data in which every place looks like the start of a table: the caps on candidates hold."""
    content = (b"\0" * 256 + struct.pack("<256H", *range(256))) * 64 + fill * ((4 << 20) // len(fill))
    with pytest.raises(InputError):
        read_kallsyms(image_with(content, Era()))


def reference(path: Path) -> tuple[Image, Counter[tuple[str, int]], Counter[tuple[str, int]]]:
    """(the image, all its symbols, those of code): counted by name and address."""
    with path.open("rb") as file:  # 590 MB: mapped, and unmapped with the image's last array
        image = read_elf(str(path), memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    records = image.symbols.records
    executable = np.array([item.executable for item in image.sections])
    place = records["section"]
    code = (place >= 0) & executable[place] & (records["type"] != 3)  # STT_SECTION has no name of its own
    pairs = list(zip(image.symbols.names, records["address"].tolist(), strict=True))
    return image, Counter(pairs), Counter(pairs[i] for i in np.flatnonzero(code).tolist())


def compared(vmlinuz: Path, vmlinux: Path) -> tuple[Image, Symbols, Any, Any]:
    """(the reference, the symbols of the stock image, what code symbols it lacks, what it has in excess)."""
    unpacked = unpack(str(vmlinuz), vmlinuz.read_bytes())
    image = read_elf(str(vmlinuz), unpacked.elf)
    assert len(image.symbols) == 0
    symbols = read_kallsyms(image)
    found = Counter(zip(symbols.names, symbols.records["address"].tolist(), strict=True))
    expected, everything, code = reference(vmlinux)
    return expected, symbols, code - found, found - everything


@pytest.mark.kernel
@pytest.mark.slow
def test_amd64_names_equal_those_of_its_symbol_table(amd64_kernel: Any, amd64_vmlinux: Path) -> None:
    """CONFIG_KALLSYMS_ALL: every symbol of code is there, and none that the symbol table lacks."""
    _, symbols, missing, excess = compared(amd64_kernel.vmlinuz, amd64_vmlinux)
    assert not missing
    assert not excess
    assert len(symbols) > 80_000


@pytest.mark.kernel
@pytest.mark.slow
def test_i386_names_equal_those_of_its_symbol_table(i386_kernel: Any, i386_vmlinux: Path) -> None:
    """Without CONFIG_KALLSYMS_ALL only code from _stext to _einittext is named, `.exit.text` is not."""
    expected, symbols, missing, excess = compared(i386_kernel.vmlinuz, i386_vmlinux)
    assert not excess
    assert len(symbols) > 40_000
    exit_text = expected.section(".exit.text")
    assert exit_text is not None
    others = [name for name, address in missing if not exit_text.address <= address < exit_text.end]
    # An end label behind the last code byte is the one name that is left out.
    assert set(others) <= {"__indirect_thunk_end"}

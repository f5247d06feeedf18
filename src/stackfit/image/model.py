"""What a loaded binary is: sections, symbols and relocations as arrays, and images linked into a program.

Everything here is plain data. Addresses are link addresses in bytes; sizes and offsets are bytes.
Sources: System V gABI chapters 4 and 5 (ELF), `include/linux/module.h` (modules).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "RELOCATION_DTYPE",
    "SYMBOL_DTYPE",
    "Image",
    "ImageKind",
    "InputError",
    "Machine",
    "Program",
    "Section",
    "Symbols",
]

Bytes = NDArray[np.uint8]

SYMBOL_DTYPE = np.dtype(
    [
        ("address", "<u8"),  # link address; in a module before linking, the offset in its section
        ("size", "<u8"),  # bytes; 0 = not known (kallsyms has none)
        ("section", "<i4"),  # index into Image.sections; -1 = absolute, -2 = undefined
        ("type", "u1"),  # STT_*
        ("binding", "u1"),  # STB_*
    ]
)

RELOCATION_DTYPE = np.dtype(
    [
        ("offset", "<u8"),  # bytes from the start of the section the relocation applies to
        ("symbol", "<u4"),  # index into Image.symbols
        ("type", "<u4"),  # R_<machine>_*
        ("addend", "<i8"),  # bytes (for SHT_REL: read from the place itself)
    ]
)


class InputError(Exception):
    """A file that cannot be used: one line with the file, the byte offset where known, and the cause."""

    def __init__(self, path: str, cause: str, offset: int | None = None) -> None:
        place = f" at offset {offset:#x}" if offset is not None else ""
        super().__init__(f"{path}{place}: {cause}")
        self.path = path
        self.offset = offset
        self.cause = cause


class Machine(enum.Enum):
    """Instruction sets that stackfit reads."""

    I386 = "i386"
    X86_64 = "x86_64"
    ARM = "arm"
    AARCH64 = "aarch64"
    RISCV32 = "riscv32"
    RISCV64 = "riscv64"

    @property
    def word(self) -> int:
        """Bytes of a pointer and of a general register."""
        return 8 if self in (Machine.X86_64, Machine.AARCH64, Machine.RISCV64) else 4

    @property
    def x86(self) -> bool:
        return self in (Machine.I386, Machine.X86_64)

    @property
    def return_bytes(self) -> int:
        """Bytes that a call pushes: the return address, or nothing where it stays in a register."""
        return self.word if self.x86 else 0

    def code_address(self, pointer: int) -> int:
        """Where a code pointer leads: on Arm its lowest bit says T32 (AAPCS32, 5.6)."""
        return pointer & ~1 if self is Machine.ARM else pointer

    @property
    def mask(self) -> int:
        """The greatest address."""
        return (1 << 8 * self.word) - 1

    def signed(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Addresses as numbers with the sign of a word, as an instruction's immediates are: those of a kernel
        are negative."""
        if self.word == 8:
            return addresses.view(np.int64)
        return addresses.astype(np.uint32).view(np.int32).astype(np.int64)


class ImageKind(enum.Enum):
    KERNEL = "kernel"
    MODULE = "module"
    EXECUTABLE = "executable"


@dataclass(frozen=True, eq=False)
class Section:
    """One section; `data` is empty for SHT_NOBITS."""

    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    entry_size: int
    data: Bytes

    @property
    def executable(self) -> bool:
        return bool(self.flags & 0x4) and self.size > 0  # SHF_EXECINSTR

    @property
    def allocated(self) -> bool:
        return bool(self.flags & 0x2)  # SHF_ALLOC

    @property
    def writable(self) -> bool:
        return bool(self.flags & 0x1)  # SHF_WRITE

    @property
    def end(self) -> int:
        return self.address + self.size


@dataclass(frozen=True, eq=False)
class Symbols:
    """A symbol table: `names[i]` belongs to `records[i]` (SYMBOL_DTYPE)."""

    names: list[str]
    records: NDArray[np.void]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class Image:
    """A loaded binary.

    `relocations` maps a section's index to its RELOCATION_DTYPE array. A linked kernel may keep
    relocations that are already applied (`--emit-relocs`); a module's are applied by linking.
    `modinfo` is what a module's `.modinfo` says (license, intree, vermagic …; the first of repeated keys).
    `pointers` are the link addresses of all absolute pointers that KASLR would move (empty if unknown).
    """

    path: str
    module: str | None  # None = the kernel itself or an executable
    kind: ImageKind
    machine: Machine
    sections: tuple[Section, ...]
    symbols: Symbols
    relocations: dict[int, NDArray[np.void]]
    build_id: str | None = None
    release: str | None = None  # `uname -r` of a kernel, vermagic's first word of a module
    symbol_source: str = "symtab"  # "symtab" or "kallsyms"
    modinfo: Mapping[str, str] = field(default_factory=dict)
    entry: int = 0  # address at which execution starts (e_entry); on Arm its lowest bit says T32
    pointers: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    archive: str = ""  # path of the archive that it is a member of

    def section(self, name: str) -> Section | None:
        """The first section of that name, or None."""
        for section in self.sections:
            if section.name == name:
                return section
        return None


@dataclass(frozen=True, eq=False)
class Program:
    """Images linked together: `images[0]` is the kernel (or the executable), the rest its modules.

    Every section has its final, distinct address and relocated data. `undefined` maps the address that
    stands for each unresolved symbol to its name: a call there is open.
    """

    images: tuple[Image, ...]
    undefined: dict[int, str]
    warnings: tuple[str, ...] = ()

    @property
    def machine(self) -> Machine:
        return self.images[0].machine

    @property
    def objects(self) -> bool:
        """Whether all images are relocatable objects that were not linked, and no kernel modules."""
        return self.images[0].kind is ImageKind.MODULE and not self.images[0].modinfo

    @property
    def path(self) -> str:
        """The file that was given first: an archive's, not its first member's."""
        return self.images[0].archive or self.images[0].path

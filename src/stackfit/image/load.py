"""Files to images: whatever a distribution ships, in one call."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from stackfit.image.archive import is_archive, read_archive
from stackfit.image.compression import compression_of, decompress
from stackfit.image.elf import is_elf, read_elf
from stackfit.image.flat import Flat, read_flat
from stackfit.image.kallsyms import read_kallsyms
from stackfit.image.link import link
from stackfit.image.model import Image, ImageKind, InputError, Program
from stackfit.image.raw import is_raw_kernel, read_raw_kernel
from stackfit.image.vmlinuz import is_bzimage, unpack

__all__ = [
    "MODULE_SUFFIXES", "check_same_build", "find_modules", "load_image", "load_images", "load_program",
]  # fmt: skip

MODULE_SUFFIXES = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")
MAXIMUM_FILE = 4 << 30  # bytes; a debug kernel has 0.6 GB


def _read(path: str) -> bytes | memoryview:
    """The file's bytes: mapped, so that the unused parts of a debug kernel cost nothing."""
    try:
        kind = os.stat(path).st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # before opening: a pipe would block
            raise InputError(path, "not a regular file")
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            if size > MAXIMUM_FILE:
                raise InputError(path, f"{size} bytes (4 GiB accepted)")
            if size == 0:
                raise InputError(path, "the file is empty")
            if size < 1 << 20:
                file.seek(0)
                return file.read()
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(path, reason) from None


def load_image(path: str | Path) -> Image:
    """Load an ELF file, a packed kernel (bzImage) or a compressed module.

    A kernel without a symbol table is named from its kallsyms. Raises InputError.
    """
    name = str(path)
    return _read_image(name, _read(name))


def _read_image(name: str, data: bytes | memoryview) -> Image:
    head = bytes(data[:1024])
    if is_elf(head):
        return _named(read_elf(name, data))
    if is_bzimage(head):
        unpacked = unpack(name, data)
        image = _named(read_elf(name, unpacked.elf))
        return replace(
            image,
            release=unpacked.release or image.release,
            pointers=unpacked.relocations_64 if image.machine.word == 8 else unpacked.relocations_32,
        )
    if is_raw_kernel(head):
        return read_raw_kernel(name, data)
    if compression_of(head) is not None:
        content = decompress(name, bytes(data))
        return read_raw_kernel(name, content) if is_raw_kernel(content) else _named(read_elf(name, content))
    if is_archive(head):
        raise InputError(name, "an archive of objects, where one image is expected")
    cause = "not an ELF file, an archive, a packed Linux kernel or a compressed module"
    raise InputError(name, f"{cause} (a flat binary needs --arch and --base)", 0)


def load_images(path: str | Path, flat: Flat | None = None) -> tuple[list[Image], list[str]]:
    """As `load_image`; of an archive all members that are objects, and warnings about those that are none.

    Members are modules by their own names; of several of one name the later ones are numbered (`x.o#2`).
    `flat`: what the file is if it says nothing itself.
    """
    name = str(path)
    data = _read(name)
    if flat is not None:
        if is_elf(data) or is_archive(bytes(data[:8])):
            raise InputError(name, "says itself what it is: --arch and --base are for flat binaries")
        return [read_flat(name, data, flat)], []
    if not is_archive(bytes(data[:8])):
        return [_read_image(name, data)], []
    images: list[Image] = []
    others: list[str] = []
    times: dict[str, int] = {}
    for member in read_archive(name, data):
        if not is_elf(member.data):
            others.append(member.name)
            continue
        count = times[member.name] = times.get(member.name, 0) + 1
        module = member.name if count == 1 else f"{member.name}#{count}"
        image = read_elf(f"{name}({module})", member.data, module)
        if image.kind is not ImageKind.MODULE:
            raise InputError(image.path, "a linked image in an archive: only relocatable objects are read")
        images.append(replace(image, archive=name))
    if not images:
        raise InputError(name, "the archive holds no ELF object")
    warnings = [f"{name}: {len(others)} members are no ELF objects, {others[0]} first"] if others else []
    return images, warnings


def _named(image: Image) -> Image:
    if image.kind is ImageKind.KERNEL and not len(image.symbols):
        return replace(image, symbols=read_kallsyms(image), symbol_source="kallsyms")
    return image


def find_modules(places: Iterable[str | Path]) -> list[Path]:
    """Module files: each place is a module or a directory that is searched; sorted, each file once."""
    found: dict[Path, None] = {}
    for place in places:
        path = Path(place)
        if path.is_dir():
            here = sorted(
                file for file in path.rglob("*") if file.name.endswith(MODULE_SUFFIXES) and file.is_file()
            )
            if not here:
                raise InputError(
                    str(path), "the directory holds no kernel modules (*.ko, *.ko.xz, *.ko.zst, *.ko.gz)"
                )
            found.update(dict.fromkeys(here))
        elif path.exists():
            found[path] = None
        else:
            raise InputError(str(path), "No such file or directory")
    return list(found)


def load_program(
    images: list[str | Path] | list[str] | list[Path],
    modules: Iterable[str | Path] = (),
    progress: Callable[[int, int], None] | None = None,
    flat: Flat | None = None,
) -> Program:
    """Load and link: the first image is the kernel or executable, further images and `modules` its modules.

    Objects and archives of objects are linked with each other. `flat`: the first image is a flat binary.
    `progress(done, total)` is called for every
    module read. Raises InputError.
    """
    paths = [*images[1:], *find_modules(modules)]
    loaded, warnings = load_images(images[0], flat)
    names: dict[str, str] = {}
    for number, (path, (found, more)) in enumerate(zip(paths, _load_all(paths), strict=True)):
        warnings += more
        for image in found:
            if image.module is not None and not image.archive:
                if image.module in names:
                    raise InputError(
                        str(path), f"module {image.module} was already given by {names[image.module]}"
                    )
                names[image.module] = str(path)
        loaded += found
        if progress is not None:
            progress(number + 1, len(paths))
    program = link(loaded)
    return replace(program, warnings=(*warnings, *program.warnings))


def _load_all(paths: Sequence[str | Path]) -> Iterator[tuple[list[Image], list[str]]]:
    """The images of each file and warnings about it, in order; compressed ones are unpacked on all CPUs (the
    libraries let go of the interpreter meanwhile, reading ELF does not)."""
    if all(str(path).endswith(".ko") for path in paths):
        yield from map(load_images, paths)
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(load_images, paths)


def check_same_build(kernel: Image, debug: Image) -> None:
    """InputError: the debug companion is of another build than the kernel, or nothing says that it is not."""
    if kernel.build_id is not None and debug.build_id != kernel.build_id:
        raise InputError(
            debug.path, f"build-id {debug.build_id} is not that of {kernel.path}, {kernel.build_id}"
        )

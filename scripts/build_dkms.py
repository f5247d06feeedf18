#!/usr/bin/env python3
"""Builds a module that is not part of the kernel, and what a vendor without sources would ship of it.

The module comes from a Debian *-dkms package and is built for the amd64 kernel that fetch_kernel.py fetches,
with that kernel's headers packages. All of it is unpacked in the kernel cache; nothing is installed.

Standard output is one JSON object, paths absolute:

    {"module", "stripped", "release"}

`module` is the module as built, with symbols and DWARF. `stripped` is the same code without names of its own:
`strip --strip-unneeded` keeps the symbols that relocations refer to, so relocations are made to refer to
sections first. Left are the section symbols, the undefined symbols, and what the kernel's build and loader
look up by name: init_module, cleanup_module, __this_module (scripts/mod/modpost.c, kernel/module/main.c).

The result is kept as dkms-PACKAGE_VERSION-for-KERNEL_VERSION in the cache; a second call answers from there
and needs neither network nor compiler.

Errors are one line on standard error and exit status 2.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import re
import shutil
import struct
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import fetch_kernel
from fetch_kernel import FetchError

__all__ = ["Built", "FetchError", "MissingTool", "build", "without_names"]

# A caching block device: three C files that build for Linux 3.9 to 6.x and need dm-mod and dm-bufio.
PACKAGE = "dm-writeboost-dkms"
RECIPE = 1  # part of the cache's key: to be raised when the same packages shall give another result
BUILD_TIMEOUT = 900.0  # seconds
KEPT = ("init_module", "cleanup_module", "__this_module")
TOOL_PACKAGES = {
    "make": "make",
    "env": "coreutils",
    "ld": "binutils",
    "objcopy": "binutils",
    "strip": "binutils",
}


class MissingTool(FetchError):
    """Something that the build needs is not installed; the message names the package that has it."""


@dataclass(frozen=True)
class Built:
    """`release` is what `uname -r` of the kernel prints that the module was built for."""

    module: str
    stripped: str
    release: str


def note(text: str) -> None:
    print(f"build_dkms: {text}", file=sys.stderr, flush=True)


def tool(name: str) -> str:
    path = shutil.which(name, path=fetch_kernel.search_path())
    if path is None:
        package = TOOL_PACKAGES.get(name, name)
        raise MissingTool(f"{name} not found: install it (apt-get install {package})")
    return path


def compiler_of(headers: Path) -> str:
    """Name of the compiler that the kernel was built with: another one need not know its options."""
    found = re.search(r"^CONFIG_GCC_VERSION=(\d+)", (headers / ".config").read_text(), re.MULTILINE)
    if found is None or int(found[1]) == 0:
        raise FetchError(f"{headers}/.config: not built by gcc")
    return f"gcc-{int(found[1]) // 10000}"


def run(command: list[str], cwd: Path, what: str) -> None:
    """Runs a command without what the environment says of other builds (MAKEFLAGS, CC, ARCH …)."""
    clean = [tool("env"), "-i", f"PATH={fetch_kernel.search_path()}", "LC_ALL=C"]
    status, out, err = fetch_kernel.run([*clean, *command], BUILD_TIMEOUT, cwd)
    if status != 0:
        lines = [line for line in (out + err).splitlines() if "rror" in line] or (out + err).splitlines()
        raise FetchError(f"{what}: {lines[0].strip() if lines else f'exit status {status}'}")


def compile_module(source: Path, headers: Path, scratch: Path) -> None:
    """Builds the modules of `source` (a directory that may be written to) in place."""
    if platform.machine() != "x86_64":
        raise MissingTool(f"the headers packages' tools run on x86_64, not on {platform.machine()}")
    if bad := set(" :") & set(str(scratch)):
        raise FetchError(f"{scratch}: kbuild accepts no {sorted(bad)[0]!r} in a path; use another --cache")
    try:
        ctypes.CDLL("libelf.so.1")
    except OSError:
        raise MissingTool("libelf.so.1 not found: objtool needs it (apt-get install libelf1)") from None
    compiler = tool(compiler_of(headers))
    tool("ld")
    # The headers' Makefile includes /usr/src/linux-headers-…-common/Makefile. In its place goes one that
    # finds the unpacked files; the other entries are links, so that the packages stay as they are.
    makefile = (headers / "Makefile").read_text()
    common = re.search(r"^include /usr/src/([^/\s]+)/Makefile", makefile, re.MULTILINE)
    if common is None or not (headers.parent / common[1] / "Makefile").is_file():
        raise FetchError(f"{headers}/Makefile: includes no Makefile of the common headers, as Debian's does")
    tree = scratch / "headers"
    tree.mkdir()
    for entry in headers.iterdir():
        if entry.name != "Makefile":
            (tree / entry.name).symlink_to(entry)
    (tree / "Makefile").write_text(f"include {headers.parent / common[1]}/Makefile\n")
    command = [
        tool("make"), "-C", str(tree), f"-j{os.cpu_count() or 1}", f"M={source}", f"CC={compiler}",
        # The directories' names, which are others at each call, are not to show in the result.
        f"KCFLAGS=-ffile-prefix-map={source}/= -ffile-prefix-map={tree}=headers", "modules",
    ]  # fmt: skip
    run(command, source, "the module does not build")


def without_names(module: bytes) -> bytes:
    """An ELF64 relocatable object with relocations against local symbols made to refer to their sections.

    What a relocation stores stays the same: it is computed from symbol + addend (System V ABI AMD64
    supplement, 4.4.1), and a symbol is its section's address and an offset.
    """
    data = bytearray(module)
    (section_table,) = struct.unpack_from("<Q", data, 0x28)
    entry_size, count = struct.unpack_from("<HH", data, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, section_table + i * entry_size) for i in range(count)]
    symbol_table, symbol_bytes = next((s[4], s[5]) for s in sections if s[1] == 2)  # SHT_SYMTAB
    places = range(symbol_table, symbol_table + symbol_bytes, 24)
    # name, info, other, section, value, size
    symbols = [struct.unpack_from("<IBBHQQ", data, place) for place in places]
    section_symbol = {symbol[3]: index for index, symbol in enumerate(symbols) if symbol[1] & 15 == 3}
    for section in sections:
        if section[1] != 4:  # SHT_RELA
            continue
        for place in range(section[4], section[4] + section[5], 24):
            offset, info, addend = struct.unpack_from("<QQq", data, place)
            index = info >> 32
            _, kind, _, home, value, _ = symbols[index]
            if kind >> 4 != 0 or kind & 15 == 3 or not 0 < home < 0xFF00:
                continue  # not local, a section's already, or in no section
            if home not in section_symbol:  # the symbol itself becomes its section's
                section_symbol[home] = index
                struct.pack_into("<IBBHQQ", data, symbol_table + 24 * index, 0, 3, 0, home, 0, 0)
            info = section_symbol[home] << 32 | info & 0xFFFF_FFFF
            struct.pack_into("<QQq", data, place, offset, info, addend + value)
    return bytes(data)


def strip_names(module: Path, stripped: Path) -> None:
    keep = [f"--keep-global-symbol={name}" for name in KEPT]
    command = [tool("objcopy"), "--strip-unneeded", "--discard-all", *keep, str(module), str(stripped)]
    run(command, stripped.parent, "objcopy")
    stripped.write_bytes(without_names(stripped.read_bytes()))
    run([tool("strip"), "--strip-unneeded", str(stripped)], stripped.parent, "strip")


def choose(modules: list[Path], wanted: str | None, package: str) -> Path:
    names = ", ".join(path.stem for path in modules) or "none"
    chosen = [path for path in modules if wanted is None or path.stem == wanted]
    if len(chosen) != 1:
        raise FetchError(f"{package}: --module must name one of the modules it builds ({names})")
    return chosen[0]


def build(package: str = PACKAGE, module: str | None = None, directory: Path | None = None) -> Built:
    """Module and stripped module of the newest package whose whole name matches, in the kernel cache.

    module: which, of a package that builds several. Raises FetchError; MissingTool for what is not installed;
    OSError if the cache cannot be written.
    """
    kernel = fetch_kernel.fetch("amd64", headers=True, directory=directory)
    source = fetch_kernel.fetch_tree("amd64", package, directory=directory)
    cache = fetch_kernel.Cache(directory or fetch_kernel.default_cache())
    name = source.name.removesuffix("_amd64")
    version = kernel.version.replace(":", "%3a")
    key = f"dkms-{name}{f'-{module}' if module else ''}-for-{kernel.release}_{version}-{RECIPE}"
    result = cache.directory / key

    def cached() -> Built | None:
        built = sorted(result.glob("*.ko"))
        return (
            Built(str(built[0]), str(result / "stripped" / built[0].name), kernel.release) if built else None
        )

    if found := cached():
        return found
    with cache.locked():
        if found := cached():  # another process built it meanwhile
            return found
        makefiles = sorted(source.glob("usr/src/*/Makefile"))
        if not makefiles:
            raise FetchError(f"{name}: no usr/src/*/Makefile in it, so not a package that kbuild builds")
        with cache.scratch() as scratch:
            note(f"building {name} for {kernel.release}")
            copy = scratch / "source"
            shutil.copytree(makefiles[0].parent, copy)
            assert kernel.headers is not None
            compile_module(copy, Path(kernel.headers), scratch)
            chosen = choose(sorted(copy.rglob("*.ko")), module, name)
            (scratch / "result" / "stripped").mkdir(parents=True)
            shutil.copyfile(chosen, scratch / "result" / chosen.name)
            strip_names(chosen, scratch / "result" / "stripped" / chosen.name)
            (scratch / "result").replace(result)
    found = cached()
    assert found is not None
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="build_dkms.py",
        description="Build (never install) the module of a Debian *-dkms package, and strip it; prints JSON.",
    )
    parser.add_argument(
        "--package", metavar="REGEX", default=PACKAGE, help=f"whole package name (default: {PACKAGE})"
    )
    parser.add_argument("--module", metavar="NAME", help="which module, of a package that builds several")
    parser.add_argument(
        "--cache", metavar="DIR", type=Path, help="default: $STACKFIT_CACHE or .cache/kernels"
    )
    options = parser.parse_args(arguments)
    try:
        re.compile(options.package)
        built = build(options.package, options.module, options.cache)
    except FetchError as error:
        note(str(error))
        return 2
    except re.error as error:
        note(f"--package {options.package!r}: not a regular expression: {error}")
        return 2
    except OSError as error:
        note(f"{error.filename or options.cache or fetch_kernel.default_cache()}: {error.strerror or error}")
        return 2
    except KeyboardInterrupt:
        note("interrupted")
        return 2
    print(json.dumps(asdict(built), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())

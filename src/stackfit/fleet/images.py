"""Which images a fleet has: a list in TOML or JSON, directories that are searched, or images themselves.

    [[image]]
    file = "boot/vmlinuz-6.1.0-56-cloud-amd64"     relative to the list
    name = "web"                       of its report; default: the file's name
    modules = ["lib/modules/6.1.0-56-cloud-amd64"]   directories or files; default: none
    debug = "vmlinux"                  ELF with DWARF of the same build
    traces = ["web.traces"]            recordings of it running
    layouts = ["linux-x86_64"]         default: those of the command line
    assume = ["web.toml"]              over those of the command line

The same as JSON: {"image": [{"file": …}, …]}. In a directory every `vmlinuz*`, `bzImage*` and `vmlinux*` is
an image, but for those below `lib/debug`; its modules are in lib/modules/RELEASE or usr/lib/modules/RELEASE
beside the directory that it is in, where its name ends in -RELEASE, or in its own directory if that is such a
one.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stackfit.image.load import MODULE_SUFFIXES
from stackfit.image.model import InputError
from stackfit.tomlfile import MAX_FILE, Table, read_toml

__all__ = ["ImageInput", "find_images"]

_IMAGE = re.compile(r"(vmlinuz|bzImage|vmlinux)([-.].*)?")
_NO_IMAGE = re.compile(r".*\.(old|bak|sig|asc|sha256|txt|gz\.asc)")
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class ImageInput:
    """Files of one kernel or firmware; `layouts` None: those of the command line."""

    name: str
    image: str
    modules: tuple[str, ...] = ()
    debug: str | None = None
    traces: tuple[str, ...] = ()
    layouts: tuple[str, ...] | None = None
    assume: tuple[str, ...] = ()


def find_images(places: Sequence[str]) -> list[ImageInput]:
    """Images of all places, in their order, those of a directory by path; each with a name of its own.

    InputError: a place is not there or holds no image, a list is wrong, a name comes twice.
    """
    found: list[ImageInput] = []
    for place in places:
        found += _find(place)
    given = {os.path.realpath(one.image): one for one in reversed(found) if not one.name}
    found = [one for one in found if one.name or given[os.path.realpath(one.image)] is one]
    return _named(found)


def _named(found: list[ImageInput]) -> list[ImageInput]:
    """Where the file's name is not enough, the path is the name."""
    names = Counter(one.name or Path(one.image).name for one in found)
    named = [
        one if one.name else replace(one, name=short if names[short] == 1 else one.image)
        for one, short in ((one, Path(one.image).name) for one in found)
    ]
    for name, count in Counter(one.name for one in named).items():
        if count > 1:
            raise InputError(name, "the name of two images")
    return named


def _find(place: str) -> Iterator[ImageInput]:
    path = Path(place)
    if path.suffix in (".toml", ".json"):
        yield from _listed(path)
    elif path.is_dir():
        here = sorted(_search(place))
        if not here:
            raise InputError(place, "no kernel in this directory (vmlinuz*, bzImage*, vmlinux*)")
        yield from map(_kernel, here)
    elif path.exists():
        yield _kernel(place)
    elif _WILD.search(place):
        here = sorted(glob.glob(place, recursive=True))
        if not here:
            raise InputError(place, "nothing there that is so called")
        for one in here:
            yield from _find(one)
    else:
        raise InputError(place, "No such file or directory")


def _search(directory: str) -> Iterator[str]:
    for place, _, names in os.walk(directory):  # no link to a directory is followed: it may lead back
        if f"{os.sep}lib{os.sep}debug" in place:
            continue
        for name in names:
            if _IMAGE.fullmatch(name) and not _NO_IMAGE.fullmatch(name):
                path = os.path.join(place, name)
                if os.path.isfile(path):
                    yield path


def _kernel(image: str) -> ImageInput:
    modules = _modules_of(Path(image))
    return ImageInput("", image, () if modules is None else (str(modules),))


def _modules_of(image: Path) -> Path | None:
    """Where a distribution puts the modules of that kernel; None: not there."""
    places = [image.parent] if image.parent.parent.name == "modules" else []
    _, dash, release = image.name.partition("-")
    if dash and release:
        root = image.parent.parent
        places += [root / "lib" / "modules" / release, root / "usr" / "lib" / "modules" / release]
    return next((place for place in places if place.is_dir() and _holds_modules(place)), None)


def _holds_modules(place: Path) -> bool:
    return any(name.endswith(MODULE_SUFFIXES) for _, _, names in os.walk(place) for name in names)


def _listed(path: Path) -> Iterator[ImageInput]:
    table = Table(str(path), read_toml(path) if path.suffix == ".toml" else _read_json(path))
    base = path.parent
    rows = table.tables("image")
    table.done()
    if not rows:
        raise InputError(str(path), "no [[image]] in this list")
    for row in rows:
        debug = str(base / row.text("debug")) if "debug" in row else None
        layouts = row.texts("layouts") if "layouts" in row else None
        one = ImageInput(
            name=row.text("name") if "name" in row else "",
            image=str(base / row.text("file")),
            modules=tuple(str(base / one) for one in row.texts("modules", ())),
            debug=debug,
            traces=tuple(str(base / one) for one in row.texts("traces", ())),
            layouts=None if layouts is None else tuple(_layout(base, one) for one in layouts),
            assume=tuple(str(base / one) for one in row.texts("assume", ())),
        )
        row.done()
        yield replace(one, name=one.name or Path(one.image).name)


def _layout(base: Path, name: str) -> str:
    """A preset's name as it is, a file relative to the list."""
    return str(base / name) if "/" in name or name.endswith(".toml") else name


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():  # before opening: a pipe would block
            raise InputError(str(path), "not a regular file")
        with path.open("rb") as file:
            raw = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        raise InputError(str(path), getattr(error, "strerror", None) or str(error)) from None
    if len(raw) > MAX_FILE:
        raise InputError(str(path), f"larger than the {MAX_FILE >> 20} MiB that a list may have")
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), f"not JSON: {error}") from None
    if not isinstance(data, dict):
        raise InputError(str(path), 'not a list of images: {"image": [{"file": …}, …]}')
    return data

"""Where a program's images have their debug information: in themselves, or in companions."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from stackfit.image.debug import debug_image
from stackfit.image.lines import SourceLine, SourceLines
from stackfit.image.load import check_same_build, find_modules, load_image
from stackfit.image.locals import FunctionLocals, read_locals
from stackfit.image.model import Image, InputError, Program

__all__ = ["Companions"]


class Companions:
    """Debug information by image, each read when it is first asked for.

    `kernel`: a companion of the first image; None: that may have debug information itself. `modules`: those
    of modules, files or directories that are searched; told by the module's name, refused when they are of
    another build.
    """

    def __init__(self, program: Program, kernel: Image | None, modules: Iterable[str | Path] = ()) -> None:
        self._program = program
        self._kernel = kernel
        self._places = tuple(modules)
        self._known: dict[int, tuple[Image, SourceLines] | None] = {}

    def path(self, image: int) -> str | None:
        """The file that an image's debug information is in, or None."""
        found = self._of(image)
        return None if found is None else found[0].path

    def locals(self, image: int, address: int) -> FunctionLocals | None:
        """Variables of the function that begins at that link address. InputError: damaged."""
        found = self._of(image)
        return None if found is None else read_locals(*found, address)

    def line(self, image: int, address: int) -> SourceLine | None:
        """Where in the source an instruction comes from. InputError: damaged."""
        found = self._of(image)
        return None if found is None else found[1].at(address)

    @cached_property
    def _modules(self) -> dict[str, Path]:
        """Companions by the name of the module, which its file's name tells."""
        return {
            path.name.split(".", 1)[0].replace("-", "_"): path for path in find_modules(self._places)
        }  # `dm-mod.ko` is the module dm_mod

    def _of(self, number: int) -> tuple[Image, SourceLines] | None:
        if number not in self._known:
            image = self._find(number)
            self._known[number] = None if image is None else (image, SourceLines(image))
        return self._known[number]

    def _find(self, number: int) -> Image | None:
        own = self._program.images[number]
        companion = self._kernel if number == 0 else None
        if companion is None and own.module is not None and own.module in self._modules:
            companion = load_image(self._modules[own.module])
            if companion.machine is not own.machine:
                raise InputError(companion.path, f"is for {companion.machine.value}")
            check_same_build(own, companion)
        if companion is not None:
            return debug_image(companion, own)
        return debug_image(own) if own.section(".debug_info") is not None else None

"""Builds the hot modules with Cython where a C compiler is at hand; without one they run as plain Python.

The modules are ordinary ``.py`` files (Cython pure-Python mode), so leaving the build out changes speed only.
STACKFIT_CHECKED=1 builds them with the bounds of every array checked, in the few loops too that leave it out
(scripts/sanitize.sh). STACKFIT_REQUIRE_COMPILED=1: not compiled is an error.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HOT_MODULES = (
    "stackfit.image.dwarf_units",
    "stackfit.isa.x86_decode",
    "stackfit.isa.arm_decode",
    "stackfit.isa.aarch64_decode",
    "stackfit.isa.riscv_decode",
    "stackfit.frames.track",
    "stackfit.calls.flow",
    "stackfit.bounds.longest",
    "stackfit.pages.replay_loop",
    "stackfit.pages.buddy",
    "stackfit.pages.zone",
    "stackfit.pages.reclaim",
    "stackfit.pages.compaction",
    "stackfit.machine.interrupts_loop",
)


class OptionalBuildExt(build_ext):
    """Compiles what can be compiled and says so when nothing can."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:
            self._say(error)

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception as error:
            self._say(error)

    @staticmethod
    def _say(error: Exception) -> None:
        if os.environ.get("STACKFIT_REQUIRE_COMPILED"):  # a wheel that says what it was built for
            raise error
        print(
            f"stackfit: hot modules stay uncompiled ({error}); everything works, about 100 times slower",
            file=sys.stderr,
        )


def checked_sources() -> Path:
    """A copy of the sources in which no check of bounds is left out."""
    place = Path("build/checked")
    shutil.rmtree(place, ignore_errors=True)
    for source in (*Path("src").rglob("*.py"), *Path("src").rglob("*.pxd")):
        target = place / source.relative_to("src")
        target.parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text(encoding="utf-8")
        target.write_text(re.sub(r"boundscheck(\(|=)False", r"boundscheck\1True", text), encoding="utf-8")
    return place


def extensions() -> list[Extension]:
    try:
        from Cython.Build import cythonize
    except ImportError as error:
        OptionalBuildExt._say(error)
        return []
    sources = checked_sources() if os.environ.get("STACKFIT_CHECKED") else Path("src")
    modules = [
        Extension(name, [f"{sources}/{name.replace('.', '/')}.py"], extra_compile_args=["-O2"])
        for name in HOT_MODULES
    ]
    return cythonize(modules, language_level=3, build_dir="build/cython")  # type: ignore[no-any-return]


setup(ext_modules=extensions(), cmdclass={"build_ext": OptionalBuildExt})

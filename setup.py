"""Builds the hot modules with Cython where a C compiler is at hand; without one they run as plain Python.

The modules are ordinary ``.py`` files (Cython pure-Python mode), so leaving the build out changes speed only.
"""

from __future__ import annotations

import sys

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
        print(
            f"stackfit: hot modules stay uncompiled ({error}); everything works, about 100 times slower",
            file=sys.stderr,
        )


def extensions() -> list[Extension]:
    try:
        from Cython.Build import cythonize
    except ImportError as error:
        OptionalBuildExt._say(error)
        return []
    modules = [
        Extension(name, ["src/" + name.replace(".", "/") + ".py"], extra_compile_args=["-O2"])
        for name in HOT_MODULES
    ]
    return cythonize(modules, language_level=3, build_dir="build/cython")  # type: ignore[no-any-return]


setup(ext_modules=extensions(), cmdclass={"build_ext": OptionalBuildExt})

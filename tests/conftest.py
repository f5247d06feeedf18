"""Kernel packages for the tests marked `kernel`, fetched once into the shared cache, and what runs compiled.

Where no package source can be reached the tests that need a kernel are skipped with that reason. With CI=true
anything else that goes wrong fails them: there a kernel that cannot be had is a finding, not an excuse.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest

os.environ["XDG_CACHE_HOME"] = "/dev/null"  # answers kept would test nothing; tests of the cache name another
REPOSITORY = Path(__file__).resolve().parent.parent
HOT_MODULES = (
    "stackfit.isa.x86_decode",
    "stackfit.isa.arm_decode",
    "stackfit.isa.aarch64_decode",
    "stackfit.isa.riscv_decode",
    "stackfit.frames.track",
    "stackfit.calls.flow",
    "stackfit.image.dwarf_units",
    "stackfit.bounds.longest",
    "stackfit.pages.replay_loop",
    "stackfit.pages.buddy",
    "stackfit.pages.zone",
    "stackfit.pages.reclaim",
    "stackfit.pages.compaction",
    "stackfit.machine.interrupts_loop",
)


def load_script(name: str) -> ModuleType:
    """A script of scripts/ as a module."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


fetch_kernel = load_script("fetch_kernel")


@dataclass(frozen=True)
class KernelFiles:
    """An unpacked kernel package: the image, its lib/modules/RELEASE, and what `uname -r` prints."""

    vmlinuz: Path
    modules: Path
    release: str


def fetched(arch: str, pattern: str | None = None, debug: bool = False, may_vanish: bool = False) -> Any:
    """The kernel, or a skip. `may_vanish`: an exact version that its archive drops one day."""
    try:
        return fetch_kernel.fetch(arch, pattern, debug=debug)
    except fetch_kernel.FetchError as error:
        excused = error.offline or (may_vanish and error.unlisted)
        if os.environ.get("CI") == "true" and not excused:
            pytest.fail(f"{arch} kernel: {error}", pytrace=False)
        pytest.skip(f"no {arch} kernel: {error}")
    except OSError as error:
        pytest.skip(f"no {arch} kernel: the cache cannot be written: {error}")


def files(kernel: Any) -> KernelFiles:
    return KernelFiles(Path(kernel.vmlinuz), Path(kernel.modules), kernel.release)


@pytest.fixture(scope="session")
def amd64_kernel() -> KernelFiles:
    """The newest Debian 6.1 cloud kernel for amd64."""
    return files(fetched("amd64"))


@pytest.fixture(scope="session")
def i386_kernel() -> KernelFiles:
    """The newest Debian 6.1 686 kernel for i386."""
    return files(fetched("i386"))


RECORDED = r"linux-image-6\.1\.0-56-cloud-amd64-unsigned"


@pytest.fixture(scope="session")
def amd64_recorded_kernel() -> KernelFiles:
    """The exact kernel that the recordings of a running system were made on."""
    return files(fetched("amd64", RECORDED, may_vanish=True))


@pytest.fixture(scope="session")
def amd64_recorded_vmlinux(amd64_recorded_kernel: KernelFiles) -> Path:
    """Its ELF image with symbols and DWARF."""
    return Path(fetched("amd64", RECORDED, debug=True, may_vanish=True).vmlinux)


@pytest.fixture(scope="session")
def amd64_vmlinux(amd64_kernel: KernelFiles) -> Path:
    """The ELF image with symbols and DWARF of `amd64_kernel`, from its -dbg package."""
    return Path(fetched("amd64", debug=True).vmlinux)


@pytest.fixture(scope="session")
def i386_vmlinux(i386_kernel: KernelFiles) -> Path:
    """The ELF image with symbols and DWARF of `i386_kernel`, from its -dbg package."""
    return Path(fetched("i386", debug=True).vmlinux)


def hot_modules() -> dict[str, str]:
    """Each hot module that exists: "compiled" or "uncompiled"."""
    found = {}
    for name in HOT_MODULES:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            continue
        found[name] = "uncompiled" if str(module.__file__).endswith(".py") else "compiled"
    return found


def pytest_report_header(config: pytest.Config) -> list[str]:
    states = ", ".join(f"{name.removeprefix('stackfit.')} {state}" for name, state in hot_modules().items())
    return [f"hot modules: {states or 'none'}", f"kernel cache: {fetch_kernel.default_cache()}"]


def pytest_configure(config: pytest.Config) -> None:
    # How long an example takes is no test: uncompiled modules on a busy machine are slow.
    hypothesis.settings.register_profile("stackfit", deadline=None)
    hypothesis.settings.load_profile("stackfit")
    # `make test` runs on the compiled and on the uncompiled modules: neither may stand in for the other.
    wanted = os.environ.get("STACKFIT_HOT_MODULES")
    if wanted and (other := [name for name, state in hot_modules().items() if state != wanted]):
        advice = " (install gcc and python3-dev, then: make clean test)" if wanted == "compiled" else ""
        raise pytest.UsageError(f"these modules should be {wanted} and are not: {', '.join(other)}{advice}")

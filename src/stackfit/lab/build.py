"""Kernels of the experiment, built from a distribution's source with patches and configurations of our own.

All variants come from one patched tree and one base configuration; nothing but their switches differs.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import lzma
import os
import re
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

from stackfit.image.model import InputError
from stackfit.lab.processes import running
from stackfit.lab.tools import find_tools

__all__ = ["FRAGMENTS", "VARIANTS", "BuildOptions", "Built", "build_kernel", "default_output", "load_built"]

# Variant → the layout that describes it.
VARIANTS = {"8k": "linux-i386", "4k": "linux-i386-4k", "8k-shared": "linux-i386-shared"}
FRAGMENTS = ("compaction",)  # configurations of ours that --config knows by name
_SOURCE_PACKAGE = "linux-source-6.1"
_ARCHITECTURE = "i386"
_TOOLS = ("make", "gcc", "ld", "flex", "bison", "bc", "patch", "xz")
_FILES = {
    "bzImage": "arch/x86/boot/bzImage",
    "vmlinux": "vmlinux",
    "System.map": "System.map",
    "config": ".config",
}
_MODULES = ("chain.ko", "overflow.ko")
_USAGE = ("object", "file", "line", "column", "function", "bytes", "kind")
_SCHEMA = "stackfit.lab-build/1"

Told = Callable[[str], None]


@dataclass(frozen=True)
class BuildOptions:
    """`source`: a kernel tree; None: the distribution's package. `configs`: files of options, or names of
    ours,
    over the variant's. `output`: a directory that holds sources, builds and kernels."""

    variant: str
    output: Path
    source: Path | None = None
    configs: tuple[str, ...] = ()
    jobs: int = 2


@dataclass(frozen=True)
class Built:
    """A kernel that was built. `seconds`: of make alone, `cpu_seconds`: of the processor (None: not
    counted). `objects`: compiled. `cache`: by way of ccache.
    `patches`: of each file that was applied, its digest."""

    name: str
    variant: str
    configs: tuple[str, ...]
    release: str
    compiler: str
    seconds: float
    cpu_seconds: float | None
    jobs: int
    cache: bool
    objects: int
    patches: Mapping[str, str]
    directory: Path

    @property
    def layout(self) -> str:
        return VARIANTS[self.variant]

    def path(self, name: str) -> Path:
        """A file of the kernel: bzImage, vmlinux, System.map, config, stack-usage.csv.xz, chain.ko,
        overflow.ko."""
        return self.directory / name


def default_output() -> Path:
    """Where builds go unless told: below the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache else Path.home() / ".cache") / "stackfit" / "lab"


def build_kernel(options: BuildOptions, told: Told = lambda text: None) -> Built:
    """Build one variant whole; its files are in OUTPUT/kernels/NAME afterwards.

    InputError: a tool is missing (with what to install), a patch does not fit, an option cannot be set, or
    the
    compiler fails (with the log's name).
    """
    if options.variant not in VARIANTS:
        raise InputError(options.variant, f"no such variant ({', '.join(VARIANTS)})")
    find_tools(_TOOLS)
    output = options.output.absolute()
    configs = [_config(one) for one in options.configs]
    name = "-".join([options.variant, *(stem for stem, _ in configs)])
    _make_directory(output)
    source, patches = _source(options.source, output, told)
    tree = output / "build" / name
    _make_directory(tree)
    make = _Make(source, tree, options.jobs)
    told("configuring")
    _configure(make, [*(_ours(one) for one in ("base", options.variant)), *(text for _, text in configs)])
    started, before = time.monotonic(), _processor()
    make.run(["bzImage", "modules"], "build.log", told)
    seconds, processor = time.monotonic() - started, _processor() - before
    _make_modules(make, told)
    compiler = subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=True).stdout
    usage, objects = _stack_usage(tree)
    built = Built(
        name=name, variant=options.variant, configs=tuple(stem for stem, _ in configs),
        release=(tree / "include/config/kernel.release").read_text("ascii").strip(),
        compiler=compiler.splitlines()[0], seconds=round(seconds, 1),
        cpu_seconds=round(processor, 1), jobs=options.jobs, cache=make.cache,
        objects=objects, patches=patches, directory=output / "kernels" / name,
    )  # fmt: skip
    _collect(built, tree, usage)
    return built


def _processor() -> float:
    """Seconds that ended children have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def load_built(output: Path, name: str) -> Built:
    """A kernel that was built before. InputError: it was not."""
    directory = output.absolute() / "kernels" / name
    path = directory / "kernel.json"
    try:
        data = json.loads(path.read_text("utf-8"))
        data.pop("schema")
        return Built(**{**data, "configs": tuple(data["configs"]), "directory": directory})
    except FileNotFoundError:
        raise InputError(
            str(directory), f"no kernel there: stackfit lab build --variant {name.split('-c')[0]}"
        ) from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(str(path), f"not written by lab build: {str(error)[:200]}") from None


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(str(path), error.strerror or str(error)) from None


def _ours(name: str) -> str:
    return (resources.files("stackfit.lab") / "kernel" / "configs" / f"{name}.config").read_text("utf-8")


def _config(given: str) -> tuple[str, str]:
    """(name, text) of a file of options, or of one of ours."""
    if given in FRAGMENTS:
        return given, _ours(given)
    path = Path(given)
    try:
        return re.sub(r"[^A-Za-z0-9_.]", "_", path.name.removesuffix(".config")), path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "not a text"
        raise InputError(given, f"{cause} (ours: {', '.join(FRAGMENTS)})") from None


# source


def _patches() -> dict[str, bytes]:
    with resources.as_file(resources.files("stackfit.lab") / "kernel" / "patches") as directory:
        return {path.name: path.read_bytes() for path in sorted(directory.glob("*.patch"))}


def _source(given: Path | None, output: Path, told: Told) -> tuple[Path, dict[str, str]]:
    """A patched copy of the tree, made once for each set of patches."""
    patches = _patches()
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in patches.items()}
    if given is not None and not (given / "Kbuild").is_file():
        raise InputError(str(given), "no kernel source: there is no Kbuild in it")
    origin = _SOURCE_PACKAGE if given is None else str(given.resolve())
    key = hashlib.sha256(repr((origin, sorted(digests.items()))).encode()).hexdigest()[:12]
    target = output / "source" / f"{'package' if given is None else given.resolve().name}-{key}"
    if target.is_dir():
        return target, digests
    target.parent.mkdir(exist_ok=True)
    with _whole(target) as new:
        if given is None:
            _unpack_package(new, told)
        else:
            told("copying the source")
            shutil.copytree(
                given, new, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".git")
            )
            _quiet(["make", "-C", str(new), f"ARCH={_ARCHITECTURE}", "mrproper"], str(given))
        told("patching")
        for name, data in patches.items():
            _apply(name, data, new)
    return target, digests


def _unpack_package(new: Path, told: Told) -> None:
    find_tools(("apt-get", "dpkg-deb", "tar"))
    scratch = new.parent / f"{new.name}.package"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        told(f"fetching {_SOURCE_PACKAGE}")
        _quiet(["apt-get", "download", "-q", _SOURCE_PACKAGE], _SOURCE_PACKAGE, scratch)
        package = next(scratch.glob("*.deb"))
        told("unpacking the source")
        _quiet(["dpkg-deb", "-x", str(package), str(scratch)], package.name)
        archive = next(scratch.glob("usr/src/*.tar.xz"))
        _quiet(["tar", "-C", str(new), "--strip-components=1", "-xJf", str(archive)], archive.name)
    except StopIteration:
        raise InputError(_SOURCE_PACKAGE, "the package has another content than expected") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _apply(name: str, data: bytes, tree: Path) -> None:
    done = subprocess.run(
        ["patch", "-p1", "--fuzz=0", "--no-backup-if-mismatch", "-r", "-", "--batch", "--forward"],
        cwd=tree, input=data, capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        said, file = done.stdout.decode("utf-8", "replace"), ""
        for line in said.splitlines():
            if line.startswith("patching file "):
                file = line.removeprefix("patching file ")
            if "FAILED" in line or "can't find" in line or "Reversed" in line:
                raise InputError(name, f"does not fit this source: {file}: {line.strip()}")
        raise InputError(
            name, f"does not fit this source: {said.strip().splitlines()[-1] if said else 'patch failed'}"
        )


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A directory that is there whole or not at all."""
    new = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        yield new
        if target.exists():
            old = target.with_name(f".{target.name}.{os.getpid()}.old")
            target.rename(old)
            shutil.rmtree(old)
        new.rename(target)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _quiet(command: Sequence[str], what: str, directory: Path | None = None) -> None:
    done = subprocess.run(
        command,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        errors="replace",
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise InputError(what, f"{command[0]}: {lines[-1] if lines else f'status {done.returncode}'}")


# configuring and compiling


class _Make:
    """make on one source and one build tree."""

    def __init__(self, source: Path, tree: Path, jobs: int) -> None:
        self.source, self.tree, self.jobs = source, tree, jobs
        self.cache = shutil.which("ccache") is not None
        compiler = "ccache gcc" if self.cache else "gcc"
        self.words = [
            find_tools(("make",))["make"], "-C", str(source), f"O={tree}", f"ARCH={_ARCHITECTURE}",
            f"CC={compiler}", "KCFLAGS=-fstack-usage", "KBUILD_BUILD_USER=stackfit", "KBUILD_BUILD_HOST=lab",
            f"-j{jobs}",
        ]  # fmt: skip

    def run(self, goals: Sequence[str], log: str, told: Told) -> None:
        """InputError names the first error and the log."""
        path, count = self.tree / log, 0
        with (
            path.open("w", encoding="utf-8", errors="replace") as out,
            running(
                [*self.words, *goals],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            ) as process,
        ):
            assert process.stdout is not None
            for raw in process.stdout:
                line = raw.decode("utf-8", "replace")
                out.write(line)
                if line.startswith("  CC"):
                    count += 1
                    told(f"compiling ({count} files): {line.split()[-1]}")
            status = process.wait()
        if status:
            text = path.read_text("utf-8", "replace").splitlines()
            cause = next(
                (line for line in text if re.search(r"\b(fatal )?error:|: No such file", line)),
                text[-1] if text else "",
            )
            raise InputError(str(path), f"make failed: {cause.strip()[:300]}")


def _configure(make: _Make, texts: Sequence[str]) -> None:
    make.run(["allnoconfig"], "config.log", lambda text: None)
    with (make.tree / ".config").open("a", encoding="utf-8") as config:
        config.writelines(text if text.endswith("\n") else text + "\n" for text in texts)
    make.run(["olddefconfig"], "config.log", lambda text: None)
    wanted: dict[str, str] = {}
    for text in texts:
        wanted |= dict(re.findall(r"^(CONFIG_\w+)=(.*)$", text, re.M))
        wanted |= dict.fromkeys(re.findall(r"^# (CONFIG_\w+) is not set$", text, re.M), "n")
    found = dict(re.findall(r"^(CONFIG_\w+)=(.*)$", (make.tree / ".config").read_text("utf-8"), re.M))
    for option, value in wanted.items():
        if found.get(option, "n") != value:
            cause = f"{option}={value} cannot be set in this source (it became {found.get(option, 'n')})"
            raise InputError(str(make.source), cause)


def _make_modules(make: _Make, told: Told) -> None:
    """Our test modules, against the kernel just built."""
    target = make.tree / "stackfit"
    target.mkdir(exist_ok=True)
    with resources.as_file(resources.files("stackfit.lab") / "kernel" / "modules") as directory:
        for path in directory.glob("*.c"):
            shutil.copy(path, target)
    names = " ".join(name.replace(".ko", ".o") for name in _MODULES)
    (target / "Kbuild").write_text(f"obj-m := {names}\n", "utf-8")
    make.run([f"M={target}", "modules"], "modules.log", told)


def _stack_usage(tree: Path) -> tuple[bytes, int]:
    """Every .su file of the build as one table, and how many there were."""
    out, files = io.StringIO(), sorted(tree.rglob("*.su"))
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_USAGE)
    for path in files:
        for line in path.read_text("utf-8", "replace").splitlines():
            place, size, kind = line.split("\t")
            file, row, column, function = place.rsplit(":", 3)
            file = file.removeprefix(str(tree) + "/")
            writer.writerow(
                (path.relative_to(tree).with_suffix(".o"), file, row, column, function, size, kind)
            )
    return lzma.compress(out.getvalue().encode("utf-8")), len(files)


def _collect(built: Built, tree: Path, usage: bytes) -> None:
    """The kernel's files in their place, whole or not at all."""
    built.directory.parent.mkdir(exist_ok=True)
    with _whole(built.directory) as new:
        for name, path in _FILES.items():
            shutil.copy(tree / path, new / name)
        for name in _MODULES:
            shutil.copy(tree / "stackfit" / name, new / name)
        (new / "stack-usage.csv.xz").write_bytes(usage)
        (new / "kernel.json").write_text(json.dumps(built_json(built), indent=1) + "\n", "utf-8")


def built_json(built: Built) -> dict[str, object]:
    data = asdict(built)
    del data["directory"]
    return {"schema": _SCHEMA, **data, "configs": list(built.configs)}

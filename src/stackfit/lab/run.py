"""One run of a lab machine: from a kernel and its modules to a recording."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from stackfit.image.load import load_image
from stackfit.image.model import Image, InputError
from stackfit.lab.capture import Sent, read_sent, recording_of
from stackfit.lab.initramfs import build_initramfs
from stackfit.lab.modules import load_order, module_files
from stackfit.lab.qemu import MachineOptions, run_machine
from stackfit.lab.tools import compile_static, find_busybox
from stackfit.measure.core import open_dump
from stackfit.measure.debugged import dump_marks
from stackfit.measure.model import Mark, Recording

__all__ = ["STEPS", "record"]

# guest.c has the same.
STEPS = {
    "development": (
        "processes", "threads", "files", "shell_files", "pipes", "signals", "memory", "read_proc", "read_sys",
        "everyday",
    ),
    "judgement": (
        "tcp", "udp", "unix_sockets", "netlink", "polling", "mounts", "futexes", "timers", "splicing",
        "direct_io", "reclaim", "swapping", "compressed_swap", "sysctls", "tracing_others", "attributes",
        "keys", "ipc", "spaces", "terminals", "unusual_memory", "scheduling", "watching", "ciphers",
        "programs",
    ),
}  # fmt: skip
# What makes addresses and frames those of the image: no random base, no random offset in system calls,
# indirect calls through thunks as compiled.
_WORDS = (
    "console=ttyS0 quiet panic=-1 loglevel=4 nokaslr randomize_kstack_offset=off spectre_v2=retpoline,generic"
)


def record(
    kernel: Path,
    modules: Sequence[str | Path],
    steps: Sequence[str],
    options: MachineOptions,
    *,
    stacks: bool = True,
    edges: bool = False,
    seconds: int = 0,
    busybox: Path | None = None,
    load: Sequence[str] = (),
    keep: Path | None = None,
    marks: bool = False,
    debug: Path | None = None,
    told: Callable[[str], None] = lambda text: None,
) -> Recording:
    """Boot, run the steps (names or groups; none: only the boot), return what was recorded.

    `seconds`: begin further rounds for so long while call edges are recorded. `load`: further modules.
    `keep`: a directory where console and raw output stay. `marks`: then boot again, run the steps without any
    tracer, and take the marks of all stacks from the memory; `debug`: by name, from that debug information.
    Raises InputError.
    """
    known = {*STEPS, *(name for group in STEPS.values() for name in group)}
    for step in steps:
        if step not in known:
            raise InputError(step, f"no such workload ({', '.join(sorted(known - set(STEPS)))})")
    image = load_image(kernel)
    available = module_files(modules)
    order = load_order(available, load)
    with _directory(keep) as directory:
        told("compiling the guest's program")
        init = directory / "init"
        with resources.as_file(resources.files("stackfit.lab") / "guest" / "guest.c") as source:
            compile_static(source, init, image.machine)
        initramfs = directory / "initramfs.gz"
        shell = busybox or find_busybox(image.machine)
        if shell is None:
            told(
                f"no static busybox for {image.machine.value}: workloads do without a shell (--busybox FILE)"
            )
        initramfs.write_bytes(build_initramfs(init, shell, order))
        common = [_WORDS, f"stackfit.steps={','.join(steps) or 'none'}"]
        sent = Sent()
        if stacks or edges:
            words = [*common]
            if stacks:
                words += ["stacktrace", "stackfit.stacks=1"]
            if edges:
                words += ["stackfit.edges=1", f"stackfit.seconds={seconds}"]
            line = " ".join([*words, options.words]).strip()
            told("booting")
            data = run_machine(image.machine, kernel, initramfs, line, directory, options, told)
            sent = read_sent(str(kernel), data.decode("utf-8", "replace"))
        found: tuple[Mark, ...] = ()
        if marks:
            line = " ".join([*common, "stackfit.marks=1", options.words]).strip()
            core = directory / "core"
            told("booting without tracers")
            try:
                run_machine(image.machine, kernel, initramfs, line, directory, options, told, core)
                found = _marks(core, image, debug, told)
            except InputError as error:
                if not (stacks or edges):
                    raise
                told(f"no marks: {error}")  # what the first boot recorded is kept
            if keep is None:
                core.unlink(missing_ok=True)
        loaded = {name for _, _, name, _ in sent.loads}
        files = [path for name, path in available.items() if name in loaded]
        images = [image, *(load_image(path) for path in files)]
        return replace(recording_of(f"lab {kernel.name}", sent, images), marks=found)


def _marks(core: Path, image: Image, debug: Path | None, told: Callable[[str], None]) -> tuple[Mark, ...]:
    dump = open_dump(core)
    companion = None if debug is None else load_image(debug)
    if companion is not None and find_spec("drgn") is None:
        told("no drgn: marks without names (pip install 'stackfit[measure]')")
        return dump_marks(dump, companion).marks
    return dump_marks(dump, companion or image, companion).marks


@contextlib.contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        try:
            keep.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(str(keep), error.strerror or str(error)) from None
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="stackfit-lab-") as name:
        yield Path(name)

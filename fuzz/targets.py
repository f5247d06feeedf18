"""What reads bytes from outside, each as a function of a file.

A target returns, whatever it likes, or raises InputError; anything else that it raises is a finding, and so
are too much time and memory (fuzz/worker.py has the limits).
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fuzz.mutate import Form, bzimage, pack
from stackfit.assumptions import load_assumptions
from stackfit.cache.store import open_store
from stackfit.cli.config import load_config
from stackfit.cli.main import main
from stackfit.frames.usage import read_usage
from stackfit.image.attributes import read_arm_attributes
from stackfit.image.btf import join_types, parse_btf, read_btf
from stackfit.image.cfi import read_cfi
from stackfit.image.debug import debug_image
from stackfit.image.dwarf import read_dwarf
from stackfit.image.lines import SourceLines
from stackfit.image.link import link
from stackfit.image.load import load_image
from stackfit.image.locals import read_locals
from stackfit.image.model import Image, InputError, Machine, Program
from stackfit.image.orc import read_orc
from stackfit.image.pointers import code_pointers
from stackfit.image.tables import read_tables
from stackfit.isa import reduced, x86
from stackfit.isa.code import decode_program
from stackfit.isa.constants import CODE, COMPACT, DATA, THUMB
from stackfit.isa.regions import Regions
from stackfit.lab.build import load_built
from stackfit.layouts import load_layout
from stackfit.machine.costs import load_costs
from stackfit.machine.scenario import load_scenario
from stackfit.measure.core import open_dump
from stackfit.measure.dump import stack_marks
from stackfit.measure.files import read_recording
from stackfit.pages.era import load_era
from stackfit.pages.free import read_free_memory
from stackfit.pages.procfs import (
    block_orders,
    buddy_pages,
    parse_buddyinfo,
    parse_counters,
    parse_kpageflags,
    parse_pagetypeinfo,
    parse_zoneinfo,
    read_text,
)
from stackfit.pages.trace import read_trace, write_csv
from stackfit.store.diff import diff
from stackfit.store.read import read_database

__all__ = ["TARGETS", "Target"]

Wrap = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Target:
    """`name`: of the corpus directory, too. `suffix`: of the file's name, which some formats are told by.
    `wrap`: what a changed input is packed into, sometimes or (`always`) every time."""

    name: str
    form: Form
    run: Callable[[Path], object]
    suffix: str = ""
    wrap: Wrap | None = None
    always: bool = False


def _each(*readers: Callable[[], object]) -> None:
    """All of them, each of which may refuse the input."""
    for reader in readers:
        with contextlib.suppress(InputError):
            reader()


# ---------------------------------------------------------------- images


def _program(image: Image) -> Program:
    return link([image])


def _tables(path: Path) -> None:
    program = _program(load_image(path))
    _each(lambda: read_tables(program), lambda: code_pointers(program), lambda: read_orc(program.images[0]))


def _btf(path: Path) -> None:
    rows = parse_btf(str(path), path.read_bytes())
    types, _ = join_types(rows)
    assert len(types.functions) >= 0 and types.resolved.size >= 0
    for one in range(min(len(types), 200)):
        types.name(one), types.plain(one), [types.part_name(row) for row in types.parts(one)]


def _orc(path: Path) -> None:
    image = _program(load_image(path)).images[0]
    table = read_orc(image)
    if table is not None:
        table.depth_at(np.array([0, 0x1000, 0xFFFFFFFF81000010, (1 << 64) - 1], np.uint64))


def _cfi(path: Path) -> None:
    image = load_image(path)
    with contextlib.suppress(InputError):
        image = _program(image).images[0]
    table = read_cfi(image)
    if table is not None:
        places = np.array([0, 0x1000, 0x401000, (1 << 64) - 1], np.uint64)
        table.depth_at(places), table.frame_pointer_at(places)


def _dwarf(path: Path) -> None:
    image = debug_image(_program(load_image(path)).images[0])
    found = read_dwarf(image)
    with contextlib.suppress(InputError):
        read_btf(image)
    if found is not None:
        types, _ = join_types(found.types)
        assert types.resolved.size >= 0


def _source(path: Path) -> None:
    """Line tables, variables and where they are, of some functions."""
    image = debug_image(_program(load_image(path)).images[0])
    lines = SourceLines(image)
    symbols = image.symbols.records
    entries = [int(at) for at in symbols["address"][symbols["type"] == 2].tolist()[:6]] or [0, 0x1000]
    for entry in entries:
        _each(
            lambda entry=entry: lines.at(entry),  # type: ignore[misc]
            lambda entry=entry: lines.at(entry + 5),  # type: ignore[misc]
            lambda entry=entry: read_locals(image, lines, entry),  # type: ignore[misc]
        )


def _image(path: Path) -> None:
    image = load_image(path)
    _each(lambda: read_arm_attributes(image), lambda: _program(image))


def _code(path: Path) -> None:
    decode_program(_program(load_image(path)))


def _decode_x86(bits64: bool) -> Callable[[Path], object]:
    def run(path: Path) -> object:
        code = np.frombuffer(path.read_bytes(), np.uint8)
        return x86.decode(code, bits64, np.arange(0, code.size, 97, dtype=np.uint32))

    return run


def _decode_reduced(machine: Machine, kinds: Iterable[int]) -> Callable[[Path], object]:
    def run(path: Path) -> None:
        code = np.frombuffer(path.read_bytes(), np.uint8)
        step = 4 if machine in (Machine.AARCH64,) else 2
        start = np.arange(0, max(code.size, 1), 31 * step, dtype=np.uint32)
        chosen = list(kinds)
        kind = np.array([chosen[at % len(chosen)] for at in range(start.size)], np.uint8)
        for shift in (0, 0x8000):
            reduced.decode(code, machine, Regions(start, kind, np.full(start.size, shift, np.int64)))

    return run


# ---------------------------------------------------------------- commands


def command(*words: str) -> tuple[int, str]:
    """A command of stackfit, its output thrown away: status, and what it says of an error."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        status = main([*words, "--no-cache"])
    if status not in (0, 1, 2) or (status == 2 and not said.getvalue().startswith("stackfit: ")):
        raise AssertionError(f"status {status}: {said.getvalue()[:300]!r}")
    if "not enough memory" in said.getvalue():
        raise MemoryError
    if status == 2 and said.getvalue().count("\n") != 1:
        raise AssertionError(f"an error of several lines: {said.getvalue()[:300]!r}")
    return status, said.getvalue()


def _check(path: Path) -> str:
    """A whole check with every report."""
    out = path.parent / "reports"
    out.mkdir(exist_ok=True)
    reports = ["--json", f"{out}/j", "--sarif", f"{out}/s", "--db", f"{out}/d"]
    if sum(path.read_bytes()) % 8 == 0:  # the scripts in it take longer than all else
        reports += ["--html", f"{out}/h"]
    for report in out.iterdir():
        report.unlink()
    status, said = command("check", "--no-config", str(path), *reports)
    return f"{status} {said}"


def _tables_of(path: Path) -> str:
    said = ""
    for name in ("frames", "calls", "contexts"):
        status, said = command(name, str(path))
        if status == 2:
            break
    return said


def _explain(path: Path) -> str:
    """The worst chain with its variables, of a function by its name and of one that there may be."""
    return "".join(
        command("explain", str(path), name)[1] for name in ("queue_run", "structs", "0xffffffff81000100")
    )


# ---------------------------------------------------------------- text


def _procfs(path: Path) -> None:
    name = str(path)
    text = read_text(path)
    _each(
        lambda: parse_buddyinfo(name, text),
        lambda: parse_pagetypeinfo(name, text),
        lambda: parse_zoneinfo(name, text),
        lambda: parse_counters(name, text),
    )


def _capture(path: Path) -> None:
    """A file of each kind, all read together."""
    directory = path.parent / "capture"
    directory.mkdir(exist_ok=True)
    data = path.read_bytes()
    for number, name in enumerate(("buddyinfo", "pagetypeinfo", "zoneinfo")):
        parts = data.split(b"\n@@\n")
        (directory / name).write_bytes(parts[number % len(parts)])
    read_free_memory([directory])


def _flags(path: Path) -> None:
    flags = parse_kpageflags(str(path), path.read_bytes())
    free = buddy_pages(flags)
    block_orders(free, np.zeros(len(free), np.int16), 11)


def _trace(path: Path) -> None:
    trace = read_trace(path)
    again = path.with_suffix(".again")
    again.write_text(write_csv(trace))
    if not np.array_equal(read_trace(again).events, trace.events):
        raise AssertionError("written as CSV and read again, the events are others")


def _core(path: Path) -> None:
    stack_marks(open_dump(path))


def _built(path: Path) -> None:
    directory = path.parent / "kernels" / "x"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "kernel.json").write_bytes(path.read_bytes())
    load_built(path.parent, "x")


def _database(path: Path) -> None:
    found = read_database(path)
    diff(found, found)


def _answer(path: Path) -> None:
    """An entry of the cache of answers: it is whole, or not there."""
    store = open_store(path.parent / "cache")
    store.clear()
    store.save("00ff", ANSWER)
    ((place, _, _),) = store.entries()
    place.write_bytes(path.read_bytes())
    found = store.load("00ff")
    if found is not None and found != ANSWER:
        raise AssertionError("a damaged entry is taken for an answer")


ANSWER = {"answer": b"{}" * 100, "report": bytes(range(256))}


def _census(path: Path) -> None:
    """A host's file, as a fleet's census reads it."""
    from stackfit.fleet.hosts import find_hosts, read_host

    for file in find_hosts([str(path)]):
        read_host(file)


def _there(module: str) -> bool:
    with contextlib.suppress(ImportError):
        return importlib.util.find_spec(module) is not None
    return False


TARGETS = {
    target.name: target
    for target in (
        Target("elf", Form.ELF, _image, ".ko", pack),
        Target("vmlinuz", Form.ELF, _image, "", bzimage, True),
        Target("kallsyms", Form.ELF, _image),
        Target("tables", Form.ELF, _tables),
        Target("btf", Form.BYTES, _btf),
        Target("orc", Form.ELF, _orc),
        Target("cfi", Form.ELF, _cfi),
        Target("dwarf", Form.ELF, _dwarf),
        Target("source", Form.ELF, _source),
        Target("code", Form.ELF, _code),
        Target("check", Form.ELF, _check),
        Target("lists", Form.ELF, _tables_of),
        Target("explain", Form.ELF, _explain),
        Target("x86_64", Form.BYTES, _decode_x86(True)),
        Target("i386", Form.BYTES, _decode_x86(False)),
        Target("arm", Form.BYTES, _decode_reduced(Machine.ARM, (CODE, THUMB, DATA))),
        Target("aarch64", Form.BYTES, _decode_reduced(Machine.AARCH64, (CODE, DATA))),
        Target("riscv32", Form.BYTES, _decode_reduced(Machine.RISCV32, (CODE, COMPACT, DATA))),
        Target("riscv64", Form.BYTES, _decode_reduced(Machine.RISCV64, (CODE, COMPACT, DATA))),
        Target("recording", Form.TEXT, read_recording, "", pack),
        Target("traces", Form.JSON, read_recording, "", pack),
        Target("events", Form.TEXT, _trace, "", pack),
        Target("procfs", Form.TEXT, _procfs, "", pack),
        Target("capture", Form.TEXT, _capture),
        Target("kpageflags", Form.BYTES, _flags, "", pack),
        Target("core", Form.BYTES, _core),
        Target("layout", Form.TEXT, lambda path: load_layout(str(path)), ".toml"),
        Target("assumptions", Form.TEXT, lambda path: load_assumptions(str(path)), ".toml"),
        Target("scenario", Form.TEXT, lambda path: load_scenario(str(path)), ".toml"),
        Target("costs", Form.TEXT, lambda path: load_costs(str(path)), ".toml"),
        Target("era", Form.TEXT, lambda path: load_era(str(path)), ".toml"),
        Target("project", Form.TEXT, load_config, ".toml"),
        Target("usage", Form.TEXT, read_usage, ".csv"),
        Target("built", Form.JSON, _built, ".json"),
        Target("database", Form.SQLITE, _database, ".db"),
        Target("cache", Form.BYTES, _answer),
        Target("census", Form.BYTES, _census, ".parquet"),
        Target("census-text", Form.TEXT, _census, ".csv"),
    )
    if not target.name.startswith("census") or (_there("stackfit.fleet.hosts") and _there("pyarrow"))
}

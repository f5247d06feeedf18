"""Layouts from TOML: the presets that ship with stackfit and files of the user's own (docs/layouts.md)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stackfit.image.model import InputError, Machine
from stackfit.layouts.model import (
    ALLOCATIONS,
    CONTEXT_KINDS,
    INTERRUPT_CONTEXTS,
    INTERRUPTED,
    PAGE,
    SCOPES,
    Declared,
    Handler,
    Interrupt,
    Layout,
    PriorityForm,
    Stack,
    TaskStack,
)
from stackfit.tomlfile import Table, find, hint, names_in, quoted, read_toml

__all__ = ["default_layout", "load_layout", "preset_names", "read_declared"]

PRESETS = Path(__file__).parent / "presets"
MAX_STACKS = 256
MAX_SIZE = 1 << 30  # bytes of one stack
MAX_NESTING = 1_000
NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}", re.ASCII)
NUMBERS = ("size", "reserve_base", "reserve_top", "mapped", "reserve_per_cpu")
DEFAULTS = {
    Machine.I386: "linux-i386",
    Machine.X86_64: "linux-x86_64",
    Machine.ARM: "cortex-m",
    Machine.AARCH64: "bare-metal",
    Machine.RISCV32: "bare-metal",
    Machine.RISCV64: "bare-metal",
}

KERNELS = {
    Machine.ARM: "linux-arm",
    Machine.AARCH64: "linux-arm64",
    Machine.RISCV64: "linux-riscv64",
}


def preset_names() -> tuple[str, ...]:
    """Names of the layouts that ship with stackfit, sorted."""
    return names_in(PRESETS)


def default_layout(machine: Machine, kernel: bool = False) -> str:
    """The preset for an image when none is named: today's Linux on x86 and for a `kernel`, else firmware."""
    return KERNELS.get(machine, DEFAULTS[machine]) if kernel else DEFAULTS[machine]


def load_layout(name_or_path: str | Path) -> Layout:
    """The preset of that name, else the file at that path.

    InputError: no such preset or file, not TOML, or a key that is unknown, missing or wrong.
    """
    path = find(name_or_path, PRESETS, "a layout preset")
    return _layout(Table(str(path), _extended(path, read_toml(path))), str(path))


def _extended(path: Path, own: dict[str, Any]) -> dict[str, Any]:
    """`own` put over the preset that its `extends` names; itself when it extends nothing.

    Stacks merge key by key, interrupts by kind; where `own` states a number, the preset's source for it goes.
    """
    if "extends" not in own:
        return own
    names = preset_names()
    base_name = Table(str(path), own).choice("extends", names)
    base = read_toml(PRESETS / f"{base_name}.toml")
    if "extends" in base:
        raise InputError(str(path), f"extends: {quoted(base_name)} itself extends another layout")
    merged = {**base, **{key: value for key, value in own.items() if key != "extends"}}
    merged.setdefault("interrupt", base.get("interrupt", []))
    if isinstance(own.get("stack"), dict):
        stacks = dict(base["stack"])
        for name, stack in own["stack"].items():
            stacks[name] = _overlay(stacks[name], stack) if name in stacks else stack
        merged["stack"] = stacks
    lines = own.get("interrupt")
    if isinstance(lines, list) and all(isinstance(line, dict) for line in lines):
        kinds = [line.get("kind") for line in lines]
        merged["interrupt"] = [line for line in base["interrupt"] if line["kind"] not in kinds] + lines
    if isinstance(own.get("assumptions"), list):
        merged["assumptions"] = base.get("assumptions", []) + own["assumptions"]
    return merged


def _overlay(base: dict[str, Any], own: Any) -> Any:
    if not isinstance(own, dict):
        return own
    merged = {**base, **own}
    sources = {key: text for key, text in base.get("source", {}).items() if key not in own}
    if isinstance(own.get("nests"), dict):
        merged["nests"] = {**base.get("nests", {}), **own["nests"]}
        kept = base.get("source", {}).get("nests", {})
        sources["nests"] = {kind: text for kind, text in kept.items() if kind not in own["nests"]}
    if isinstance(own.get("source", {}), dict):
        stated = own.get("source", {})
        if isinstance(stated.get("nests"), dict):
            stated = {**stated, "nests": {**sources.get("nests", {}), **stated["nests"]}}
        merged["source"] = {**sources, **stated}
    return merged


def _layout(top: Table, path: str) -> Layout:
    name = _name(top, "name", top.text("name"))
    machine = Machine(top.choice("machine", [m.value for m in Machine])) if "machine" in top else None
    description, source = top.text("description", ""), top.text("source", "")
    assumptions = top.texts("assumptions", ())
    stack_tables, interrupt_tables = top.table("stack"), top.tables("interrupt")
    declared = read_declared(top, path)
    top.done()  # before the tables: a misspelt [stak.x] is not a missing stack x
    if stack_tables is None or not stack_tables.keys():
        raise top.error("stack", "missing (a layout has at least one [stack.NAME])")
    if len(stack_tables.keys()) > MAX_STACKS:
        raise top.error("stack", f"more than {MAX_STACKS} stacks")
    stacks = []
    for key in stack_tables.keys():  # noqa: SIM118 - a Table is not a mapping
        if _name(stack_tables, key, key) == INTERRUPTED:
            raise stack_tables.error(key, "the name is reserved for the stack that an interrupt hits")
        table = stack_tables.table(key)
        assert table is not None
        stacks.append(_stack(table, key, machine.word if machine else 4))
    names = [stack.name for stack in stacks]
    layout = Layout(
        name=name,
        description=description,
        machine=machine,
        source=source,
        stacks=tuple(stacks),
        interrupts=tuple(_interrupt(table, names) for table in interrupt_tables),
        assumptions=assumptions,
        path=path,
        handlers=declared.handlers,
        tasks=declared.tasks,
        priorities=declared.priorities,
    )
    _check_whole(layout, top)
    return layout


def read_declared(top: Table, path: str) -> Declared:
    """`[[isr]]`, `[[task]]` and the form of priorities, of a layout or of a project's file."""
    group = top.integer("priority-group", 0, 7) if "priority-group" in top else None
    bits = top.integer("priority-bits", 1, 8) if "priority-bits" in top else None
    handlers = [_handler(table) for table in top.tables("isr")]
    stated: dict[str, int] = {}
    for number, one in enumerate(handlers, 1):
        if stated.setdefault(one.name, one.priority) != one.priority:
            cause = f"{quoted(one.name)} already has priority {stated[one.name]}"
            raise top.error(f"isr #{number}.priority", cause)
    return Declared(
        tuple(handlers),
        tuple(_task(table) for table in top.tables("task")),
        PriorityForm(group, bits),
        path,
    )


def _handler(table: Table) -> Handler:
    handler = Handler(table.text("name"), table.integer("priority", -3, 255))
    table.done()
    return handler


def _task(table: Table) -> TaskStack:
    entry = table.text("entry")
    saved = table.integer("saved", 0, MAX_SIZE) if "saved" in table else None
    task = TaskStack(table.text("name", entry), entry, table.integer("size", 1, MAX_SIZE), saved)
    table.done()
    return task


def _name(table: Table, key: str, name: str) -> str:
    if not NAME.fullmatch(name):
        raise table.error(key, f"{quoted(name)} is not a name (a-z first, then a-z 0-9 _ . -, at most 64)")
    return name


def _stack(table: Table, name: str, word: int) -> Stack:
    allocation = table.choice("allocation", ALLOCATIONS)
    size = table.integer("size", 1, MAX_SIZE)
    reserve_base = table.integer("reserve_base", 0, MAX_SIZE, 0)
    reserve_top = table.integer("reserve_top", 0, MAX_SIZE, 0)
    for key, value in (("size", size), ("reserve_base", reserve_base), ("reserve_top", reserve_top)):
        if value % word:
            raise table.error(key, f"{value} is not a multiple of the {word}-byte word")
    if reserve_base + reserve_top >= size:
        raise table.error(
            "size", f"the reserves ({reserve_base} + {reserve_top} bytes) leave nothing of {size}"
        )
    mapped = reserve_per_cpu = None
    if allocation == "dynamic":
        mapped = table.integer("mapped", 1, size)
        reserve_per_cpu = table.integer("reserve_per_cpu", 0, MAX_SIZE)
        for key, value in (("size", size), ("mapped", mapped), ("reserve_per_cpu", reserve_per_cpu)):
            if value % PAGE:
                raise table.error(
                    key, f"{value} is not a multiple of the {PAGE}-byte page that a stack grows by"
                )
    else:
        for key in ("mapped", "reserve_per_cpu"):
            if key in table:
                raise table.error(key, f"only a dynamic stack has it, and the allocation is {allocation}")
    stack = Stack(
        name=name,
        per=table.choice("per", SCOPES),
        size=size,
        allocation=allocation,
        reserve_base=reserve_base,
        reserve_top=reserve_top,
        runs=_contexts(table, "runs"),
        entry=_contexts(table, "entry"),
        nests=_nests(table),
        mapped=mapped,
        reserve_per_cpu=reserve_per_cpu,
        unit=table.integer("unit", 1, MAX_SIZE, PAGE),
        sources=_sources(table),
    )
    table.done()
    return stack


def _contexts(table: Table, key: str) -> tuple[str, ...]:
    kinds = table.texts(key, ())
    for kind in kinds:
        _context(table, key, kind)
    for kind, times in Counter(kinds).items():
        if times > 1:
            raise table.error(key, f"{quoted(kind)} is there {times} times")
    return kinds


def _context(table: Table, key: str, kind: str) -> None:
    if kind not in CONTEXT_KINDS:
        known = ", ".join(CONTEXT_KINDS)
        raise table.error(key, f"{quoted(kind)} is no context kind ({known}){hint(kind, CONTEXT_KINDS)}")


def _nests(table: Table) -> dict[str, int]:
    nests = table.table("nests")
    if nests is None:
        return {}
    counts = {}
    for kind in nests.keys():  # noqa: SIM118 - a Table is not a mapping
        _context(nests, kind, kind)
        counts[kind] = nests.integer(kind, 0, MAX_NESTING)
    return counts


def _sources(table: Table) -> dict[str, str]:
    """`[stack.NAME.source]`, flat: `nests.hardirq = "…"` becomes the key "nests.hardirq"."""
    source = table.table("source")
    if source is None:
        return {}
    sources = {key: source.text(key) for key in NUMBERS if key in source}
    nests = source.table("nests")
    if nests is not None:
        for kind in nests.keys():  # noqa: SIM118 - a Table is not a mapping
            _context(nests, kind, kind)
            sources[f"nests.{kind}"] = nests.text(kind)
    source.done()
    for key in sources:
        stated = table.table("nests") if key.startswith("nests.") else table
        if stated is None or key.removeprefix("nests.") not in stated:
            raise source.error(key, "a source for a number that the stack does not state")
    return sources


def _interrupt(table: Table, stacks: Iterable[str]) -> Interrupt:
    targets = [*stacks, INTERRUPTED]
    interrupt = Interrupt(
        kind=table.choice("kind", INTERRUPT_CONTEXTS),
        from_kernel=table.choice("from_kernel", targets),
        from_user=table.choice("from_user", targets),
        source=table.text("source", ""),
    )
    table.done()
    return interrupt


def _check_whole(layout: Layout, top: Table) -> None:
    """What only shows across tables: one home per context kind, one line per interrupt, no unused stack."""
    homes: dict[str, str] = {}
    for stack in layout.stacks:
        for kind in stack.runs:
            if kind in homes:
                raise top.error(
                    f"stack.{stack.name}.runs", f"{quoted(kind)} already runs on {quoted(homes[kind])}"
                )
            homes[kind] = stack.name
    seen: dict[str, int] = {}
    for number, line in enumerate(layout.interrupts, 1):
        if line.kind in seen:
            raise top.error(
                f"interrupt #{number}.kind", f"{quoted(line.kind)} is already interrupt #{seen[line.kind]}"
            )
        seen[line.kind] = number
    for stack in layout.stacks:
        if not layout.starts(stack.name) and not stack.entry:
            raise top.error(
                f"stack.{stack.name}", "nothing runs on it: name contexts in runs or entry, or an interrupt"
            )

"""A diff for people, on a terminal and as Markdown for a pull request, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from stackfit.report.markdown import markdown_text, table_text
from stackfit.report.terminal import line, print_table
from stackfit.store.model import ChainStep, Diff, FunctionChange, ModuleChange, Need, NeedChange, Snapshot
from stackfit.text import bytes_text, clean, number_text, size_text

__all__ = ["diff_json", "diff_markdown", "print_diff"]

Json = dict[str, Any]
KERNEL = "(kernel)"
_STEPS = 3  # of a chain, in a table
_ORDER = ("unbounded", "grew", "appeared", "split", "bounded", "shrank", "vanished", "joined", "changed")


@dataclass(frozen=True)
class _Table:
    """`left`: rows that are not shown."""

    title: str
    columns: tuple[tuple[str, str], ...]
    rows: list[list[str]]
    left: int


def print_diff(console: Console, found: Diff, top: int) -> None:
    """`top`: rows of each table; 0: all."""
    for text in _head(found):
        line(console, text)
    for text in found.notes:
        line(console, f"note: {text}", "yellow")
    line(console, "")
    tables = _tables(found, top)
    if not tables:
        line(console, "nothing that takes stack changed")
    for table in tables:
        print_table(console, table.title, list(table.columns), table.rows)
        if table.left:
            line(console, f"  … {number_text(table.left)} more (--top 0; --json has them)")
            line(console, "")


def diff_markdown(found: Diff, top: int) -> str:
    """Sections with tables, the stacks' in view and the others to open."""
    parts = ["## Stack depth", "", *(f"- {markdown_text(text)}" for text in _head(found))]
    parts += [f"- note: {markdown_text(text)}" for text in found.notes] + [""]
    tables = _tables(found, top)
    if not tables:
        parts += ["Nothing that takes stack changed.", ""]
    for number, table in enumerate(tables):
        body = table_text(table.columns, table.rows)
        more = [f"… {number_text(table.left)} more", ""] if table.left else []
        if number == 0 and found.stacks:
            parts += [f"**{table.title}**", "", body, *more]
        else:
            parts += ["<details>", f"<summary>{table.title}</summary>", "", body, *more, "</details>", ""]
    return "\n".join(parts)


def _head(found: Diff) -> list[str]:
    return [f"{name}: {_side(side)}" for name, side in (("old", found.old), ("new", found.new))]


def _side(side: Snapshot) -> str:
    release = f", Linux {side.release}" if side.release else ""
    build = side.images[0][1]
    modules = len(side.images) - 1
    return (
        f"{side.path}{release}, {number_text(len(side.functions))} functions,"
        f" {number_text(modules)} module{'' if modules == 1 else 's'}"
        + (f", build-id {build[:12]}…" if build else "")
    )


# ---------------------------------------------------------------- tables


def _tables(found: Diff, top: int) -> list[_Table]:
    tables = []
    if found.stacks:
        tables.append(_cut("stacks", _STACK_COLUMNS, found.stacks, _stack_row, 0))
    if found.contexts:
        counts = _counts(one.change for one in found.contexts)
        tables.append(_cut(f"contexts: {counts}", _CONTEXT_COLUMNS, found.contexts, _context_row, top))
    for title, changes in (
        ("frames that grew", ("unbounded", "grew")),
        ("functions that appeared", ("appeared", "split")),
        ("frames that shrank", ("bounded", "shrank")),
        ("functions that vanished", ("vanished", "joined")),
    ):
        chosen = [one for one in found.functions if one.change in changes]
        chosen.sort(key=lambda one: (one.change not in ("unbounded", "bounded"), -abs(one.growth)))
        if chosen:
            title = f"{title}: {number_text(len(chosen))}"
            tables.append(_cut(title, _FUNCTION_COLUMNS, chosen, _function_row, top))
    if found.open:
        more = sum(max(one.new - one.old, 0) for one in found.open)
        fewer = sum(max(one.old - one.new, 0) for one in found.open)
        title = f"open call sites: {number_text(more)} more, {number_text(fewer)} fewer"
        rows = [
            [one.name, one.module or KERNEL, _change(one.old, one.new, number_text), one.reason]
            for one in found.open
        ]
        tables.append(_cut(title, _OPEN_COLUMNS, rows, list, top))
    if len(found.modules) > 1 or any(one.module for one in found.modules):
        title = f"by module: {number_text(len(found.modules))} changed"
        tables.append(_cut(title, _MODULE_COLUMNS, found.modules, _module_row, top))
    return tables


def _cut(
    title: str,
    columns: tuple[tuple[str, str], ...],
    rows: Sequence[Any],
    row: Callable[[Any], list[str]],
    top: int,
) -> _Table:
    shown = rows[:top] if top else rows
    return _Table(title, columns, [row(one) for one in shown], len(rows) - len(shown))


def _counts(changes: Iterable[str]) -> str:
    counts = Counter(changes)
    return ", ".join(f"{number_text(counts[one])} {one}" for one in _ORDER if counts[one])


_NEED_COLUMNS = (("found", "right"), ("direct", "right"), ("bound", "right"), ("open", "right"))
_STACK_COLUMNS = (
    ("layout", "left"),
    ("stack", "left"),
    ("size", "right"),
    *_NEED_COLUMNS,
    ("verdict", "left"),
)
_CONTEXT_COLUMNS = (("context", "left"), ("stack", "left"), *_NEED_COLUMNS, ("on the deepest chain", "left"))
_FUNCTION_COLUMNS = (
    ("function", "left"),
    ("module", "left"),
    ("frame", "right"),
    ("bytes", "right"),
    ("", "left"),
)
_OPEN_COLUMNS = (("function", "left"), ("module", "left"), ("sites", "right"), ("because", "left"))
_MODULE_COLUMNS = (
    ("module", "left"), ("functions", "right"), ("new", "right"), ("gone", "right"), ("grew", "right"),
    ("bytes", "right"), ("shrank", "right"), ("bytes", "right"), ("open", "right"), ("grew most", "left"),
)  # fmt: skip


def _stack_row(one: NeedChange) -> list[str]:
    verdicts = [need.verdict or "" for need in (one.old, one.new) if need is not None]
    sizes = [None if need is None else need.size for need in (one.old, one.new)]
    verdict = verdicts[0] if len(set(verdicts)) == 1 and len(verdicts) == 2 else " → ".join(verdicts)
    if one.change in ("appeared", "vanished"):
        verdict = f"{one.change}: {verdict}"
    size = sizes[1] if sizes[1] is not None else sizes[0]
    changed = f"{size_text(sizes[0])} → " if sizes[0] and sizes[1] and sizes[0] != sizes[1] else ""
    return [*one.key, f"{changed}{size_text(size or 0)}", *_rungs(one), verdict]


def _context_row(one: NeedChange) -> list[str]:
    kind, name, abi, stack, _ = one.key
    title = f"{kind} {name}" + (f" ({abi})" if abi else "")
    shown = one.change if one.change in ("appeared", "vanished") else _steps_text(one.steps)
    return [title, stack, *_rungs(one), shown]


def _rungs(one: NeedChange) -> list[str]:
    before, after = (None if need is None else need.ladder for need in (one.old, one.new))
    texts = []
    for rung in ("found", "direct", "bound"):
        values = [None if side is None else getattr(side, rung) for side in (before, after)]
        texts.append(_change(values[0], values[1], _bytes))
    opened = [None if side is None else side.open for side in (before, after)]
    return [*texts, _change(opened[0], opened[1], number_text)]


def _bytes(value: int) -> str:
    return number_text(value)


def _change(old: int | None, new: int | None, text: Callable[[int], str]) -> str:
    """`1 000 → 1 200 (+200)`; one number where nothing changed; `—` where there is none."""
    if old == new:
        return "—" if old is None else text(old)
    shown = " → ".join("—" if value is None else text(value) for value in (old, new))
    return shown if old is None or new is None else f"{shown} ({_signed(new - old)})"


def _signed(value: int) -> str:
    return f"{'+' if value > 0 else '−'}{number_text(abs(value))}"  # noqa: RUF001


def _steps_text(steps: Sequence[ChainStep]) -> str:
    """The functions whose share grew or shrank most."""
    most = sorted(steps, key=lambda one: -abs(one.growth))[:_STEPS]
    more = len(steps) - len(most)
    texts = [f"{step.name} {_signed(step.growth)}" for step in most]
    return ", ".join(texts) + (f", {number_text(more)} more" if more else "")


def _function_row(one: FunctionChange) -> list[str]:
    frames = (one.old, one.new)
    if one.change in ("appeared", "split"):
        text, size = _frame(one.new), ""
    elif one.change in ("vanished", "joined"):
        text, size = _frame(one.old), ""
    else:
        text = " → ".join(_frame(value) for value in frames)
        size = _signed(one.growth) if None not in frames else ""
    return [one.name, one.module or KERNEL, text, size, _how(one)]


def _frame(value: int | None) -> str:
    return "open" if value is None else bytes_text(value)


def _how(one: FunctionChange) -> str:
    texts = []
    if one.of is not None:
        texts.append(f"{'split from' if one.change == 'split' else 'joined into'} {one.of}")
    if one.beside:
        more = f" and {number_text(len(one.beside) - 1)} more" if len(one.beside) > 1 else ""
        verb = "calls" if one.change in ("appeared", "split") else "called"
        name, grew = one.beside[0]
        texts.append(f"{name}, which {verb} it: {_signed(grew)}{more}")
    if one.old_name is not None and one.old_name != one.name:
        texts.append(f"was {one.old_name}" + (" (the same code)" if one.how == "code" else ""))
    if one.how == "moved":
        texts.append(f"was in {one.old_module or KERNEL}")
    if one.how == "order":
        texts.append("one of several with that name, matched by order")
    return ", ".join(texts)


def _module_row(one: ModuleChange) -> list[str]:
    most = one.largest
    return [
        one.module or KERNEL,
        _change(*one.functions, number_text),
        number_text(one.appeared),
        number_text(one.vanished),
        number_text(one.grew),
        _signed(one.growth) if one.growth else "0",
        number_text(one.shrank),
        _signed(-one.shrinkage) if one.shrinkage else "0",
        _change(*one.open, number_text),
        "" if most is None else f"{most.name} {most.old} → {most.new}",
    ]


# ---------------------------------------------------------------- JSON


def diff_json(found: Diff, failed: Sequence[FunctionChange | NeedChange] | None = None) -> Json:
    """`failed`: what grew by more than --fail-on allows; None: nothing was asked."""
    return {
        "schema": "stackfit.diff/1",
        "old": _side_json(found.old),
        "new": _side_json(found.new),
        "notes": list(found.notes),
        "stacks": [
            {"layout": one.key[0], "name": one.key[1], **_need_json(one), "size": _pair(one, _size),
             "verdict": _pair(one, _verdict)}
            for one in found.stacks
        ],
        "contexts": [
            {"kind": one.key[0], "name": one.key[1], "abi": one.key[2] or None, "stack": one.key[3] or None,
             **_need_json(one)}
            for one in found.contexts
        ],
        "functions": [_function_json(one) for one in found.functions],
        "renamed": [_function_json(one) for one in found.renamed],
        "open": [
            {"function": one.name, "module": one.module, "reason": one.reason, "old": one.old, "new": one.new}
            for one in found.open
        ],
        "modules": [
            {
                "name": one.module,
                "functions": {"old": one.functions[0], "new": one.functions[1]},
                "appeared": one.appeared,
                "vanished": one.vanished,
                "grew": one.grew,
                "growth": one.growth,
                "shrank": one.shrank,
                "shrinkage": one.shrinkage,
                "largest": None if one.largest is None else _function_json(one.largest),
                "open": {"old": one.open[0], "new": one.open[1]},
            }
            for one in found.modules
        ],
        "failed": None if failed is None else len(failed),
    }  # fmt: skip


def _side_json(side: Snapshot) -> Json:
    return {
        "path": clean(side.path),
        "stackfit": side.about.get("stackfit"),
        "machine": side.about.get("machine"),
        "release": side.release,
        "build_id": side.images[0][1],
        "functions": len(side.functions),
        "modules": len(side.images) - 1,
    }


def _need_json(one: NeedChange) -> Json:
    sides = {"old": one.old, "new": one.new}
    return {
        "change": one.change,
        "growth": one.growth,
        **{
            name: None
            if need is None
            else {
                "found": need.ladder.found,
                "direct": need.ladder.direct,
                "bound": need.ladder.bound,
                "open": need.ladder.open,
            }
            for name, need in sides.items()
        },
        "chain": [
            {
                "function": step.name,
                "module": step.module,
                "old": {"bytes": step.old, "frames": step.old_times},
                "new": {"bytes": step.new, "frames": step.new_times},
            }
            for step in one.steps
        ],
    }


def _pair(one: NeedChange, value: Callable[[Need], Any]) -> Json:
    return {
        name: None if need is None else value(need) for name, need in (("old", one.old), ("new", one.new))
    }


def _size(need: Need) -> int | None:
    return need.size


def _verdict(need: Need) -> str | None:
    return need.verdict


def _function_json(one: FunctionChange) -> Json:
    return {
        "change": one.change,
        "name": one.name,
        "module": one.module,
        "old_name": one.old_name,
        "old_module": one.old_module,
        "old": one.old,
        "new": one.new,
        "growth": one.growth,
        "matched": one.how,
        "of": one.of,
        "beside": [{"function": name, "growth": grew} for name, grew in one.beside],
    }

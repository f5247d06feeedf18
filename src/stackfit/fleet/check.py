"""`check` of many images: each one's report, and all their verdicts in one table.

What was found of an image is kept under the content of everything that it rests on (stackfit.cache): an image
that has not changed is analysed once, wherever it lies.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import zstandard

from stackfit.analysis import Analysis, analyse
from stackfit.cache.key import Key, signature
from stackfit.cache.store import Store
from stackfit.calls.paravirt import Hypervisor
from stackfit.calls.resolve import Indirect
from stackfit.fleet.images import ImageInput
from stackfit.fleet.run import Progress, Workers, run_all
from stackfit.image.load import find_modules, load_image
from stackfit.image.model import InputError
from stackfit.layouts import load_layout, preset_names
from stackfit.report.gate import gate_json
from stackfit.report.json import check_json, dumps
from stackfit.verdict.model import ContextVerdict, StackNeed, Verdict

__all__ = ["Checked", "FleetCheck", "Settings", "check_fleet"]

Json = dict[str, Any]
_MEMORY = 4 << 30  # bytes: a kernel with all modules of a distribution takes 2 to 3 GB
_MOST_BAD = 16  # modules that cannot be read, before the image is given up


@dataclass(frozen=True)
class Settings:
    """Of every image's analysis, as `analyse` takes them."""

    layouts: tuple[str, ...] = ()
    assume: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    hops: int | None = None
    indirect: str = Indirect.TYPED.value
    hypervisor: str = Hypervisor.NONE.value


@dataclass(frozen=True)
class Checked:
    """What the table has of one image. `bad`: modules that were left out, and why. `kept`: it was known
    already."""

    input: ImageInput
    image: Json  # as in stackfit.check/1
    modules: int
    stacks: tuple[Json, ...]
    contexts: tuple[Json, ...]
    bad: tuple[tuple[str, str], ...]
    kept: bool


@dataclass(frozen=True)
class FleetCheck:
    """In the order of the images given. `skipped`: (image, why)."""

    images: tuple[Checked, ...]
    skipped: tuple[tuple[ImageInput, str], ...]


@dataclass(frozen=True)
class _Task:
    input: ImageInput
    settings: Settings
    store: Store | None
    report: bool  # wanted


@dataclass(frozen=True)
class _Found:
    checked: Checked
    report: bytes | None  # JSON, packed


def check_fleet(
    images: Sequence[ImageInput],
    settings: Settings,
    store: Store | None,
    workers: Workers,
    progress: Progress,
    write: Callable[[int, bytes], None] | None = None,
) -> FleetCheck:
    """Check every image; `write` gets each one's number and report, as it is done.

    InputError: not one image could be checked, or the workers cannot be had.
    """
    for name in settings.layouts:
        load_layout(name)
    tasks = [_Task(one, settings, store, write is not None) for one in images]
    found: dict[int, Checked] = {}
    errors: dict[int, str] = {}
    for outcome in run_all(_check, tasks, workers, progress, _MEMORY):
        if outcome.value is None:
            errors[outcome.index] = outcome.error or ""
            continue
        found[outcome.index] = outcome.value.checked
        if write is not None and outcome.value.report is not None:
            write(outcome.index, zstandard.decompress(outcome.value.report))
    if not found:
        raise InputError(images[0].name, f"{errors[0]} (and none of {len(images)} images can be checked)")
    return FleetCheck(
        tuple(one for _, one in sorted(found.items())),
        tuple((images[index], error) for index, error in sorted(errors.items())),
    )


def _check(task: _Task) -> _Found:
    """On a worker: the answer that is kept, or a new one."""
    one = task.input
    modules = [str(path) for path in find_modules(one.modules)]
    texts = [name for name in (*_layouts(task), *task.settings.assume, *one.assume) if os.path.exists(name)]
    read = [one.image, *modules, *([one.debug] if one.debug else []), *one.traces, *texts]
    before = signature(read)  # before the key, which takes seconds: what changes meanwhile is not kept
    key = None if task.store is None else _key(task, modules)
    if task.store is not None and key is not None:
        parts = task.store.load(key)
        answer = None if parts is None else _again(parts, one.image, modules)
        if answer is not None:
            return _found(task, *answer, kept=True)
    report, table = _analyse(task, modules)
    if task.store is not None and key is not None and signature(read) == before:
        task.store.save(key, {"report": report, "table": json.dumps(table).encode()})
    return _found(task, report, table, kept=False)


def _found(task: _Task, report: bytes, table: Json, kept: bool) -> _Found:
    checked = Checked(
        task.input,
        table["image"],
        len(table["modules"]),
        tuple(table["stacks"]),
        tuple(table["contexts"]),
        tuple((path, cause) for path, cause in table["bad"]),
        kept,
    )
    return _Found(checked, zstandard.compress(report) if task.report else None)


def _key(task: _Task, modules: list[str]) -> str:
    """Over what is in the files, not where the image and its modules are; but a module that does not say its
    name has its file's, as assumptions have, and reports name recordings by their paths."""
    one, settings = task.input, task.settings
    layouts, assume = _layouts(task), (*settings.assume, *one.assume)
    key = Key("fleet check")
    key.add_files("image", [one.image])
    key.add_files("modules", modules)
    key.add("names", [os.path.basename(path) for path in (one.image, *modules)])
    key.add("paths", [one.debug, *one.traces, *assume])
    key.add_files("debug", [] if one.debug is None else [one.debug])
    key.add_files("traces", one.traces)
    key.add("layouts", layouts)
    key.add_files("layout files", [name for name in layouts if name not in preset_names()])
    key.add_files("assume files", [name for name in assume if os.path.exists(name)])
    key.add("options", [settings.without, settings.hops, settings.indirect, settings.hypervisor])
    return key.text


def _layouts(task: _Task) -> tuple[str, ...]:
    return task.settings.layouts if task.input.layouts is None else task.input.layouts


def _again(parts: dict[str, bytes], image: str, modules: list[str]) -> tuple[bytes, Json] | None:
    """A kept answer with the paths of today. None: its texts may name those of then, which are others."""
    report, table = parts["report"], json.loads(parts["table"])
    if [table["image"]["path"], *table["given"]] == [image, *modules]:
        return report, table
    document = json.loads(report)
    if document["warnings"] or document["recorded"] or table["bad"]:
        return None
    document["image"]["path"] = table["image"]["path"] = image
    for row, path in zip(document["modules"], modules, strict=True):
        row["path"] = path
    return dumps(document).encode(), {**table, "modules": modules, "given": modules}


def _analyse(task: _Task, modules: list[str]) -> tuple[bytes, Json]:
    one, settings = task.input, task.settings
    layouts = _fitting(_layouts(task), one.image)
    bad: list[tuple[str, str]] = []
    used = list(modules)
    while True:
        try:
            analysis = analyse(
                [one.image],
                used,
                layouts,
                (*settings.assume, *one.assume),
                settings.hops,
                one.debug,
                indirect=Indirect(settings.indirect),
                without=settings.without,
                hypervisor=Hypervisor(settings.hypervisor),
                traces=one.traces,
            )
            break
        except InputError as error:
            if error.path not in used or len(bad) == _MOST_BAD or _readable(error.path):
                raise
            used.remove(error.path)
            bad.append((error.path, str(error)))
    document = check_json(analysis, gate=gate_json(None, (), (), None, ()))
    table = {
        "image": document["image"],
        "given": modules,
        "modules": used,
        "stacks": _stack_rows(analysis),
        "contexts": _context_rows(analysis),
        "bad": bad,
    }
    return dumps(document).encode(), table


def _readable(module: str) -> bool:
    """Whether it is the module alone that the analysis cannot go on with."""
    try:
        load_image(module)
    except InputError:
        return False
    return True


def _fitting(layouts: Sequence[str], image: str) -> list[str]:
    """Those of the image's machine; a fleet has several. InputError: there are layouts, but none for it."""
    machines = {name: load_layout(name).machine for name in layouts}
    if not any(machines.values()):
        return list(layouts)
    machine = load_image(image).machine
    fitting = [name for name in layouts if machines[name] in (None, machine)]
    if not fitting:
        raise InputError(image, f"none of the layouts given is for {machine.value}")
    return fitting


def _evidence(bound: int | None, opened: int, assumed: int) -> str:
    """What a bound rests on."""
    if opened or bound is None:
        return "open"
    return "assumed" if assumed else "proved"


def _stack_rows(analysis: Analysis) -> list[Json]:
    return [
        {
            "layout": layout.layout.name,
            "stack": need.stack.name,
            "size": need.stack.size,
            "hypothetical": need.hypothetical,
            "measured": need.measured,
            "direct": need.direct,
            "found": need.found,
            "bound": need.bound,
            "verdict": need.verdict.value,
            "why": need.why,
            "evidence": _stack_evidence(need),
            "open": need.open.total,
            "assumed": len(need.assumed),
            "contexts": need.fitting.contexts,
        }
        for layout in analysis.verdicts
        for need in layout.stacks
        if need.verdict is not Verdict.NOT_ANALYSED or need.stack.runs
    ]


def _stack_evidence(need: StackNeed) -> str:
    return _evidence(need.bound, need.open.total, len(need.assumed))


def _context_rows(analysis: Analysis) -> list[Json]:
    return [
        _context_row(layout.name, one)
        for layout in analysis.layouts
        for one in analysis.composer.context_verdicts(layout)
    ]


def _context_row(layout: str, one: ContextVerdict) -> Json:
    return {
        "layout": layout,
        "context": one.context.title,
        "kind": one.context.kind,
        "stack": one.stack.name,
        "size": one.stack.size,
        "hypothetical": one.hypothetical,
        "measured": one.measured,
        "direct": one.direct,
        "bound": one.bound,
        "verdict": one.verdict.value,
        "evidence": _evidence(one.bound, one.open.total, one.assumed),
        "open": one.open.total,
        "assumed": one.assumed,
    }

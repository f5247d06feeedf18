"""The HTML report of one analysis: verdicts, worst chains, contexts, frames, and what all of it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from stackfit.analysis import Analysis
from stackfit.calls.model import Evidence
from stackfit.measure.model import Seen
from stackfit.report.html_model import Block, Cell, Column, Figure, Grid, Page, Prose, Records, Section
from stackfit.report.json import frames_json
from stackfit.report.rows import ChainRow, bound_rows, chain_rows, composed_rows, module_of
from stackfit.report.terminal import direct_text, smallest_size
from stackfit.report.through import THROUGH_COLUMNS, through_row
from stackfit.report.traces import coverage_json
from stackfit.text import bytes_text, number_text, range_text, size_text
from stackfit.verdict.model import ContextNeed, LayoutVerdict, StackNeed, Verdict
from stackfit.verdict.through import Through

__all__ = ["Analysed", "analysed", "check_page", "kernel_facts"]

Json = dict[str, Any]
TONES = {
    Verdict.EXCEEDS: "bad",
    Verdict.MAY_EXCEED: "bad",
    Verdict.UNKNOWN: "doubt",
    Verdict.FITS_IF: "good",
    Verdict.FITS: "good",
    Verdict.NOT_ANALYSED: "faint",
}
_VERDICT_COLUMNS = (
    ("layout", "short"), ("stack", "short"), ("size", "right"), ("measured", "right"), ("composed", "right"),
    ("direct", "right"), ("bound", "right"), ("headroom", "right"), ("fits to hops", "right"),
    ("smallest at direct", "right"), ("verdict", "short"), ("because", "left"),
)  # fmt: skip


_FOLDED_ABOVE = 40  # rows of a list of assumptions


@dataclass(frozen=True)
class Analysed:
    """Sections of an analysis, and the data that their figures share."""

    sections: tuple[Section, ...]
    data: Json


def check_page(analysis: Analysis, through: Through | None = None) -> Page:
    """The report of `check`; with `through` what was found of a module or function comes first."""
    kernel = analysis.program.images[0]
    found = analysed(analysis)
    first = [] if through is None else [_through(analysis, through)]
    release = f"Linux {kernel.release}" if kernel.release else analysis.program.path
    return Page("Stack check", release, kernel_facts(analysis), (*first, *found.sections), found.data)


def kernel_facts(analysis: Analysis) -> tuple[tuple[str, str], ...]:
    """What was analysed."""
    kernel = analysis.program.images[0]
    facts = [
        ("image", analysis.program.path),
        ("machine", kernel.machine.value),
        ("build-id", kernel.build_id or "none"),
        (
            "modules",
            number_text(len(analysis.program.images) - 1)
            if len(analysis.program.images) > 1
            else "none given",
        ),
        ("functions", number_text(len(analysis.code.functions))),
        ("layouts", ", ".join(layout.name for layout in analysis.layouts)),
        (
            "indirect calls on a chain",
            "unlimited" if analysis.hop_limit is None else f"at most {analysis.hop_limit}",
        ),
    ]
    facts += [
        (
            f"depths held against {one.name}",
            f"{number_text(one.equal)} of {number_text(one.defined)} call sites equal",
        )
        for one in analysis.witnesses
    ]
    return tuple(facts)


def analysed(analysis: Analysis) -> Analysed:
    """Everything that the report of an analysis shows, for `check` and `compare`."""
    verdicts = tuple(_verdicts(analysis))  # before chains of every context are looked for, which moves bounds
    tables = _Tables(analysis)
    contexts = tables.contexts()
    frames = tables.frames()
    sections = [
        Section("verdicts", "Does it fit?", verdicts),
        Section("chains", "Worst chains", (_icicle(), *_parts(analysis))),
        Section("contexts", "Contexts", (_ranks(), contexts)),
        Section("frames", "Frames", (frames,)),
        Section("evidence", "What it rests on", tuple(_evidence(analysis))),
    ]
    if analysis.recordings:
        sections.append(
            Section("recordings", "What was seen running", tuple(_recorded(analysis, tables.first)))
        )
    return Analysed(tuple(sections), tables.data())


def _through(analysis: Analysis, result: Through) -> Section:
    own = result.own
    texts = [
        f"{number_text(result.functions)} functions. Adds at most {range_text(own.found, own.upper, False)}"
        f" below the call into it, {bytes_text(result.own_frames)} of the chain in its own frames; open items"
        " below it aside. room: what everything above the call may take for it to fit."
    ]
    if not result.callers:
        texts.append(
            "No known call from outside leads into it: it is called through pointers, how deep the kernel is"
            " then is open."
        )
    stacks = tuple(tuple(through_row(analysis, one)) for one in result.stacks)
    frames = tuple(
        (
            Cell(row.function, "code"),
            Cell(row.module or "", "code"),
            number_text(row.depth),
            number_text(row.total),
            row.kind + ("" if row.evidence == Evidence.PROVED.label else f" ({row.evidence})"),
        )
        for row in bound_rows(analysis, own, 0)
    )
    columns = (
        ("function", "short"), ("module", "short"), ("bytes", "right"), ("total", "right"),
        ("then by", "short"),
    )  # fmt: skip
    return Section(
        "through",
        f"Through {result.subject}",
        (
            Prose(tuple(texts)),
            Grid("The worst known chain through it", THROUGH_COLUMNS, stacks),
            Grid("What it adds", columns, frames),
        ),
    )


# ---------------------------------------------------------------- verdicts


def _verdicts(analysis: Analysis) -> Iterable[Block]:
    if analysis.warnings:
        yield Prose(tuple(f"Warning: {text}" for text in analysis.warnings), "warning")
    shown = [
        (layout, need)
        for layout in analysis.verdicts
        for need in layout.stacks
        if need.verdict is not Verdict.NOT_ANALYSED
    ]
    rows = tuple(_verdict_row(layout, need) for layout, need in shown)
    yield Grid("Verdict of each stack", _VERDICT_COLUMNS, rows)
    notes = [
        "direct: no chain of direct calls needs more; where two numbers stand, the deepest chain put together"
        " and the bound that none exceeds. bound: with indirect calls as well. ≥: open items hide below, a"
        " lower limit."
    ]
    if any(layout.hypothetical for layout in analysis.verdicts):
        notes.append(
            "* hypothetical: the kernel switches stacks where this layout has none: a plain call here."
        )
    skipped = _not_analysed(analysis)
    if skipped:
        notes.append(f"Not analysed (entry code only, or no handler in this kernel): {skipped}.")
    yield Prose(tuple(notes), "note")
    stacks = [_stack_ladder(layout, need) for layout, need in shown]
    if stacks:
        yield Figure(
            "ladder",
            "The ladder of each stack",
            "ladders",
            {"stacks": stacks},
            "For each stack its size, and what it needs: measured, composed, direct and bound, on a"
            " logarithmic scale. The table above has the numbers.",
        )


def _not_analysed(analysis: Analysis) -> str:
    """Stacks by name, with their layouts where it is not all of them."""
    layouts: dict[str, list[str]] = {}
    for layout in analysis.verdicts:
        for need in layout.stacks:
            if need.verdict is Verdict.NOT_ANALYSED:
                layouts.setdefault(need.stack.name, []).append(layout.layout.name)
    every = len(analysis.verdicts)
    return ", ".join(
        name if len(found) == every else f"{name} ({', '.join(found)})" for name, found in layouts.items()
    )


def _verdict_row(layout: LayoutVerdict, need: StackNeed) -> tuple[str | Cell, ...]:
    bound = "none" if need.bound is None else bytes_text(need.bound, need.lower_bound)
    smallest = smallest_size(need, need.direct)
    return (
        layout.layout.name + (" *" if need.hypothetical else ""),
        need.stack.name,
        Cell(size_text(need.stack.size), hint=_allocation(need)),
        Cell(bytes_text(need.measured), hint=need.measured_by),
        bytes_text(need.composed),
        direct_text(need),
        bound,
        bytes_text(need.headroom),
        "—" if need.fits_hops is None else str(need.fits_hops),
        "—" if smallest is None else size_text(smallest),
        Cell(need.verdict.value, TONES[need.verdict]),
        need.why,
    )


def _allocation(need: StackNeed) -> str:
    stack = need.stack
    how = stack.allocation if stack.order is None else f"{stack.allocation}, order {stack.order}"
    return f"one per {stack.per}, {how}; {bytes_text(stack.reserved)} reserved"


def _stack_ladder(layout: LayoutVerdict, need: StackNeed) -> Json:
    return {
        "name": f"{layout.layout.name} {need.stack.name}",
        "size": need.stack.size,
        "measured": need.measured,
        "composed": need.composed,
        "found": need.found,
        "direct": need.direct,
        "bound": need.bound,
    }


# ---------------------------------------------------------------- chains


def _icicle() -> Figure:
    return Figure(
        "icicle",
        "Deepest direct chains, from the stack's top down",
        "icicle",
        {},
        "Each column is the deepest chain of one context, each block a frame as high as its bytes; frames"
        " shared by neighbouring columns are one block. Lines show the sizes of stacks. The table of contexts"
        " and the chains that it opens hold the same data.",
        "A block is a frame, as high as its bytes at the call below it. Reserves, and what nests on top, are"
        " not in it: see the parts of each need below. Click a block for the frame.",
    )


def _parts(analysis: Analysis) -> Iterable[Block]:
    rows: list[tuple[str | Cell, ...]] = []
    groups = []
    for layout in analysis.verdicts:
        for need in layout.stacks:
            if need.verdict is Verdict.NOT_ANALYSED or not need.parts:
                continue
            groups.append(len(rows))
            rows.append((f"{layout.layout.name} · {need.stack.name}: {direct_text(need)}",))
            for part in need.parts:
                rows.append(
                    (
                        part.name,
                        range_text(part.found, part.bytes, False),
                        number_text(part.times),
                        range_text(part.found * part.times, part.total, False),
                        Cell(part.source, "faint"),
                    )
                )
    columns = (
        ("part", "left"),
        ("bytes", "right"),
        ("times", "right"),
        ("in all", "right"),
        ("source", "left"),
    )
    if rows:
        yield Grid("Parts of each need at direct", columns, tuple(rows), frozenset(groups))


# ---------------------------------------------------------------- contexts and frames


@dataclass
class _Tables:
    """The two large tables and the chains between them. `row_of`: function → row of the table of frames."""

    analysis: Analysis
    pool: dict[tuple[int, ...], int] = field(default_factory=dict)
    hows: dict[tuple[str, str, str], int] = field(default_factory=dict)
    needs: list[tuple[str, ContextNeed]] = field(default_factory=list)
    row_of: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        functions = self.analysis.code.functions
        own = (i for i in range(len(functions)) if functions.parent[i] < 0 and not functions.piece[i])
        self.row_of = {function: row for row, function in enumerate(own)}
        for layout in self.analysis.layouts:
            needs = self.analysis.composer.context_needs(layout, chains=True)
            self.needs += [(layout.name, need) for need in needs]
        self.chains = [self._chain(chain_rows(self.analysis, need, need.chain)) for _, need in self.needs]
        self.composed = [self._chain(composed_rows(self.analysis, need)) for _, need in self.needs]

    @property
    def first(self) -> list[ContextNeed]:
        """The contexts under the first layout."""
        name = self.analysis.layouts[0].name
        return [need for layout, need in self.needs if layout == name]

    def _chain(self, rows: Sequence[ChainRow]) -> int:
        """Its number in the pool; -1 for none. Flat: row of the function, bytes, how the next is reached."""
        if not rows:
            return -1
        flat: list[int] = []
        for row in rows:
            how = self.hows.setdefault((row.kind, row.rung, row.evidence), len(self.hows))
            flat += (self.row_of.get(row.index, -1), row.depth, how)
        return self.pool.setdefault(tuple(flat), len(self.pool))

    def contexts(self) -> Records:
        needs = [need for _, need in self.needs]
        floor = [bool(need.open) for need in needs]
        columns = (
            Column("layout", "layout", "choice", [layout for layout, _ in self.needs], 14),
            Column("kind", "kind", "choice", [need.context.kind for need in needs], 9),
            Column("name", "context", "code", [_name(need) for need in needs], 28),
            Column("stack", "stack", "choice", [need.stack or "—" for need in needs], 9),
            Column("measured", "measured", "bytes", [need.measured for need in needs], 9),
            Column("composed", "composed", "bytes", [need.composed for need in needs], 9),
            Column(
                "found", "chain found", "bytes", [need.found for need in needs], 11,
                "deepest direct chain put together", floor,
            ),
            Column(
                "direct", "direct", "bytes", [need.direct for need in needs], 10,
                "no direct chain is deeper", floor,
            ),
            Column(
                "bound", "bound", "bytes", [need.bound for need in needs], 10,
                "with indirect calls; —: no finite bound", floor,
            ),
            Column("open", "open items", "number", [need.open.total for need in needs], 10),
        )  # fmt: skip
        only = {"layout": self.analysis.layouts[0].name}
        return Records("contexts", "Contexts", columns, "direct", "context", only, "contexts")

    def frames(self) -> Records:
        rows = frames_json(self.analysis)["functions"]
        passes = [0] * len(rows)
        members = [{flat[at] for at in range(0, len(flat), 3)} - {-1} for flat in self.pool]
        name = self.analysis.layouts[0].name
        for (layout, _), chain in zip(self.needs, self.chains, strict=True):
            if layout == name and chain >= 0:
                for row in members[chain]:
                    passes[row] += 1
        columns = (
            Column("name", "function", "code", [row["name"] for row in rows], 34),
            Column(
                "module", "module", "text", [row["module"] or "" for row in rows], 14,
                "none: the kernel itself",
            ),
            Column(
                "frame", "frame", "bytes", [row["frame"] for row in rows], 9,
                "greatest depth in its own code, return address included; —: not bounded",
            ),
            Column(
                "compiler", "compiler", "bytes", [row["compiler_frame"] for row in rows], 9,
                "without inline assembly's pushes: gcc's .su",
            ),
            Column("kind", "frame is", "choice", [row["dynamic"] or "static" for row in rows], 9),
            Column(
                "recursive", "recursive", "choice", ["yes" if row["recursive"] else "no" for row in rows], 9
            ),
            Column(
                "contexts", "contexts", "number", passes, 9, "contexts whose deepest direct chain passes it"
            ),
            Column("size", "code", "bytes", [row["size"] for row in rows], 8),
            Column("address", "address", "address", [row["address"] for row in rows], 18),
            Column("aliases", "aliases", "hidden", [" ".join(row["aliases"]) for row in rows]),
        )  # fmt: skip
        return Records("frames", "Frames", columns, "frame", "frame", {}, "functions")

    def data(self) -> Json:
        """What details and charts need beside the tables."""
        stacks = [
            {
                "layout": layout.layout.name,
                "name": need.stack.name,
                "size": need.stack.size,
                "usable": need.stack.usable,
                "chain": self._chain(chain_rows(self.analysis, need.worst, need.chain)),
            }
            for layout in self.analysis.verdicts
            for need in layout.stacks
        ]
        reasons = sorted({reason for _, need in self.needs for reason, _ in need.open.counts})
        number = {reason: index for index, reason in enumerate(reasons)}
        return {
            "stacks": stacks,
            "chains": [list(flat) for flat in self.pool],
            "hows": [list(how) for how in self.hows],
            "reasons": reasons,
            "contexts": {
                "chain": self.chains,
                "composed": self.composed,
                "hops": [list(need.hops) for _, need in self.needs],
                "entry": [self._entry(need) for _, need in self.needs],
                "open": [
                    [[number[reason], count] for reason, count in need.open.counts] for _, need in self.needs
                ],
            },
        }

    def _entry(self, need: ContextNeed) -> int:
        return -1 if need.start is None else self.row_of.get(need.start.entry, -1)


def _name(need: ContextNeed) -> str:
    return need.context.name + (f" ({need.context.abi})" if need.context.abi else "")


def _ranks() -> Figure:
    return Figure(
        "ranks",
        "All contexts, the deepest first",
        "ranks",
        {},
        "Each context's measured, composed, direct and bound depth on a logarithmic scale, ordered by direct,"
        " with the sizes of the stacks. The table below has the numbers.",
    )


# ---------------------------------------------------------------- evidence


def _evidence(analysis: Analysis) -> Iterable[Block]:
    yield from _open(analysis)
    yield from _unbounded(analysis)
    texts: dict[str, list[str]] = {}
    for layout in analysis.verdicts:
        for need in layout.stacks:
            for text in need.assumed:
                texts.setdefault(text, []).append(f"{layout.layout.name} {need.stack.name}")
    if texts:
        rows = tuple((text, _where(stacks, texts)) for text, stacks in texts.items())
        yield Grid(
            f"Assumed below a need: {number_text(len(rows))}",
            (("assumption", "left"), ("stacks", "left")),
            rows,
            folded=len(rows) > _FOLDED_ABOVE,
        )
    entries = tuple(
        (
            type(entry).__name__.lower(),
            Cell(entry.subject, "code"),
            entry.reason,
            Cell(entry.source, "faint"),
            entry.name,
        )
        for entry in analysis.assumptions.entries
    )
    if entries:
        yield Grid(
            f"Assumption sets in force: {number_text(len(entries))} entries",
            (("kind", "left"), ("of", "left"), ("reason", "left"), ("source", "left"), ("name", "short")),
            entries,
            folded=True,
        )  # fmt: skip


def _open(analysis: Analysis) -> Iterable[Block]:
    needs = [
        (layout.layout.name, need)
        for layout in analysis.verdicts
        for need in layout.stacks
        if need.verdict is not Verdict.NOT_ANALYSED
    ]
    reasons = sorted({reason for _, need in needs for reason, _ in need.open.counts})
    if not reasons:
        yield Prose(("Nothing is open below any stack.",))
        return
    columns = (("open item", "left"), *((f"{layout} {need.stack.name}", "right") for layout, need in needs))
    rows = []
    for reason in reasons:
        counts = [dict(need.open.counts).get(reason, 0) for _, need in needs]
        rows.append((reason, *(number_text(count) if count else "—" for count in counts)))
    yield Grid("Open below each stack: what hides there is not in any number", columns, tuple(rows))


def _unbounded(analysis: Analysis) -> Iterable[Block]:
    names = analysis.code.functions.names
    stacks: dict[int, list[str]] = {}
    for layout in analysis.verdicts:
        for need in layout.stacks:
            for function in need.unlisted:
                stacks.setdefault(function, []).append(f"{layout.layout.name} {need.stack.name}")
    if stacks:
        rows = tuple(
            (
                Cell(names[function], "code"),
                Cell(module_of(analysis, function) or "", "code"),
                _where(found, stacks),
            )
            for function, found in stacks.items()
        )
        yield Grid(
            f"Recursion without a budget, counted once: {number_text(len(rows))} functions",
            (("function", "short"), ("module", "short"), ("below", "left")),
            rows,
            folded=True,
        )


def _where(found: list[str], every: dict[Any, list[str]]) -> Cell:
    """The stacks of an item; "all" where it is those that any item has."""
    most = max(map(len, every.values()))
    return Cell("all stacks" if len(found) == most > 1 else ", ".join(found), "faint")


# ---------------------------------------------------------------- recordings


def _recorded(analysis: Analysis, needs: list[ContextNeed]) -> Iterable[Block]:
    ran = analysis.exercised
    defects = analysis.defects(needs)
    if defects:
        yield Prose(tuple(f"Defect: {text}" for text in defects), "warning")
    rows: list[tuple[str | Cell, ...]] = [(one.path, one.format) for one in analysis.recordings]
    yield Grid("Recordings", (("file", "left"), ("format", "left")), tuple(rows))
    counts = tuple((seen.label, number_text(ran.counts[seen])) for seen in Seen if ran.counts[seen])
    calls = number_text(sum(ran.counts.values()))
    title = f"{number_text(len(analysis.traces))} chains, {calls} distinct calls recorded"
    yield Grid(
        title, (("how a recorded call stands in the call graph", "left"), ("distinct", "right")), counts
    )
    document = coverage_json(analysis)
    yield from _coverage(document)


def _coverage(document: Json) -> Iterable[Block]:
    contexts = document["contexts"]
    never = [one for one in contexts if one["first_unseen"] is not None]
    if never:
        columns = (
            Column("name", "context", "code", [one["name"] for one in never], 30),
            Column("measured", "measured", "bytes", [one["measured"] for one in never], 9),
            Column("composed", "composed", "bytes", [one["composed"] for one in never], 9),
            Column("found", "direct chain", "bytes", [one["found"] for one in never], 11),
            Column("calls", "calls", "number", [one["calls"] for one in never], 6),
            Column("seen", "seen", "number", [one["calls_seen"] for one in never], 6),
            Column("down", "seen down to", "bytes", [one["seen_down_to"] for one in never], 12),
            Column(
                "unseen", "first call never seen", "code", [_unseen(one["first_unseen"]) for one in never], 44
            ),
        )
        yield Records("never", "Deepest chains never seen whole", columns, "found", noun="chains")
    images = document["images"]
    if images:
        seen = (
            Column("module", "module", "code", [one["module"] or "(kernel)" for one in images], 24),
            Column("functions", "functions", "number", [one["functions"] for one in images], 10),
            Column("traceable", "traceable", "number", [one["traceable"] for one in images], 10),
            Column("seen", "seen", "number", [one["functions_seen"] for one in images], 10),
            Column("calls", "calls", "number", [one["calls"] for one in images], 10),
            Column("taken", "calls seen", "number", [one["calls_seen"] for one in images], 10),
        )
        yield Records("images", "Coverage by module", seen, "seen", noun="images")


def _unseen(unseen: Json) -> str:
    return f"{unseen['caller']} → {unseen['callee']}" + (
        "" if unseen["traceable"] else " (no tracer sees it)"
    )

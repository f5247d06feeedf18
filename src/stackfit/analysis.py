"""One analysis from images to verdicts: the library's front door.

>>> import stackfit
>>> analysis = stackfit.check("vmlinuz", layouts=["linux-x86_64"])   # doctest: +SKIP
>>> analysis.verdicts[0].stacks[0].direct                            # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stackfit.assumptions import AssumptionSet, combine, load_assumptions
from stackfit.calls.graph import build_calls, build_edges
from stackfit.calls.held import Held
from stackfit.calls.model import Calls, EdgeKind, Edges
from stackfit.calls.resolve import Resolution, resolve_indirect
from stackfit.calls.stated import Stated, compare_statements, stated_bounds
from stackfit.calls.vectors import Vector, find_vectors
from stackfit.choices import MOST_HOPS, UNLIMITED, Hypervisor, Indirect
from stackfit.contexts.firmware import Firmware, fit_layout
from stackfit.contexts.images import NOTHING_DECLARED, find_firmware, is_cortex_m, is_firmware
from stackfit.contexts.kernels import kernel_contexts
from stackfit.contexts.model import Context
from stackfit.contexts.registered import PLACES, Registrations, find_registered
from stackfit.frames.analyse import analyse_frames
from stackfit.frames.anatomy import Anatomy, frame_anatomy
from stackfit.frames.model import Frames
from stackfit.frames.statements import own_statements, read_statements
from stackfit.frames.switches import find_switches
from stackfit.frames.witness import Witness, cfi_witness, orc_witness
from stackfit.image.companions import Companions
from stackfit.image.flat import Flat
from stackfit.image.linker_map import is_linker_map, name_by_map, read_linker_map
from stackfit.image.load import check_same_build, load_image, load_program
from stackfit.image.model import Image, ImageKind, InputError, Machine, Program
from stackfit.image.pointers import code_pointers
from stackfit.image.tables import Tables, read_tables
from stackfit.isa.code import Code, decode_program
from stackfit.isa.machines import CONVENTIONS
from stackfit.layouts import default_layout, load_layout
from stackfit.layouts.model import Declared, Layout
from stackfit.measure.files import read_recording
from stackfit.measure.graph import Graph
from stackfit.measure.model import Recording, Traces
from stackfit.measure.resolve import resolve
from stackfit.measure.seen import Exercised, exercised
from stackfit.measure.sizes import SizeCheck, check_sizes
from stackfit.text import clean
from stackfit.verdict.allocation import DEFAULT_MARGIN, Advice, Margin, advised
from stackfit.verdict.components import ComponentTable, component_table
from stackfit.verdict.compose import Composer
from stackfit.verdict.cycles import recursive
from stackfit.verdict.limits import AppliedLimits, apply_assumptions
from stackfit.verdict.model import ContextNeed, LayoutVerdict, Measured, Observed, StackNeed
from stackfit.verdict.observed import ladder_defects
from stackfit.verdict.placement import check_layout
from stackfit.verdict.registered import RegisteredNeed, registered_needs
from stackfit.verdict.suggest import Suggestion
from stackfit.verdict.through import Through, find_through

__all__ = ["MOST_HOPS", "UNLIMITED", "Analysis", "Step", "analyse", "check"]

Step = Callable[[str, float], None]  # of progress: what is done now, share done
DEFAULT_HOPS = 8  # the hop curve is given at 0 to 8 indirect calls


def _silent(step: str, share: float) -> None:
    pass


@dataclass(frozen=True, eq=False)
class Analysis:
    """Everything known of one program; the later steps are made when they are asked for."""

    program: Program
    code: Code
    tables: Tables
    frames: Frames
    vectors: list[Vector]
    calls: Calls
    edges: Edges
    assumptions: AssumptionSet
    layouts: tuple[Layout, ...]
    hops: int  # the curve's last number of indirect calls; 0 where no candidates are known
    hop_limit: int | None  # assumed on a chain; None: unlimited
    warnings: tuple[str, ...] = field(default=())
    debug: Image | None = None  # ELF with DWARF of the same build
    held: Mapping[str, Held] = field(default_factory=dict)  # what the places of registered functions hold
    recordings: tuple[Recording, ...] = ()  # of the same kernel, running
    firmware: Firmware | None = None  # None: a kernel
    debug_modules: tuple[str | Path, ...] = ()  # files or directories with DWARF of modules
    stated: tuple[Stated, ...] = ()  # what compilers said of frames and calls
    margin: Margin = DEFAULT_MARGIN  # of advice on sizes

    @cached_property
    def witnesses(self) -> list[Witness]:
        """Unwind tables held against the depths: ORC where the images have it, CFI of a debug companion."""
        found = [orc_witness(self.program, self.code, self.frames)]
        if self.debug is not None:
            found.append(cfi_witness(self.code, self.frames, self.program.images[0], self.debug))
        return [one for one in found if one is not None]

    @cached_property
    def contexts(self) -> list[Context]:
        if self.firmware is not None:
            return list(self.firmware.contexts)
        return kernel_contexts(self.program, self.code, self.calls, self.vectors)

    @cached_property
    def registrations(self) -> Registrations:
        """Functions that code registers to be called later: interrupt handlers, timers, work, threads."""
        return find_registered(self.code, self.calls, self.held)

    @cached_property
    def registered_needs(self) -> list[RegisteredNeed]:
        """What each registered function needs on the stacks of the first layout."""
        return registered_needs(self.composer, self.layouts[0], self.registrations.functions)

    @cached_property
    def applied(self) -> AppliedLimits:
        return apply_assumptions(self.code, self.frames, self.assumptions, self.calls)

    @cached_property
    def recursive(self) -> NDArray[np.bool_]:
        """Functions on a cycle of direct, tail and static calls: bool by function."""
        return recursive(self.edges)

    @cached_property
    def graph(self) -> Graph:
        """The call graph by return address, for recordings."""
        return Graph(self.code, self.calls, self.edges)

    @cached_property
    def traces(self) -> Traces:
        """The recordings as functions and return addresses. InputError: one is of another kernel."""
        return resolve(self.program, self.code, self.calls, self.graph, self.recordings)

    @cached_property
    def sizes(self) -> SizeCheck:
        """The recorded frame sizes, held against the static depths."""
        return check_sizes(self.traces, self.graph, self.frames, self.vectors)

    @cached_property
    def exercised(self) -> Exercised:
        """What the recordings show to have run."""
        return exercised(self.traces, self.graph, self.frames, self.contexts, self.vectors)

    @cached_property
    def observed(self) -> Observed | None:
        """What verdicts take from recordings; None without any."""
        if not self.recordings:
            return None
        ran, traces = self.exercised, self.traces
        measured = tuple(
            Measured(deep.contexts, deep.bytes, deep.whole, traces.names[deep.chain], deep.known)
            for deep in ran.deepest
        )
        marks = tuple((mark.stack, mark.bytes, mark.owner) for mark in traces.marks if mark.bytes)
        return Observed(ran.edges, ran.entered, ran.times, measured, marks)

    @cached_property
    def composer(self) -> Composer:
        return Composer(
            self.code,
            self.frames,
            self.calls,
            self.edges,
            self.contexts,
            self.applied,
            self.hops,
            self.hop_limit,
            self.observed,
        )

    @cached_property
    def verdicts(self) -> list[LayoutVerdict]:
        """One per layout, in the order in which the layouts were given."""
        return self.composer.judge(self.layouts)

    @cached_property
    def components(self) -> ComponentTable:
        """Components of the call graph, before any assumption and after each; recursion that is left."""
        return component_table(self.edges, self.applied, self.assumptions)

    @cached_property
    def suggestions(self) -> tuple[Suggestion, ...]:
        """Functions whose budget or cut would make most contexts of the first layout finite."""
        return self.composer.suggestions(self.layouts[0])

    def defects(self, needs: Sequence[ContextNeed]) -> list[str]:
        """Where recordings contradict the analysis: frame sizes, calls, budgets, measured ≤ composed ≤
        bound.
        """
        if not self.recordings or self.composer.ladder is None:
            return []
        found = []
        if self.sizes.unexplained:
            found.append(
                f"{len(self.sizes.unexplained)} recorded frame sizes are not the static depth: measure trace"
            )
        if self.exercised.misses:
            found.append(
                f"{len(self.exercised.misses)} recorded calls are not in the call graph: measure trace"
            )
        found += self.composer.ladder.defects()
        found += ladder_defects(needs, [need.context.title for need in needs])
        for layout in self.verdicts:
            titles = [f"{layout.layout.name} {need.stack.name}" for need in layout.stacks]
            found += ladder_defects(layout.stacks, titles)
        return found

    @cached_property
    def companions(self) -> Companions:
        """Debug information of the images, for anatomies and source lines."""
        return Companions(self.program, self.debug, self.debug_modules)

    def advice(self, need: StackNeed) -> Advice | None:
        """How much to allocate for a stack of firmware; None: of a kernel, or while something is open."""
        if self.firmware is None:
            return None
        return advised(need, self.margin, CONVENTIONS[self.program.machine].alignment)

    def anatomy(self, function: int) -> Anatomy:
        """What the bytes of a function's frame are for. InputError: its debug information is damaged."""
        functions = self.code.functions
        found = self.companions.locals(int(functions.image[function]), int(functions.address[function]))
        return frame_anatomy(self.code, self.frames, function, found, self.program.undefined)

    def through(self, subject: str) -> Through:
        """The worst chain through a module or a function, what it leaves. InputError: neither is there."""
        return find_through(self.program, self.composer, self.layouts, subject, self.registrations.functions)


def analyse(
    images: Sequence[str | Path],
    modules: Iterable[str | Path] = (),
    layouts: Sequence[str | Path] = (),
    assumptions: Sequence[str | Path] = (),
    hops: int | None = None,
    debug: str | Path | None = None,
    progress: Step = _silent,
    indirect: Indirect = Indirect.TYPED,
    without: Iterable[str] = (),
    hypervisor: Hypervisor = Hypervisor.NONE,
    traces: Sequence[str | Path] = (),
    resolve: Callable[[Code], bool] | None = None,
    debug_modules: Sequence[str | Path] = (),
    witnesses: Sequence[str | Path] = (),
    margin: Margin = DEFAULT_MARGIN,
    flat: Flat | None = None,
    declared: Declared = NOTHING_DECLARED,
) -> Analysis:
    """Load and analyse images; layouts and assumptions by name or file.

    `images[0]` is the kernel, further ones its modules. Without a layout the one that the kernel runs with
    is taken. The shipped assumptions always apply; files given override them entry by entry. `hops`: the
    greatest number of indirect calls on a chain (default: as the assumptions say, else UNLIMITED). `debug`:
    an ELF file of the same build with DWARF: types for indirect calls, and a witness of depths. `indirect`:
    what candidates of indirect calls may rest on. `without`: names of assumptions to leave out. `hypervisor`:
    what pv_ops hold. `traces`: recordings of that kernel running, for `measured` and `composed`.
    `resolve`: asked, once functions are known, whether indirect calls are to be resolved (default: they are);
    all that are not certain stay open otherwise. `debug_modules`: files or directories with debug information
    of modules, for anatomies and source lines. `witnesses`: files that compilers left (`.su`, `.ci`, objects
    with `.stack_sizes`), or directories of them: held against frames and calls, and bounds where only they
    know one. `margin`: of advice on how much to allocate. `flat`: the image is a flat binary. `declared`:
    tasks and priorities of firmware, besides what layouts say. Raises InputError.
    """
    named = tuple(load_layout(str(name)) for name in layouts)
    for layout in named:
        check_layout(layout)
    given = [load_assumptions(str(path)) for path in assumptions]
    recordings = tuple(read_recording(Path(path)) for path in traces)
    statements = read_statements(witnesses)
    maps = [
        read_linker_map(Path(path))
        for path in witnesses
        if Path(path).is_file() and is_linker_map(Path(path))
    ]
    progress("reading images", 0.0)
    program = load_program(
        list(images),
        modules,
        lambda done, total: progress("reading modules", 0.3 * done / max(total, 1)),
        flat,
    )
    for linked in maps:
        program = replace(program, images=(name_by_map(program.images[0], linked), *program.images[1:]))
    bare = is_firmware(program)
    sets = combine(AssumptionSet("none") if bare else load_assumptions("linux"), *given)
    sets = sets.without(without)
    companion = load_image(debug) if debug is not None else None
    if companion is not None:
        check_same_build(program.images[0], companion)
    progress("decoding", 0.3)
    code = decode_program(program)
    progress("tracking stack depth", 0.5)
    tables = read_tables(program)
    pointers = code_pointers(program)
    switches = find_switches(program, code)
    frames = analyse_frames(code, tables, pointers, frame_pointers=True, switches=switches)
    selected = sets.select(program.images[0].release, program.machine)
    places = (*PLACES, *(place for entry in selected.candidates for place in entry.places))
    resolution = Resolution()
    unread: tuple[str, ...] = ()
    # Of kernels for other machines nothing has been held against recordings yet.
    if (program.machine.x86 or bare) and (resolve is None or resolve(code)):
        progress("resolving indirect calls", 0.6)
        # A firmware image is its own companion.
        own = bare and companion is None and program.images[0].kind is not ImageKind.MODULE
        try:
            resolution = resolve_indirect(
                program, code, tables, frames, pointers, indirect, places,
                program.images[0] if own else companion, hypervisor is Hypervisor.ANY, switches,
            )  # fmt: skip
        except InputError as error:
            if not own:
                raise
            unread = (f"debug information is not used, so indirect calls are open: {error}",)
    progress("building the call graph", 0.7)
    vectors = [] if bare else find_vectors(code)
    chosen = _for_machine(program, named or (load_layout(_default_layout(program, bare)),))
    calls = build_calls(program, code, tables, frames, vectors, selected, resolution, hypervisor, pointers)
    edges = build_edges(code, frames, calls)
    stated = compare_statements(program, code, frames, calls, [*statements, *own_statements(program)], maps)
    selected = combine(stated_bounds(code, frames, stated), selected)
    firmware = find_firmware(program, code, frames, calls, edges, chosen, declared) if bare else None
    if firmware is not None and resolution.untyped:
        more = _untyped(code, resolution.untyped)
        firmware = replace(firmware, assumptions=(*firmware.assumptions, more))
    if firmware is not None:
        chosen = tuple(fit_layout(layout, firmware) for layout in chosen)
    progress("bounding chains", 0.8)
    limit = selected.hops if hops is None else None if hops == UNLIMITED else hops
    curve = min(DEFAULT_HOPS if limit is None else limit, MOST_HOPS)
    has_hops = bool((edges.kind == EdgeKind.HOP).any())
    return Analysis(
        program, code, tables, frames, vectors, calls, edges, selected, chosen, curve if has_hops else 0,
        limit, (*program.warnings, *unread, *(firmware.notes if firmware else ())), companion,
        resolution.held, recordings, firmware, tuple(debug_modules), tuple(stated), margin,
    )  # fmt: skip


def _untyped(code: Code, functions: Sequence[int]) -> str:
    names = ", ".join(clean(code.functions.names[one]) for one in functions[:3])
    return (
        f"{len(functions)} functions without debug information"
        f" ({names}{' …' if len(functions) > 3 else ''}) are put where no type"
        " tells: into no field that code with debug information calls through"
    )


def _default_layout(program: Program, bare: bool) -> str:
    if program.machine is Machine.ARM and bare and not is_cortex_m(program):
        return "bare-metal"
    return default_layout(program.machine, kernel=not bare)


def _for_machine(program: Program, chosen: tuple[Layout, ...]) -> tuple[Layout, ...]:
    for layout in chosen:
        if layout.machine is not None and layout.machine is not program.machine:
            raise InputError(
                layout.path or layout.name,
                f"the layout {layout.name} is for {layout.machine.value},"
                f" {program.images[0].path} is {program.machine.value}",
            )
    return chosen


def check(
    image: str | Path,
    modules: Iterable[str | Path] = (),
    layouts: Sequence[str | Path] = (),
    assumptions: Sequence[str | Path] = (),
    hops: int | None = None,
    debug: str | Path | None = None,
    indirect: Indirect = Indirect.TYPED,
    without: Iterable[str] = (),
    hypervisor: Hypervisor = Hypervisor.NONE,
    traces: Sequence[str | Path] = (),
) -> Analysis:
    """Check one kernel against layouts; see Analysis.verdicts. Raises InputError."""
    return analyse(
        [image],
        modules,
        layouts,
        assumptions,
        hops,
        debug,
        indirect=indirect,
        without=without,
        hypervisor=hypervisor,
        traces=traces,
    )

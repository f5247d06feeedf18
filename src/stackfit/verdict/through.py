"""The worst chain through a module or a function: what the vendor of a binary-only module asks.

How deep is the kernel when it calls us, how much do we add, and what is left of each stack?
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stackfit.bounds.model import Bound, Limits
from stackfit.bounds.solve import Solver
from stackfit.calls.model import EdgeKind, Edges
from stackfit.contexts.model import Context, Start
from stackfit.contexts.registered import Registered
from stackfit.image.model import InputError, Program
from stackfit.layouts.model import Layout, Stack
from stackfit.text import near_text
from stackfit.verdict.compose import Composer
from stackfit.verdict.placement import Item
from stackfit.verdict.registered import RegisteredFinder

__all__ = ["Through", "ThroughEntry", "ThroughStack", "find_through"]

_ELSEWHERE = -(1 << 28)  # frame of a function outside: a chain that ends there stays far below zero


@dataclass(frozen=True)
class ThroughStack:
    """One stack of a layout, bytes. `need` and `found`: as the stack's own, of the worst chain through the
    subject (upper bound and concrete chain); None: no known chain leads there. `room`: what everything above
    the call into the subject may take, entry frame included, for its own deepest chain to fit still;
    `room_found`: the same for the deepest concrete chain, so more than that is too much."""

    layout: Layout
    stack: Stack
    need: int | None
    found: int | None
    context: Context | None
    path: tuple[int, ...]  # functions from the context's entry to the subject
    room: int
    room_found: int


@dataclass(frozen=True)
class ThroughEntry:
    """A registered function from which direct calls lead into the subject, on a stack of a layout. Bytes.

    `kind`: of the context that calls it. `above`: from the stack's top to the call of the function, where the
    context `nests` from the interrupted stack pointer. `call`: the same to the deepest call into the
    subject, and
    `room`: what is left there of the stack when nothing is on top (where it nests, for what it interrupts
    too).
    """

    layout: Layout
    stack: Stack
    registered: Registered
    kind: str
    nests: bool
    above: int
    call: int
    room: int


@dataclass(frozen=True)
class Through:
    """`own`: the deepest chain that starts in the subject, by its function `deepest`; `own_frames`: the bytes
    of that chain in the subject's own frames. `callers`: known call sites outside that lead into it."""

    subject: str
    functions: int
    own: Bound
    deepest: int
    own_frames: int
    callers: int
    stacks: tuple[ThroughStack, ...]
    entries: tuple[ThroughEntry, ...]


def find_through(
    program: Program,
    composer: Composer,
    layouts: tuple[Layout, ...],
    subject: str,
    registered: Sequence[Registered] = (),
) -> Through:
    """The answer for a module's or a function's name. InputError when there is neither."""
    inside = _members(program, composer, subject)
    exceptions = max(
        (stack.nests.get("exception", 0) for layout in layouts for stack in layout.stacks), default=0
    )
    thread = Item(Context("", "task", ()), 0, (), False)
    members = np.flatnonzero(inside).tolist()
    deepest = max(
        members, key=lambda one: (composer.solvers.upper(thread, one, exceptions, composer.hops), -one)
    )
    own = composer.bound(deepest, exceptions, composer.hops)
    edges = composer.edges
    owner = np.repeat(np.arange(len(inside)), np.diff(edges.first))
    return Through(
        subject=subject,
        functions=int(inside.sum()),
        own=own,
        deepest=deepest,
        own_frames=sum(link.depth for link in own.chain if inside[link.function]),
        callers=int(np.unique(edges.site[inside[edges.callee] & ~inside[owner]]).size),
        stacks=tuple(
            one
            for layout in layouts
            for stack in layout.stacks
            if (one := _Search(composer, inside, layout, stack).run(own)) is not None
        ),
        entries=tuple(_entries(composer, layouts, inside, registered)),
    )


def _entries(
    composer: Composer,
    layouts: tuple[Layout, ...],
    inside: NDArray[np.bool_],
    registered: Sequence[Registered],
) -> Iterator[ThroughEntry]:
    """What of the registered functions leads into the subject, and how deep the stack is then."""
    edges = composer.edges
    owner = np.repeat(np.arange(len(inside)), np.diff(edges.first))
    follow = (edges.kind == EdgeKind.PLAIN) & (composer.applied.limits.cut[owner] < 0)
    leading = _leading(edges, owner, follow, inside)
    chosen = [one for one in registered if leading[one.function] and not inside[one.function]]
    if not chosen:
        return
    below = np.where(inside, 0, _ELSEWHERE).astype(np.int32)
    kind = np.where(follow & ~inside[owner] & leading[edges.callee], edges.kind, EdgeKind.SWITCH)
    limits = composer.applied.limits
    only = Limits(
        below, limits.times, np.where(inside, 0, -1).astype(np.int32), limits.open_frame, limits.shift
    )
    calls = Solver(replace(edges, kind=kind.astype(edges.kind.dtype)), only, 0)
    for layout in layouts:
        finder = RegisteredFinder(composer, layout)
        for one in chosen:
            for kind_name in one.kinds:
                above = finder.need(one, kind_name).above
                if above is not None:
                    call = above.bytes + calls.upper(one.function)
                    yield ThroughEntry(
                        layout,
                        above.stack,
                        one,
                        kind_name,
                        above.nests,
                        above.bytes,
                        call,
                        above.stack.usable - call,
                    )


def _members(program: Program, composer: Composer, subject: str) -> NDArray[np.bool_]:
    """Functions of the module, or those of that name: bool by function."""
    functions = composer.code.functions
    images = [index for index, image in enumerate(program.images) if image.module == subject]
    if images:
        inside = np.isin(functions.image, images) & (functions.parent < 0) & ~functions.piece
    else:
        inside = np.zeros(len(functions), np.bool_)
        inside[functions.named(subject)] = True
    if not inside.any():
        names = [image.module for image in program.images if image.module]
        hint = near_text(subject, [*names, *functions.names])
        raise InputError(program.path, f"no module or function {subject[:100]}{hint}")
    return np.asarray(inside, np.bool_)


class _Search:
    """The worst chain through some functions on one stack."""

    def __init__(self, composer: Composer, inside: NDArray[np.bool_], layout: Layout, stack: Stack) -> None:
        self.composer = composer
        self.inside = inside
        self.layout = layout
        self.stack = stack
        self.placement = composer.place(layout, stack)

    def run(self, own: Bound) -> ThroughStack | None:
        """None when nothing that is known starts on this stack."""
        stack, exceptions = self.stack, self.placement.exceptions
        if not any(item.starts for item in self.placement.items):
            return None
        nested = self.composer.nested(self.layout, stack, self.placement, self.composer.hops)
        others = stack.reserved
        found_others = others + sum(part.found * part.times for part in nested)
        others += sum(part.total for part in nested)
        best: tuple[int, int, Context, tuple[int, ...]] | None = None
        for kernel, plain in sorted(
            {(item.kernel, tuple(sorted(item.plain))) for item in self.placement.items}
        ):
            group = [
                one for one in self.placement.items if one.kernel == kernel and one.plain == frozenset(plain)
            ]
            found = self._deepest(group, exceptions)
            if found is not None and (best is None or found[0] > best[0]):
                best = found
        room = stack.size - others - own.upper
        room_found = stack.size - found_others - own.found
        if best is None:
            return ThroughStack(self.layout, stack, None, None, None, (), room, room_found)
        upper, concrete, context, path = best
        found_need = found_others + concrete if concrete >= 0 else None
        # Below the subject is one charge, wherever it is called: what bounds every chain may be tighter.
        most = self.composer.need_at(self.layout, stack, self.placement, self.composer.hops)
        need = min(others + upper, most)
        if found_need is not None:
            found_need = min(found_need, need)
        path = path if concrete >= 0 else ()
        return ThroughStack(self.layout, stack, need, found_need, context, path, room, room_found)

    def _deepest(
        self, group: list[Item], exceptions: int
    ) -> tuple[int, int, Context, tuple[int, ...]] | None:
        """(upper, found, context, path) of the deepest of some items whose chains are solved alike."""
        solver = self._solver(group[0], exceptions)
        best: tuple[int, Item, Start] | None = None
        for item in group:
            for start in item.starts:
                value = item.frame + start.bytes + solver.upper(start.entry, self.composer.hops)
                if value >= 0 and (best is None or value > best[0]):
                    best = value, item, start
        if best is None:
            return None
        _, item, start = best
        chain = solver.bound(start.entry, self.composer.hops)
        path = (*(function for function, _ in start.through), *(link.function for link in chain.chain))
        above = item.frame + start.bytes
        return above + chain.upper, above + chain.found, item.context, path

    def _solver(self, item: Item, exceptions: int) -> Solver:
        """Chains that end in the subject, where all that is below it is one charge."""
        composer, inside = self.composer, self.inside
        applied = composer.applied
        limits = applied.kernel if item.kernel else applied.limits
        below = np.full(len(inside), _ELSEWHERE, np.int32)
        for member in np.flatnonzero(inside).tolist():
            below[member] = composer.solvers.upper(item, member, exceptions, composer.hops)
        edges = composer.solvers.edges(item)
        owner = np.repeat(np.arange(len(inside)), np.diff(edges.first))
        follow = (edges.kind != EdgeKind.SWITCH) & (limits.cut[owner] < 0) & ~inside[owner]
        if not exceptions:
            follow &= edges.kind != EdgeKind.EXCEPTION
        if not composer.hops:
            follow &= edges.kind != EdgeKind.HOP
        leading = _leading(edges, owner, follow, inside)
        kind = np.where(follow & leading[edges.callee], edges.kind, EdgeKind.SWITCH).astype(edges.kind.dtype)
        only = Limits(
            frame=below,
            times=limits.times,
            cut=np.where(inside, below, -1).astype(np.int32),
            open_frame=limits.open_frame,
            shift=limits.shift,
        )
        user_only = None if item.kernel else applied.user_only
        return Solver(replace(edges, kind=kind), only, exceptions, composer.hops, user_only)


def _leading(
    edges: Edges, owner: NDArray[np.int64], follow: NDArray[np.bool_], inside: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Functions from which a chain leads inside: bool by function."""
    leading = inside.copy()
    callers, callees = owner[follow], edges.callee[follow]
    while True:
        more = leading.copy()
        more[callers[leading[callees]]] = True
        if (more == leading).all():
            return leading
        leading = more

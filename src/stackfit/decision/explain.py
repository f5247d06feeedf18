"""A context or function explained: its deepest chain, its frames byte by byte, what would shorten it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stackfit.analysis import Analysis
from stackfit.bounds.model import Bound
from stackfit.calls.model import CallKind
from stackfit.contexts.model import Context, Start
from stackfit.frames.anatomy import Anatomy
from stackfit.image.functions import Functions
from stackfit.image.model import InputError
from stackfit.layouts.model import Layout, Stack
from stackfit.text import near_text
from stackfit.verdict.advice import (
    Advice,
    Change,
    Need,
    advise,
    changes_of,
    recursions,
    stack_alignment,
    stack_needs,
)
from stackfit.verdict.model import ContextNeed
from stackfit.verdict.placement import Item

__all__ = ["FRAMES", "Explanation", "explain", "is_function"]

FRAMES = 5
_WHOLE = 5  # changes that the whole stack is solved again with
_COMPAT = "compat"  # of several system calls of one name the other ones are meant first


@dataclass(frozen=True, eq=False)
class Explanation:
    """What is known of one context, or below one function.

    `chain`: the deepest found; of a context below `need.start`. `need`: its ladder. `stack`: where the
    context starts; `on_top`: bytes that the layout lets nest on it. `frames`: anatomies by function, the
    subject's first, then by size. `before` and `advice`: see verdict/advice.py. `whole`: what no chain on the
    stack exceeds, nested ones in, and then with each of the first changes; empty for a function, and where
    there is no bound. `also`: others of that name.
    """

    subject: str
    function: int | None  # None: a context
    layout: Layout
    stack: Stack | None
    on_top: int
    hops: int
    need: ContextNeed
    chain: Bound
    frames: dict[int, Anatomy]
    before: Need
    advice: tuple[Advice, ...]
    whole: tuple[int, ...]
    also: tuple[str, ...]


def is_function(functions: Functions, name: str) -> bool:
    """Whether a subject means a function: by its exact name, or by an address."""
    return _address(name) is not None or bool(functions.named(name))


def explain(analysis: Analysis, name: str, frames: int | None = None, hops: int = 0) -> Explanation:
    """Explain a function, else a context, by name; `0x…`: the function at that address.

    `frames`: so many of the largest frames on the chain are taken apart, a function's own besides (default:
    FRAMES of a context's, none of a function's); -1: all. `hops`: indirect calls on
    the chain. Raises InputError: there is nothing of that name; debug information is damaged.
    """
    hops = min(hops, analysis.hops)
    found = _functions(analysis, name)
    layout = analysis.layouts[0]
    if found:
        function = found[0]
        item = Item(
            Context(analysis.code.functions.names[function], "task", ()), 0, (Start(function),), False
        )
        exceptions = max((stack.nests.get("exception", 0) for stack in layout.stacks), default=0)
        also = tuple(_where(analysis, one) for one in found[1:])
        most = 0 if frames is None else frames
        return _explain(analysis, name, function, layout, None, 0, item, exceptions, hops, most, also)
    contexts = _contexts(analysis, name)
    for context in contexts:
        for stack in layout.stacks:
            placement = analysis.composer.place(layout, stack)
            for item in placement.items:
                if item.context is context and item.starts:
                    nested = analysis.composer.nested(layout, stack, placement, hops)
                    on_top = sum(part.total for part in nested)
                    also = tuple(one.title for one in contexts if one is not context)
                    return _explain(
                        analysis, context.title, None, layout, stack, on_top, item, placement.exceptions,
                        hops, FRAMES if frames is None else frames, also,
                    )  # fmt: skip
    path = analysis.program.path
    if contexts:
        why = contexts[0].open or f"nothing of it starts on a stack of {layout.name}"
        raise InputError(path, f"{contexts[0].title}: nothing is known of it: {why}")
    known = [*analysis.code.functions.names, *(context.name for context in analysis.contexts)]
    raise InputError(path, f"no function or context {name[:100]}{near_text(name, known)}")


def _explain(
    analysis: Analysis,
    subject: str,
    function: int | None,
    layout: Layout,
    stack: Stack | None,
    on_top: int,
    item: Item,
    exceptions: int,
    hops: int,
    frames: int,
    also: tuple[str, ...],
) -> Explanation:
    composer = analysis.composer
    best = composer.solvers.deepest((item,), exceptions)
    assert best is not None  # the item has starts
    if hops:
        composer.solvers.chain(item, best.start, exceptions, hops)
        best = composer.solvers.best((item,), exceptions, hops) or best
    chain = composer.solvers.chain(item, best.start, exceptions, hops)
    need = composer.context_need(item, "" if stack is None else stack.name, exceptions)
    passed = [*(one for one, _ in best.start.through), *(link.function for link in chain.chain)]
    anatomies = _anatomies(analysis, function, passed, frames)
    changes: list[Change] = []
    word, functions, calls = analysis.code.machine.word, analysis.code.functions, analysis.calls
    units: dict[int, int] = {}
    for one, anatomy in anatomies.items():
        image = int(functions.image[one])
        if image not in units:
            own = (functions.image[calls.function] == image) & (calls.kind == CallKind.DIRECT)
            units[image] = stack_alignment(word, calls.depth[own])
        changes += changes_of(anatomy, word, units[image])
    changes.sort(key=lambda one: -one.bytes)
    before, advice = advise(
        composer, item, chain, best.start, exceptions, hops, [*changes, *recursions(chain)]
    )
    if chain.unlisted:  # there is no bound that could fall
        advice = [one for one in advice if one.falls]
    whole: tuple[int, ...] = ()
    if stack is not None and not chain.unlisted:
        first, then = stack_needs(composer, layout, stack, hops, [one.change for one in advice[:_WHOLE]])
        whole = (first, *then)
    return Explanation(
        subject, function, layout, stack, on_top, hops, need, chain, anatomies, before, tuple(advice), whole,
        also,
    )  # fmt: skip


def _anatomies(
    analysis: Analysis, function: int | None, passed: Iterable[int], most: int
) -> dict[int, Anatomy]:
    """Anatomies of the subject, and of the largest frames among those passed."""
    size = analysis.frames.frame
    chosen = sorted(set(passed) - {function}, key=lambda one: (-int(size[one]), one))
    chosen = chosen[:most] if most >= 0 else chosen
    wanted = chosen if function is None else [function, *chosen]
    return {one: analysis.anatomy(one) for one in wanted}


def _functions(analysis: Analysis, name: str) -> list[int]:
    """Functions of a name, that with the largest frame first."""
    functions = analysis.code.functions
    address = _address(name)
    if address is not None:
        found = functions.containing(address)
        if found < 0:
            raise InputError(analysis.program.path, f"no function at {name[:40]}")
        parent = int(functions.parent[found])
        return [found if parent < 0 else parent]
    known = [one for one in functions.named(name) if functions.parent[one] < 0 and not functions.piece[one]]
    return sorted(known, key=lambda one: (-int(analysis.frames.frame[one]), one))


def _address(name: str) -> int | None:
    if not name.startswith(("0x", "0X")):
        return None
    try:
        value = int(name, 16)
    except ValueError:
        return None
    return value if 0 <= value < 1 << 64 else None


def _where(analysis: Analysis, function: int) -> str:
    functions = analysis.code.functions
    module = analysis.program.images[int(functions.image[function])].module
    return f"{functions.names[function]} at {int(functions.address[function]):#x}" + (
        f" [{module}]" if module else ""
    )


def _contexts(analysis: Analysis, name: str) -> list[Context]:
    """Contexts that a name may mean: by title, name or entry function; the most likely first."""
    contexts = analysis.contexts
    names = analysis.code.functions.names
    for matches in (
        [one for one in contexts if one.title == name],
        [one for one in contexts if f"{one.kind} {one.name}" == name],
        [one for one in contexts if one.name == name],
        [one for one in contexts if any(names[start.entry] == name for start in one.starts)],
    ):
        if matches:
            return sorted(matches, key=lambda one: one.abi == _COMPAT)
    return []

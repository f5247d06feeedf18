"""What changed between two databases."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from stackfit.image.model import InputError
from stackfit.store.match import Matching, Pair, match, stem
from stackfit.store.model import (
    ChainStep,
    Diff,
    Frame,
    Function,
    FunctionChange,
    ModuleChange,
    Need,
    NeedChange,
    OpenChange,
    Snapshot,
)

__all__ = ["diff"]


def diff(old: Snapshot, new: Snapshot) -> Diff:
    """Everything that differs, the greatest growth first. InputError: the machines differ."""
    machines = old.about.get("machine"), new.about.get("machine")
    if machines[0] != machines[1]:
        raise InputError(new.path, f"is for {machines[1]}, {old.path} for {machines[0]}")
    matching = match(old.functions, new.functions)
    functions = sorted(
        _functions(matching, old, new), key=lambda one: (-one.growth, one.module or "", one.name)
    )
    renamed = [
        _changed("renamed", pair) for pair in matching.pairs if pair.old.name != pair.new.name or _moved(pair)
    ]
    opened = sorted(
        _opened(matching), key=lambda one: (one.old - one.new, one.module or "", one.name, one.reason)
    )
    return Diff(
        old, new, tuple(_notes(old, new)), tuple(functions), tuple(renamed),
        tuple(_needs(old.stacks, new.stacks)), tuple(_needs(old.contexts, new.contexts)), tuple(opened),
        tuple(_modules(old, new, functions)),
    )  # fmt: skip


def _notes(old: Snapshot, new: Snapshot) -> Iterator[str]:
    """Why numbers may differ though the code does not."""
    if old.about.get("stackfit") != new.about.get("stackfit"):
        yield f"made by stackfit {old.about.get('stackfit')} and {new.about.get('stackfit')}"
    if old.about.get("hop_limit") != new.about.get("hop_limit"):
        limits = old.about.get("hop_limit"), new.about.get("hop_limit")
        yield f"at most {limits[0]} and {limits[1]} indirect calls on a chain"
    gone, come = len(old.assumptions - new.assumptions), len(new.assumptions - old.assumptions)
    if gone or come:
        yield f"assumptions differ: {gone} only in the old one, {come} only in the new one"
    layouts = [{key[0] for key in (need.key for need in side.stacks)} for side in (old, new)]
    if layouts[0] != layouts[1]:
        names = [", ".join(sorted(side)) for side in layouts]
        yield f"layouts differ ({names[0]}; {names[1]}): only stacks of the same one are compared"
    missing = {module for module, _ in old.images} ^ {module for module, _ in new.images}
    if missing:
        yield f"modules that only one of them has: {len(missing)}"


# ---------------------------------------------------------------- functions


def _functions(matching: Matching, old: Snapshot, new: Snapshot) -> Iterator[FunctionChange]:
    for pair in matching.pairs:
        before, after = pair.old.frame, pair.new.frame
        if before == after:
            continue
        if after is None:
            yield _changed("unbounded", pair)
        elif before is None:
            yield _changed("bounded", pair)
        else:
            yield _changed("grew" if after > before else "shrank", pair)
    kept_old = {(pair.old.module, stem(pair.old.name)) for pair in matching.pairs}
    kept_new = {(pair.new.module, stem(pair.new.name)) for pair in matching.pairs}
    gone_beside = _beside(old, matching.gone, {pair.old.number: pair for pair in matching.pairs}, 1)
    come_beside = _beside(new, matching.come, {pair.new.number: pair for pair in matching.pairs}, -1)
    for one in matching.come:
        parent = stem(one.name) if (one.module, stem(one.name)) in kept_new and one.part_of else None
        yield FunctionChange(
            "split" if parent else "appeared", one.name, one.module, None, None, None, one.frame, None,
            parent, come_beside.get(one.number, ()),
        )  # fmt: skip
    for one in matching.gone:
        parent = stem(one.name) if (one.module, stem(one.name)) in kept_old and one.part_of else None
        yield FunctionChange(
            "joined" if parent else "vanished", one.name, one.module, one.name, one.module, one.frame, None,
            None, parent, gone_beside.get(one.number, ()),
        )  # fmt: skip


def _beside(
    side: Snapshot, functions: Iterable[Function], pairs: Mapping[int, Pair], sign: int
) -> dict[int, tuple[tuple[str, int], ...]]:
    """Of each function that only this side has: its callers whose frames grew (`sign` 1) or shrank (-1)."""
    wanted = {one.number for one in functions}
    found = defaultdict[int, dict[int, tuple[str, int]]](dict)
    for caller, callee in zip(*side.edges, strict=True):
        if callee not in wanted or caller not in pairs:
            continue
        old, new = pairs[caller].old.frame, pairs[caller].new.frame
        if old is not None and new is not None and (new - old) * sign > 0:
            found[callee][caller] = (pairs[caller].new.name, new - old)
    return {
        callee: tuple(sorted(callers.values(), key=lambda one: (-abs(one[1]), one[0])))
        for callee, callers in found.items()
    }


def _changed(change: str, pair: Pair) -> FunctionChange:
    old, new = pair.old, pair.new
    return FunctionChange(change, new.name, new.module, old.name, old.module, old.frame, new.frame, pair.how)


def _moved(pair: Pair) -> bool:
    return pair.old.module != pair.new.module


def _opened(matching: Matching) -> Iterator[OpenChange]:
    """Open call sites by function and reason, where their number changed."""
    counts = defaultdict[tuple[str | None, str, str], list[int]](lambda: [0, 0])
    for pair in matching.pairs:
        for side, function in enumerate((pair.old, pair.new)):
            for reason, count in function.open.items():
                counts[pair.new.module, pair.new.name, reason][side] += count
    for side, functions in enumerate((matching.gone, matching.come)):
        for function in functions:
            for reason, count in function.open.items():
                counts[function.module, function.name, reason][side] += count
    for (module, name, reason), (old, new) in counts.items():
        if old != new:
            yield OpenChange(name, module, reason, old, new)


def _modules(old: Snapshot, new: Snapshot, changes: Sequence[FunctionChange]) -> list[ModuleChange]:
    """Modules in which something changed, the kernel first, then by growth."""
    sizes = [Counter(one.module for one in side.functions) for side in (old, new)]
    opened = [Counter[str | None](), Counter[str | None]()]
    for count, side in zip(opened, (old, new), strict=True):
        for one in side.functions:
            count[one.module] += one.open_sites
    by_module = defaultdict[str | None, list[FunctionChange]](list)
    for change in changes:
        by_module[change.module].append(change)
    found = []
    for module in sorted(set(sizes[0]) | set(sizes[1]), key=lambda name: name or ""):
        mine = by_module[module]
        grown = [one for one in mine if one.change == "grew"]
        shrunk = [one for one in mine if one.change == "shrank"]
        numbers = (sizes[0][module], sizes[1][module])
        open_sites = (opened[0][module], opened[1][module])
        if not mine and numbers[0] == numbers[1] and open_sites[0] == open_sites[1]:
            continue
        found.append(
            ModuleChange(
                module, numbers,
                sum(one.change in ("appeared", "split") for one in mine),
                sum(one.change in ("vanished", "joined") for one in mine),
                len(grown), len(shrunk), sum(one.growth for one in grown), -sum(one.growth for one in shrunk),
                max(grown, key=lambda one: one.growth, default=None), open_sites,
            )
        )  # fmt: skip
    found.sort(key=lambda one: (one.module is not None, -one.growth, one.module or ""))
    return found


# ---------------------------------------------------------------- stacks and contexts


def _needs(old: Iterable[Need], new: Iterable[Need]) -> list[NeedChange]:
    """Stacks of the layouts that both have, or contexts: those that changed, the greatest growth first."""
    before, after = ({need.key: need for need in side} for side in (old, new))
    if before and after and len(next(iter(before))) == 2:  # stacks
        layouts = {key[0] for key in before} & {key[0] for key in after}
        before, after = (
            {key: need for key, need in side.items() if key[0] in layouts} for side in (before, after)
        )
    found = []
    for key in [*after, *(key for key in before if key not in after)]:
        one, other = before.get(key), after.get(key)
        change = _need_change(one, other)
        if change:
            steps = tuple(_steps(one.chain, other.chain)) if one is not None and other is not None else ()
            found.append(NeedChange(change, key, one, other, steps))
    found.sort(key=lambda one: -one.growth)  # stable: else in the order of the new database
    return found


def _need_change(old: Need | None, new: Need | None) -> str:
    if old is None or new is None:
        return "appeared" if old is None else "vanished"
    if old.ladder == new.ladder and old.verdict == new.verdict and old.size == new.size:
        return ""
    for before, after in ((old.ladder.direct, new.ladder.direct), (old.ladder.bound, new.ladder.bound)):
        if (before is None) != (after is None):
            return "unbounded" if after is None else "bounded"
    growth = NeedChange("", new.key, old, new, ()).growth
    return "grew" if growth > 0 else "shrank" if growth < 0 else "changed"


def _steps(old: Sequence[Frame], new: Sequence[Frame]) -> list[ChainStep]:
    """By function, what grew most first; the differences add up to that of the chains' totals."""
    shares = defaultdict[tuple[str | None, str], list[list[Frame]]](lambda: [[], []])
    for side, chain in enumerate((old, new)):
        for frame in chain:
            shares[frame.module, stem(frame.name)][side].append(frame)
    found = []
    for (module, _), (before, after) in shares.items():
        bytes_before, bytes_after = (sum(frame.depth for frame in side) for side in (before, after))
        if bytes_before != bytes_after:
            name = (after or before)[0].name
            found.append(ChainStep(name, module, bytes_before, bytes_after, len(before), len(after)))
    found.sort(key=lambda one: (-one.growth, one.module or "", one.name))
    return found

"""The decision table for people, on one screen, and as JSON (stackfit.compare/1 in docs/schemas)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from stackfit.decision.model import Answer, Claim, Comparison, Outcome
from stackfit.layouts.model import PAGE, Layout, Stack
from stackfit.machine.children import process_stack
from stackfit.machine.model import Run
from stackfit.report.json import image_json, modules_json, verdicts_json
from stackfit.report.machine import chance_text, simulation_json, spread, stopped_text
from stackfit.report.terminal import direct_text, line, print_table
from stackfit.text import bytes_text, clean, number_text, size_text
from stackfit.verdict.model import StackNeed, Verdict

__all__ = ["compare_json", "decision_rows", "print_comparison"]

Json = dict[str, Any]
Row = tuple[str, list[str], str]  # question, answer by layout, evidence
_PAGE_KB = PAGE // 1024
_STYLE = {Answer.HOLDS: "green", Answer.IN_PART: "yellow", Answer.FAILS: "red", Answer.OPEN: "dim"}
_NOTHING = "—"


# JSON


def compare_json(comparison: Comparison, claims: Sequence[Claim]) -> Json:
    """The document of `compare --json`."""
    analysis = comparison.analysis
    return {
        "schema": "stackfit.compare/1",
        "image": None if analysis is None else image_json(analysis),
        "modules": [] if analysis is None else modules_json(analysis),
        "layouts": [layout.name for layout in comparison.layouts],
        "verdicts": None if analysis is None else verdicts_json(analysis),
        "interrupts": [
            {
                "layout": room.layout,
                "kind": room.kind,
                "stack": room.stack,
                "own": room.own,
                "usable": room.usable,
                "left": room.left,
                "evidence": "assumed",
            }
            for room in comparison.interrupt_rooms
        ],
        "process_stack": [
            {
                "layout": room.layout,
                "usable": room.usable,
                "deepest_call": room.deepest_call,
                "on_top": room.on_top,
                "for_calls": room.for_calls,
                "for_interrupts": room.for_interrupts,
                "evidence": "assumed",
            }
            for room in comparison.process_rooms
        ],
        "stack_memory": [
            {
                "layout": one.layout,
                "order": one.order,
                "least": one.least,
                "most": one.most,
                "per_cpu": one.per_cpu,
                "evidence": "proved",
            }
            for one in comparison.stack_memory
        ],
        "largest_frames": [
            {
                "layout": one.layout,
                "stack": one.stack,
                "function": one.function,
                "module": one.module,
                "bytes": one.bytes,
                "evidence": "proved",
            }
            for one in comparison.largest_frames
        ],
        "worst_module": _module_json(comparison),
        "scenarios": [
            simulation_json(found[0].scenario, [run for one in found for run in one.runs])
            for found in _by_scenario(comparison)
        ],
        "claims": [
            {
                "key": one.key,
                "quote": one.quote,
                "answer": one.answer.value,
                "text": one.text,
                "rule": one.rule,
                "evidence": one.evidence,
                "source": one.source or None,
                "numbers": [
                    {
                        "layout": number.layout or None,
                        "name": number.name,
                        "value": number.value,
                        "unit": number.unit,
                        "evidence": number.evidence,
                    }
                    for number in one.numbers
                ],
            }
            for one in claims
        ],
    }


def _module_json(comparison: Comparison) -> Json | None:
    module = comparison.module
    if module is None:
        return None
    return {
        "name": module.name,
        "kind": module.kind,
        "of": module.of,
        "own": module.own,
        "function": module.function,
        "adds": module.through.own.upper,
        "adds_found": module.through.own.found,
        "evidence": "open",
    }


def _by_scenario(comparison: Comparison) -> list[list[Outcome]]:
    """Outcomes of each scenario, layout by layout."""
    found: dict[int, list[Outcome]] = {}
    for one in comparison.outcomes:
        found.setdefault(id(one.scenario), []).append(one)
    return list(found.values())


# terminal


def decision_rows(comparison: Comparison) -> tuple[tuple[str, list[Row]], ...]:
    """The decision table: (section, rows), a section without any left out."""
    sections = (
        ("Does it fit?", _fit_rows(comparison)),
        ("What was really used?", _use_rows(comparison)),
        ("What does it buy?", _buy_rows(comparison)),
        ("What to fix?", _fix_rows(comparison)),
    )
    return tuple(section for section in sections if section[1])


def print_comparison(console: Console, comparison: Comparison, claims: Sequence[Claim]) -> None:
    """The decision table: does it fit, what was used, what does it buy, what to fix; then the claims."""
    _print_head(console, comparison)
    columns = [("", "left"), *((layout.name, "left") for layout in comparison.layouts), ("evidence", "left")]
    rows: list[list[str]] = []
    styles: list[str] = []
    for title, found in decision_rows(comparison):
        rows.append([title, *("" for _ in comparison.layouts), ""])
        styles.append("bold")
        for question, answers, evidence in found:
            rows.append([f"  {question}", *answers, evidence])
            styles.append("")
    print_table(console, "", columns, rows, styles)
    before, after = comparison.layouts[0].name, comparison.layouts[-1].name
    if claims:
        print_table(
            console,
            f'Claims of "4K Stacks in 2.6", for {before} (before) and {after} (after); --json has the rules',
            [("claim", "left"), ("answer", "left"), ("number", "left"), ("evidence", "left")],
            [[f'"{one.short}"', one.answer.value, one.text, one.evidence] for one in claims],
            [_STYLE[one.answer] for one in claims],
        )
    _print_notes(console, comparison)


def _print_head(console: Console, comparison: Comparison) -> None:
    analysis = comparison.analysis
    if analysis is None:
        line(console, "No image given: what a stack must hold is open.", style="yellow")
        return
    kernel, modules = analysis.program.images[0], len(analysis.program.images) - 1
    release = f", Linux {kernel.release}" if kernel.release else ""
    given = f"{number_text(modules)} module{'' if modules == 1 else 's'}" if modules else "no modules given"
    line(console, f"{clean(kernel.path)}: {kernel.machine.value}{release}, {given}", style="bold")
    for warning in analysis.warnings:
        line(console, f"warning: {warning}", "yellow")


def _fit_rows(comparison: Comparison) -> list[Row]:
    layouts, rows = comparison.layouts, list[Row]()
    for name in dict.fromkeys(stack.name for layout in layouts for stack in layout.stacks):
        stacks = [_stack(layout, name) for layout in layouts]
        needs = [comparison.need(layout, name) for layout in layouts]
        sizes = [_NOTHING if stack is None else _size(stack) for stack in stacks]
        if all(need is None or need.verdict is Verdict.NOT_ANALYSED for need in needs):
            if any(stack is not None and stack.runs for stack in stacks):
                rows.append((f"{name}: size", sizes, "layout"))
            continue
        rows.append(
            (f"{name}: size, verdict", [_verdict(*one) for one in zip(sizes, needs, strict=True)], "")
        )
        rows.append(("  direct · bound", [_ladder(need) for need in needs], _open_text(needs)))
        rows.append(("  headroom", [_headroom(need) for need in needs], _assumed_text(needs)))
    rows += _interrupt_rows(comparison)
    chances = [
        next((run.chance for one in comparison.of(layout) for run in one.runs if run.chance), None)
        for layout in layouts
    ]
    if any(chances):
        texts = [_NOTHING if one is None else chance_text(one) for one in chances]
        rows.append(("overflow, chance an hour", texts, _storm(comparison)))
    return rows


def _stack(layout: Layout, name: str) -> Stack | None:
    return next((stack for stack in layout.stacks if stack.name == name), None)


def _size(stack: Stack) -> str:
    how = stack.allocation if stack.order is None else f"order {stack.order}"
    return f"{size_text(stack.size)} a {stack.per}, {how}"


def _verdict(size: str, need: StackNeed | None) -> str:
    return size if need is None else f"{size}: {need.verdict.value}"


def _ladder(need: StackNeed | None) -> str:
    if need is None or need.direct is None:
        return _NOTHING
    bound = "none" if need.bound is None else bytes_text(need.bound, need.lower_bound)
    return f"{direct_text(need)} · {bound}"


def _headroom(need: StackNeed | None) -> str:
    if need is None:
        return _NOTHING
    least = "≤ " if need.lower_bound and need.headroom is not None else ""  # what is open may take of it
    return f"{least}{bytes_text(need.headroom)} ({need.why})"


def _open_text(needs: Sequence[StackNeed | None]) -> str:
    counts = [need.open.total for need in needs if need is not None]
    return f"open: {number_text(max(counts))} items" if any(counts) else "proved over direct calls"


def _assumed_text(needs: Sequence[StackNeed | None]) -> str:
    counts = [len(need.assumed) for need in needs if need is not None]
    return f"{number_text(max(counts))} assumptions" if any(counts) else ""


def _interrupt_rows(comparison: Comparison) -> list[Row]:
    """What each interrupt has, on top of the deepest system call of the scenario."""
    rows = []
    for kind in dict.fromkeys(room.kind for room in comparison.interrupt_rooms):
        cells = []
        for layout in comparison.layouts:
            room = next(
                (one for one in comparison.interrupt_rooms if (one.layout, one.kind) == (layout.name, kind)),
                None,
            )
            if room is None:
                cells.append(_NOTHING)
            elif room.own:
                cells.append(f"{bytes_text(room.usable)} of its own ({room.stack})")
            else:
                cells.append(f"{bytes_text(room.left)} left of {number_text(room.usable)} ({room.stack})")
        rows.append(
            (f"{kind} interrupt has" if kind != "softirq" else "softirq has", cells, _storm(comparison))
        )
    if comparison.process_rooms:
        rooms = {room.layout: room for room in comparison.process_rooms}
        calls = [bytes_text(rooms[layout.name].for_calls) for layout in comparison.layouts]
        rows.append(("system call has, under interrupts", calls, _storm(comparison)))
    return rows


def _storm(comparison: Comparison) -> str:
    name = next((one.scenario.name for one in comparison.outcomes if one.scenario.storm is not None), "")
    return f"assumed: {clean(name)}"


def _use_rows(comparison: Comparison) -> list[Row]:
    """Of each stack what was seen in use, and the deepest chain put together from calls that were."""
    nothing = [_NOTHING for _ in comparison.layouts]
    analysis = comparison.analysis
    if analysis is None or not analysis.recordings:
        return [("deepest chain measured", nothing, "open: no measurement given (--traces)")]
    rows = list[Row]()
    for name in dict.fromkeys(stack.name for layout in comparison.layouts for stack in layout.stacks):
        needs = [comparison.need(layout, name) for layout in comparison.layouts]
        for title, values in (
            (f"{name}: measured", [None if need is None else need.measured for need in needs]),
            ("  composed", [None if need is None else need.composed for need in needs]),
        ):
            if any(value is not None for value in values):
                by = next((need.measured_by for need in needs if need is not None and need.measured_by), "")
                deeper = any(
                    None not in (need.measured, need.composed) and need.measured > need.composed  # type: ignore[operator]
                    for need in needs
                    if need is not None
                )
                calls = (
                    "of the calls seen, not all of those measured" if deeper else "calls seen, depths proved"
                )
                evidence = f"measured: {by}" if "measured" in title else calls
                rows.append((title, [_of_size(*one) for one in zip(values, needs, strict=True)], evidence))
    return rows or [("deepest chain measured", nothing, "open: no recorded chain is of these stacks")]


def _of_size(value: int | None, need: StackNeed | None) -> str:
    """Bytes, and what share of the stack they are."""
    if value is None or need is None:
        return _NOTHING
    return f"{bytes_text(value)} ({100 * value / need.stack.size:.0f} %)"


def _buy_rows(comparison: Comparison) -> list[Row]:
    rows = list[Row]()
    kept = comparison.stack_memory
    texts = []
    for one in kept:
        text = f"{number_text(one.least // 1024)} kB"
        if one.most != one.least:
            text += f" to {number_text(one.most // 1024)} kB, {one.per_cpu // 1024} kB a CPU besides"
        texts.append(text)
    rows.append(("stacks of 1 000 threads", texts, "layout"))
    for found in _by_scenario(comparison):
        scenario = found[0].scenario
        if scenario.memory is None:
            continue
        runs = [one.median for one in found]
        evidence = "model" if scenario.era.evidence == "checked" else f"model, {scenario.era.name} assumed"
        cells = [f"{spread([run.processes for run in one.runs])}: {_end(one)}" for one in found]
        many = "threads" if runs[0].mode == "thread" else "processes"
        rows.append((f"{many}, {clean(scenario.name)}", cells, evidence))
        if any(run.reclaim.scanned or run.compaction.migrated for run in runs):
            rows.append(("  by requests themselves", [_work(run) for run in runs], evidence))
        if any(run.reclaim.kswapd_scanned or _slowed(run) for run in runs):
            background = [_background(run) for run in runs]
            rows.append(("  kswapd; fork p50 … p99", background, f"{evidence}; times assumed"))
    rows += _contiguous_rows(comparison)
    return rows


def _end(outcome: Outcome) -> str:
    run = outcome.median
    stacks = f"; stacks {number_text(run.stack_bytes // 1024)} kB" if run.stopped_by == "limit" else ""
    return f"{stopped_text(run)}{stacks}; {number_text(run.free_pages * _PAGE_KB)} kB free"


def _work(run: Run) -> str:
    reclaim, compaction = run.reclaim, run.compaction
    text = f"{number_text(reclaim.stalls)} stalls, {number_text(reclaim.scanned)} pages scanned"
    return text + (f", {number_text(compaction.migrated)} migrated" if compaction.migrated else "")


def _slowed(run: Run) -> bool:
    return run.fork_latency.p50 != run.fork_latency.p99


def _background(run: Run) -> str:
    latency = run.fork_latency
    times = _NOTHING if latency.p50 is None else f"{latency.p50:.0f} … {latency.p99:.0f} µs"
    return f"{number_text(run.reclaim.kswapd_scanned)} scanned; {times}"


def _contiguous_rows(comparison: Comparison) -> list[Row]:
    """Blocks above order 0 of one fork, by the costs that the scenarios take."""
    rows = []
    seen = set[str]()
    for found in _by_scenario(comparison):
        cost = found[0].scenario.cost
        if cost is None or cost.name in seen:
            continue
        seen.add(cost.name)
        cells = [clean(", ".join(map(str, each.runs[0].contiguous))) or "none" for each in found]
        rows.append((f"fork above order 0, {clean(cost.name)}", cells, cost.evidence))
    return rows


def _fix_rows(comparison: Comparison) -> list[Row]:
    rows = list[Row]()
    by_layout = {(one.layout, one.stack): one for one in comparison.largest_frames}
    for name in dict.fromkeys(one.stack for one in comparison.largest_frames):
        cells = []
        for layout in comparison.layouts:
            one = by_layout.get((layout.name, name))
            where = f" [{clean(one.module)}]" if one is not None and one.module else ""
            cells.append(_NOTHING if one is None else f"{bytes_text(one.bytes)} {clean(one.function)}{where}")
        rows.append((f"largest frame of the chain, {name}", cells, "proved"))
    module = comparison.module
    if module is not None:
        rooms = {(one.layout.name, one.stack.name): one.room_found for one in module.through.stacks}
        homes = [(layout.name, process_stack(layout).name) for layout in comparison.layouts]
        below = module.through.own.found
        cells = [
            f"{clean(module.name)}: {bytes_text(below)} below a call into it, leaves its caller"
            f" {bytes_text(rooms.get(home))}"
            for home in homes
        ]
        binary = module.kind == "binary-only"
        what = "worst binary-only module" if binary else f"no binary-only module; worst {module.kind}"
        rows.append((what, cells, "open: calls through pointers"))
    elif comparison.analysis is not None:
        rows.append(
            ("worst binary-only module", [_NOTHING for _ in comparison.layouts], "open: no module given")
        )
    return rows


def _print_notes(console: Console, comparison: Comparison) -> None:
    if any(verdict.hypothetical for verdict in comparison.verdicts):
        names = ", ".join(one.layout.name for one in comparison.verdicts if one.hypothetical)
        line(
            console,
            f"{clean(names)}: hypothetical, the kernel switches stacks where this layout has none:"
            " a plain call",
        )
    said = dict.fromkeys(
        text
        for one in comparison.outcomes
        if one.scenario.era.evidence != "checked"
        for text in one.runs[0].assumptions
        if text == one.scenario.era.assumption
    )
    for text in said:
        line(console, f"Assumed: {clean(text)}.", style="yellow")
    line(
        console,
        "assumptions, chains, rules: --json; one scenario: stackfit simulate; one layout: stackfit check",
        "dim",
    )

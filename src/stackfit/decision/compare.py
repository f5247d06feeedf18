"""Layouts side by side: what each must hold, what it holds under interrupts, how far processes get on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stackfit.analysis import Analysis
from stackfit.decision.model import (
    Comparison,
    InterruptRoom,
    LargestFrame,
    Outcome,
    ProcessRoom,
    StackMemory,
)
from stackfit.decision.modules import worst_module
from stackfit.image.model import InputError, Machine
from stackfit.layouts.model import INTERRUPTED, PAGE, Layout, Stack
from stackfit.machine.children import process_stack
from stackfit.machine.interrupts_model import Storm
from stackfit.machine.scenario import Scenario
from stackfit.machine.simulate import seeds_of, simulate_all

__all__ = ["DEFAULT_SCENARIOS", "Progress", "check_layouts", "compare", "default_scenarios"]

Progress = Callable[[str, float], None]  # what is being done, share done
THREADS = 1000  # that stack memory is given for

#: Scenarios of a comparison that names none: by machine, those whose costs and depths are the machine's.
DEFAULT_SCENARIOS = {
    Machine.I386: (
        "fresh-boot",
        "anon-holes",
        "debian-fresh",
        "debian-locked",
        "reclaim-thrash",
        "interrupt-storm",
    ),
    Machine.X86_64: ("fleet-host", "interrupt-storm-amd64"),
}


def _silent(step: str, share: float) -> None:
    pass


def check_layouts(layouts: Sequence[Layout]) -> None:
    """InputError: fewer than two layouts, two of one name, or for different machines."""
    if len(layouts) < 2:
        raise InputError("--layout", "a comparison needs two layouts or more")
    names: set[str] = set()
    machines: dict[Machine, Layout] = {}
    for layout in layouts:
        if layout.name in names:
            raise InputError(layout.path or layout.name, f"a second layout named {layout.name}")
        names.add(layout.name)
        if layout.machine is not None:
            machines.setdefault(layout.machine, layout)
    if len(machines) > 1:
        (machine, first), (other, second), *_ = machines.items()
        cause = f"the layout {second.name} is for {other.value}, {first.name} is for {machine.value}"
        raise InputError(second.path or second.name, cause)


def default_scenarios(layouts: Sequence[Layout], machine: Machine | None) -> tuple[str, ...]:
    """Names of the shipped scenarios for an image's machine, else for the layouts'. InputError: it has
    none."""
    found = machine or next((one.machine for one in layouts if one.machine is not None), Machine.X86_64)
    if found not in DEFAULT_SCENARIOS:
        raise InputError("--scenario", f"none ships for {found.value}: name one")
    return DEFAULT_SCENARIOS[found]


def compare(
    layouts: Sequence[Layout],
    analysis: Analysis | None,
    scenarios: Sequence[Scenario],
    seeds: int | None = None,
    progress: Progress = _silent,
) -> Comparison:
    """Every layout with the image's verdicts (`analysis`, made for the same layouts in the same order) and
    every scenario, `seeds` runs each (None: as many as it takes, `seeds_of`). InputError as check_layouts
    and machine.simulate."""
    check_layouts(layouts)
    outcomes = _outcomes(layouts, scenarios, seeds, progress)
    progress("comparing", 1.0)
    storms = [scenario.storm for scenario in scenarios if scenario.storm is not None]
    storm = storms[0] if storms else None
    return Comparison(
        layouts=tuple(layouts),
        analysis=analysis,
        outcomes=outcomes,
        process_rooms=tuple(_process_room(one, storm, outcomes) for one in layouts) if storm else (),
        interrupt_rooms=tuple(room for one in layouts for room in _interrupt_rooms(one, storm))
        if storm
        else (),
        stack_memory=tuple(_stack_memory(one) for one in layouts),
        largest_frames=_largest_frames(analysis) if analysis is not None else (),
        module=worst_module(analysis) if analysis is not None else None,
    )


def _outcomes(
    layouts: Sequence[Layout], scenarios: Sequence[Scenario], seeds: int | None, progress: Progress
) -> tuple[Outcome, ...]:
    found: list[Outcome] = []
    for number, scenario in enumerate(scenarios):

        def step(title: str, share: float, number: int = number) -> None:
            progress(title, (number + share) / len(scenarios))

        runs = simulate_all(scenario, layouts, seeds, step)
        each = seeds_of(scenario, seeds)
        found += [
            Outcome(scenario, layout, tuple(runs[at * each : (at + 1) * each]))
            for at, layout in enumerate(layouts)
        ]
    return tuple(found)


def _stack_memory(layout: Layout) -> StackMemory:
    stack = process_stack(layout)
    least = stack.size if stack.mapped is None else stack.mapped
    return StackMemory(
        layout.name,
        stack.order,
        THREADS * -(-least // PAGE) * PAGE,
        THREADS * stack.pages * PAGE,
        stack.reserve_per_cpu or 0,
    )


# interrupts, under the depths of a scenario


def _interrupted(layout: Layout) -> Stack:
    stack = layout.home("syscall") or layout.home("task")
    if stack is None:
        raise InputError(layout.path or layout.name, "no stack runs syscall or task, so none is interrupted")
    return stack


def _kinds(storm: Storm) -> tuple[str, ...]:
    kinds = [source.kind for source in storm.sources]
    if any(source.softirq is not None for source in storm.sources):
        kinds.append("softirq")
    return tuple(dict.fromkeys(kinds))


def _interrupt_rooms(layout: Layout, storm: Storm) -> list[InterruptRoom]:
    process = _interrupted(layout)
    rooms = []
    for kind in _kinds(storm):
        target = layout.target(kind, user=False)
        stack = process if target == INTERRUPTED else layout.stack(target)
        own = stack.name != process.name
        left = stack.usable if own else stack.usable - storm.process.depth.greatest
        rooms.append(InterruptRoom(layout.name, kind, stack.name, own, stack.usable, left))
    return rooms


def _process_room(layout: Layout, storm: Storm, outcomes: Sequence[Outcome]) -> ProcessRoom:
    process, call = _interrupted(layout), storm.process.depth.greatest
    others = {room.stack: room.usable for room in _interrupt_rooms(layout, storm) if room.own}
    chances = (
        run.chance
        for one in outcomes
        for run in one.runs
        if one.layout is layout and one.scenario.storm is storm
    )
    chance = next((one for one in chances if one is not None), None)
    deepest = chance.deepest.get(process.name) if chance is not None else None
    # Whatever the deepest chain of contexts is, a system call can be below it.
    on_top = None if deepest is None else max(deepest - call, 0)
    return ProcessRoom(layout.name, process.usable, call, on_top, sum(others.values()))


# what to fix


def _largest_frames(analysis: Analysis) -> tuple[LargestFrame, ...]:
    functions, images = analysis.code.functions, analysis.program.images
    found = []
    for verdict in analysis.verdicts:
        for need in verdict.stacks:
            if need.chain is None or not need.chain.chain:
                continue
            link = max(need.chain.chain, key=lambda one: one.depth)
            found.append(
                LargestFrame(
                    verdict.layout.name,
                    need.stack.name,
                    functions.names[link.function],
                    images[int(functions.image[link.function])].module,
                    link.depth,
                )
            )
    return tuple(found)

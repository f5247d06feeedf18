"""The HTML report of simulations: processes, the blocks that free memory is left in, reclaim's work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stackfit.layouts.model import PAGE
from stackfit.machine.model import Run
from stackfit.machine.scenario import Scenario
from stackfit.report.html_model import Block, Cell, Figure, Grid, Page, Prose, Section, Series, bars, lines
from stackfit.report.machine import chance_text, spread, stopped_text
from stackfit.text import bytes_text, number_text

__all__ = ["scenario_section", "simulation_page"]

_MEGABYTE = 1 << 20


def simulation_page(scenario: Scenario, runs: Sequence[Run]) -> Page:
    """The report of `simulate SCENARIO`."""
    layouts = list(dict.fromkeys(run.layout for run in runs))
    facts = [("layouts", ", ".join(layouts)), ("seeds", number_text(len({run.seed for run in runs})))]
    if scenario.memory is not None:
        facts.append(("rules of the page allocator", f"{scenario.era.name} ({scenario.era.evidence})"))
    facts.append(("evidence", "a model: assumed"))
    return Page("Simulation", scenario.name, tuple(facts), (scenario_section(scenario, runs),))


def scenario_section(scenario: Scenario, runs: Sequence[Run], key: str = "scenario") -> Section:
    """One scenario on layouts. `key`: told apart from other scenarios of a page."""
    return Section(key, scenario.name, tuple(_blocks(scenario, runs, key)))


def _blocks(scenario: Scenario, runs: Sequence[Run], key: str) -> Iterable[Block]:
    yield Prose((scenario.description,))
    by_layout: dict[str, list[Run]] = {}
    for run in runs:
        by_layout.setdefault(run.layout, []).append(run)
    if scenario.memory is not None:
        yield _outcomes(by_layout)
        yield from _plots(by_layout, key)
    if scenario.storm is not None:
        yield from _storm(by_layout)
    rows = tuple((text,) for text in runs[0].assumptions)
    if rows:
        yield Grid("Assumed", (("assumption", "left"),), rows)


def _median(found: Sequence[Run]) -> Run:
    return sorted(found, key=lambda run: run.processes)[len(found) // 2]


def _many(run: Run) -> str:
    return "threads" if run.mode == "thread" else "processes"


def _outcomes(by_layout: dict[str, list[Run]]) -> Grid:
    columns = (
        ("layout", "short"), ("children", "right"), ("stopped by", "short"), ("free then", "right"),
        ("stacks", "right"), ("stalls", "right"), ("scanned by requests", "right"),
        ("by kswapd", "right"), ("migrated", "right"), ("fork p50", "right"), ("p99", "right"),
    )  # fmt: skip
    rows = []
    for layout, found in by_layout.items():
        run = _median(found)
        latency = run.fork_latency
        rows.append((
            layout,
            f"{spread([one.processes for one in found])} {_many(run)}",
            stopped_text(run),
            f"{number_text(run.free_pages * PAGE // 1024)} kB",
            f"{number_text(run.stack_bytes // 1024)} kB",
            number_text(run.reclaim.stalls),
            number_text(run.reclaim.scanned),
            number_text(run.reclaim.kswapd_scanned),
            number_text(run.compaction.migrated),
            "—" if latency.p50 is None else f"{latency.p50:.0f} µs",
            "—" if latency.p99 is None else f"{latency.p99:.0f} µs",
        ))  # fmt: skip
    several = any(len(found) > 1 for found in by_layout.values())
    title = "Outcome; of several seeds the median run, and what the runs span" if several else "Outcome"
    return Grid(title, columns, tuple(rows))


def _plots(by_layout: dict[str, list[Run]], key: str) -> Iterable[Figure]:
    medians = {layout: _median(found) for layout, found in by_layout.items()}
    counts = {layout: [run.processes for run in found] for layout, found in by_layout.items()}
    many = _many(next(iter(medians.values())))
    yield bars(
        f"{key}-children",
        f"{many.capitalize()} alive at the end, by layout",
        list(by_layout),
        [
            Series(
                many,
                [medians[layout].processes for layout in by_layout],
                low=[min(found) for found in counts.values()],
                high=[max(found) for found in counts.values()],
            )
        ],
        many,
        f"{many.capitalize()} alive at the end: "
        + ", ".join(f"{run.processes} on {layout}" for layout, run in medians.items()),
        "The line spans the runs of all seeds."
        if any(len(set(found)) > 1 for found in counts.values())
        else "",
    )
    most = max((one.free_pages for run in medians.values() for one in run.samples), default=0)
    for number, (layout, run) in enumerate(medians.items()):
        yield _free(f"{key}-free-{number}", layout, run, 1.05 * most * PAGE / _MEGABYTE)
    for name, field in (("requests themselves", "scanned"), ("kswapd", "kswapd_scanned")):
        work = {layout: getattr(run.reclaim, field) for layout, run in medians.items()}
        if any(work.values()):
            yield lines(
                f"{key}-{field}",
                f"Reclaim by {name} over time",
                [
                    Series(layout, [getattr(one, field) for one in run.samples], _forks(run))
                    for layout, run in medians.items()
                ],
                ("children made", "pages scanned since the first"),
                "Pages scanned: " + ", ".join(f"{count} on {layout}" for layout, count in work.items()),
                half=True,
            )


def _forks(run: Run) -> list[int]:
    return [one.forks for one in run.samples]


def _free(key: str, layout: str, run: Run, top: float) -> Figure:
    """Free memory by the order of the block that it lies in; the scale ends at `top` MiB."""
    orders = range(max((len(one.buddyinfo) for one in run.samples), default=0))
    series = [
        Series(
            f"order {order}",
            [(one.buddyinfo[order] << order) * PAGE / _MEGABYTE for one in run.samples],
            _forks(run),
        )
        for order in orders
    ]
    end = (
        ", ".join(f"{count} of order {order}" for order, count in enumerate(run.buddyinfo) if count) or "none"
    )
    return lines(
        key,
        f"Free memory by order of its blocks: {layout}, seed {run.seed}",
        series,
        ("children made", "MiB free, stacked by order"),
        f"Free blocks at the end on {layout}: {end}",
        f"Free blocks at the end: {end}. Stopped by: {stopped_text(run)}.",
        stacked=True,
        top=top,
        half=True,
    )


def _storm(by_layout: dict[str, list[Run]]) -> Iterable[Block]:
    rows: list[tuple[str | Cell, ...]] = []
    chances: list[tuple[str | Cell, ...]] = []
    for layout, found in by_layout.items():
        storm, chance = found[0].storm, found[0].chance
        assert storm is not None and chance is not None
        for use in storm.stacks:
            chain = use.overflow_chains[0] if use.overflow_chains else use.chain
            overflows = Cell(number_text(use.overflows), "bad" if use.overflows else "")
            rows.append((
                layout, use.name, bytes_text(use.usable), bytes_text(use.greatest), overflows,
                "—" if chain is None else str(chain),
            ))  # fmt: skip
        chances.append((layout, chance_text(chance)))
    yield Grid(
        f"Stacks under interrupts, seed {next(iter(by_layout.values()))[0].seed}",
        (("layout", "short"), ("stack", "short"), ("usable", "right"), ("deepest", "right"),
         ("overflows", "right"), ("chain", "left")),
        tuple(rows),
    )  # fmt: skip
    yield Grid("Chance of an overflow per hour", (("layout", "short"), ("chance", "left")), tuple(chances))

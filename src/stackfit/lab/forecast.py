"""What the model says of a run before it is made: its scenario from the machine as it is after boot.

The inputs are /proc files of a boot in which no child was made, and what is known of the guest's program.
Nothing
of a run's outcome goes in.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackfit.image.model import InputError
from stackfit.lab.cases import CHURN, LEAVE, RECLAIM, Case
from stackfit.lab.console import GuestLog
from stackfit.layouts.model import Layout
from stackfit.machine.model import Run
from stackfit.machine.scenario import parse_scenario
from stackfit.machine.simulate import simulate
from stackfit.pages.procfs import Zone, parse_pagetypeinfo, parse_zoneinfo

__all__ = [
    "Forecast",
    "Slab",
    "costs_text",
    "disk_times",
    "forecast",
    "per_cpu_pages",
    "scenario_table",
    "slabs",
    "zone_table",
]

_REGION = 1 << 10  # pages: what zones are counted from a multiple of
_PAGE_TABLE = 4 << 20  # bytes that one page table maps (i386 without PAE)
_QUANTILES = 50
_AT_ONCE = 12.0  # microseconds from a request to its end, where the disk answers at once (docs/experiment.md)
_FILLED = {"anon": "anonymous", "ramfs": "ramfs", "cache": "device"}
# Objects of the costs → caches of /proc/slabinfo.
_CACHES = {
    "cred": "cred_jar", "files_struct": "files_cache", "fs_struct": "fs_cache",
    "sighand_struct": "sighand_cache", "signal_struct": "signal_cache", "maple node": "maple_node",
}  # fmt: skip


@dataclass(frozen=True)
class Slab:
    """A cache of /proc/slabinfo: objects a slab, pages of one, objects in use."""

    objects: int
    pages: int
    active: int

    @property
    def order(self) -> int:
        return self.pages.bit_length() - 1


@dataclass(frozen=True)
class Forecast:
    """Of all seeds. `processes`: the median, least and greatest. `failed_order`: of most. `rates`: counters
    per 1,000 forks, least, median, greatest. The rest: medians."""

    processes: int
    least: int
    most: int
    failed_order: int | None
    stopped_by: str
    free_before_kb: int
    free_after_kb: int
    counters: Mapping[str, float]
    rates: Mapping[str, Sequence[float]] = field(default_factory=dict)


def slabs(text: str) -> dict[str, Slab]:
    pattern = r"^(\S+) +(\d+) +\d+ +\d+ +(\d+) +(\d+) :"
    return {
        name: Slab(int(objects), int(pages), int(active))
        for name, active, objects, pages in re.findall(pattern, text, re.M)
    }


def costs_text(base: str, boot: GuestLog, name: str, source: str) -> str:
    """The costs of a fork (machine/costs) on a kernel: which objects, from costs known for such a kernel; how
    many of them a slab has, and its order, from the kernel itself. `base`: those costs, TOML."""
    caches = slabs(boot.sections["boot", 0, "/proc/slabinfo"])
    table = tomllib.loads(base)
    regions = _page_tables(boot.sections["boot", 0, "/proc/self/maps"])
    lines = [
        f'name = "{name}"', f'machine = "{table["machine"]}"', f'evidence = "{table["evidence"]}"',
        f'source = "{source}"', f'page_table_maps = {table["page_table_maps"]}',
    ]  # fmt: skip
    for one in table["allocation"]:
        lines += ["", "[[allocation]]", f'what = "{one["what"]}"']
        if "slab" in one:
            cache = caches.get(_CACHES.get(one["what"], one["what"]))
            if cache is None:
                raise InputError(name, f"/proc/slabinfo of the guest has no cache of {one['what']}")
            lines.append(f"slab = {{ objects = {cache.objects}, order = {cache.order} }}")
        elif one.get("stack"):
            lines.append("stack = true")
        else:
            lines.append(f"order = {one['order']}")
        if one.get("movable"):
            lines.append("movable = true")
        for key in ("per_process", "per_thread"):
            if key in one:
                number = regions if (one["what"], key) == ("page table", "per_process") else one[key]
                lines.append(f"{key} = {number}")
    return "\n".join(lines) + "\n"


def _page_tables(maps: str) -> int:
    """Page tables that a child of the program gets: one for each 4 MiB in which it has mappings of its own.
    (The
    buffers that it does not inherit are left out: they lie beside a mapping that it does.)"""
    regions: set[int] = set()
    for first, last in re.findall(r"^([0-9a-f]+)-([0-9a-f]+) ", maps, re.M):
        regions.update(range(int(first, 16) // _PAGE_TABLE, (int(last, 16) - 1) // _PAGE_TABLE + 1))
    return len(regions)


def scenario_table(case: Case, boot: GuestLog, costs: str, compaction: bool) -> dict[str, Any]:
    """The case as a scenario, on the machine as `boot` shows it. `costs`: name or file."""
    zones = [
        zone for zone in parse_zoneinfo(case.name, boot.sections["boot", 0, "/proc/zoneinfo"]) if zone.managed
    ]
    caches = slabs(boot.sections["boot", 0, "/proc/slabinfo"])
    table: dict[str, Any] = {
        "name": case.name,
        "description": "a run of the experiment",
        "costs": costs,
        "layouts": ["-"],
        "memory": {
            "block_order": 10,
            "compaction": compaction,
            "boost": case.condition == "boost",
            "per_cpu_pages": per_cpu_pages(boot.sections["boot", 0, "/proc/zoneinfo"], zones[-1]),
            "min_free_kb": sum(zone.minimum for zone in zones) * 4,
            "zone": [zone_table(boot.sections, zone) for zone in zones],
            **({"swap_kb": 65536} if case.reclaim else {}),
        },
        "step": _reclaim(RECLAIM[case.state], caches) if case.reclaim else _steps(case, caches),
    }
    if case.reclaim:
        table["time"] = disk_times(boot)
    if case.condition == "threads":
        table["limits"] = {"threads_max": "default", "tasks": _tasks(boot)}
    return table


def disk_times(boot: GuestLog) -> dict[str, Any]:
    """How long the disk takes, from the boot's own reads: the fastest is the work of a read, with nothing to
    wait for; what the others take longer is the disk. Quantiles, equally likely."""
    took = sorted(one / 1000 for one in boot.disk)
    if not took:
        raise InputError("boot", "the guest has not read its disk")
    fastest = took[len(took) // _QUANTILES // 2]
    middles = [took[len(took) * (2 * part + 1) // (2 * _QUANTILES)] for part in range(_QUANTILES)]
    return {"read": fastest, "disk": [round(max(one - fastest, 0.0) + _AT_ONCE, 1) for one in middles]}


def _reclaim(load: Mapping[str, int], caches: Mapping[str, Slab]) -> list[dict[str, Any]]:
    return [
        {"do": "fill", "kind": "anonymous", "kb": load["anon"]},
        {"do": "fill", "kind": "device", "until_free_kb": load["leave"], "slabs": [_tree(caches)]},
        {"do": "churn", "kind": "device", "rounds": load["rounds"], "pages": load["pages"], "back": True},
        {
            "do": "cycle",
            "mode": "process",
            "alive": load["alive"],
            "forks": load["forks"],
            "touch": load["use"],
        },
    ]


def _tree(caches: Mapping[str, Slab]) -> int:
    """Pages of a file for which its tree (lib/xarray.c: a node for 64) takes one page."""
    return 64 * caches["radix_tree_node"].objects


def _steps(case: Case, caches: Mapping[str, Slab]) -> list[dict[str, Any]]:
    children = {"do": "children", "mode": case.mode}
    if case.state == "fresh":
        return [children]
    kind = _FILLED[case.state]
    fill: dict[str, Any] = {"do": "fill", "kind": kind, "until_free_kb": LEAVE[case.state]}
    punch, pin = {"do": "punch", "kind": kind}, {"do": "pin", "kind": kind}
    if kind == "anonymous":
        return [fill, punch, pin, children]
    fill["slabs"] = [_tree(caches)]
    if kind == "ramfs":
        return [fill, punch, children]
    # Locking a page splits its mapping in two; the tree that holds mappings has some 16 a node.
    mappings, nodes = caches["vm_area_struct"].objects, caches["maple_node"].objects
    churn = {"do": "churn", "kind": kind, **CHURN, "back": True}
    return [fill, churn, punch, {**pin, "slabs": [max(mappings // 2, 1), nodes * 8]}, children]


def _tasks(boot: GuestLog) -> int:
    """Tasks that there are already: kernel threads, and init."""
    found = re.search(r"\d+/(\d+)", boot.sections["boot", 0, "/proc/loadavg"])
    return int(found[1]) if found else 0


def forecast(case: Case, table: Mapping[str, Any], layout: Layout, seeds: int) -> Forecast:
    """Median over the seeds. InputError: memory runs out before the first child."""
    scenario = parse_scenario(dict(table), case.name)
    runs = sorted((simulate(scenario, layout, seed) for seed in range(seeds)), key=lambda run: run.processes)
    middle = runs[len(runs) // 2]
    counted = [_counters(run) for run in runs]
    return Forecast(
        processes=middle.processes,
        least=runs[0].processes,
        most=runs[-1].processes,
        failed_order=Counter(run.failed_order for run in runs).most_common(1)[0][0],
        stopped_by=Counter(run.stopped_by for run in runs).most_common(1)[0][0],
        free_before_kb=middle.before_free_pages * 4,
        free_after_kb=middle.free_pages * 4,
        counters=_medians(counted),
        rates=_rates(counted),
    )


def _counters(run: Run) -> dict[str, int]:
    """By the names of /proc/vmstat."""
    return {
        "allocstall": run.reclaim.stalls,
        "pgscan_direct": run.reclaim.scanned,
        "pgsteal_direct": run.reclaim.stolen,
        "pgscan_kswapd": run.reclaim.kswapd_scanned,
        "pgsteal_kswapd": run.reclaim.kswapd_stolen,
        "pswpout": run.reclaim.swapped,
        "compact_stall": run.compaction.runs,
        "compact_migrate_scanned": run.compaction.scanned,
        "compact_free_scanned": run.compaction.free_scanned,
        "forks": run.forks,
    }


def _medians(counted: Sequence[Mapping[str, int]]) -> dict[str, float]:
    return {key: sorted(one[key] for one in counted)[len(counted) // 2] for key in counted[0]}


def _rates(counted: Sequence[Mapping[str, int]]) -> dict[str, tuple[float, float, float]]:
    found = {}
    for key in counted[0]:
        rates = sorted(round(one[key] * 1000 / max(one["forks"], 1), 1) for one in counted)
        found[key] = rates[0], rates[len(rates) // 2], rates[-1]
    return found


def zone_table(files: Mapping[tuple[str, int, str], str], zone: Zone) -> dict[str, Any]:
    """A zone as scenarios describe it, by the /proc files of a boot."""
    types = parse_pagetypeinfo("pagetypeinfo", files["boot", 0, "/proc/pagetypeinfo"])
    free = types.free[types.zones.index(zone.key)]
    block = _zone_text(files["boot", 0, "/proc/zoneinfo"], zone)
    start, spanned = (int(found[1]) if (found := re.search(rf"{word}:?\s+(\d+)", block)) else 0
                      for word in ("start_pfn", "spanned"))  # fmt: skip
    return {
        "name": zone.name,
        "first": start % _REGION,
        "pages": start % _REGION + spanned,
        "managed_kb": zone.managed * 4,
        **{
            f"free_{kind}": [int(count) for count in free[types.types.index(kind.capitalize())]]
            for kind in ("unmovable", "movable", "reclaimable")
        },
    }


def _zone_text(text: str, zone: Zone) -> str:
    """The lines of one zone in zoneinfo."""
    parts = re.split(r"^(?=Node )", text, flags=re.M)
    return next(part for part in parts if re.match(rf"Node 0, zone +{zone.name}\n", part))


def per_cpu_pages(text: str, zone: Zone) -> int:
    """Pages on the per-CPU lists of a zone, by zoneinfo."""
    found = re.search(r"count:\s+(\d+)", _zone_text(text, zone))
    return int(found[1]) if found else 0


def base_costs() -> str:
    """The costs of a kernel of this shape, which were measured."""
    from stackfit.machine import costs

    return (Path(costs.__file__).parent / "costs" / "linux-6.1-i386-lab.toml").read_text("utf-8")

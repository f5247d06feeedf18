#!/usr/bin/env python3
"""Predicts how many children fit before memory gives out: docs/prediction-cases.toml → docs/predictions.toml.

predict.py            writes docs/predictions.toml
predict.py --show     prints each case with the state that the model brought memory into
"""

from __future__ import annotations

import argparse
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from stackfit.layouts import load_layout
from stackfit.machine.model import Run
from stackfit.machine.scenario import parse_scenario
from stackfit.machine.simulate import simulate

DOCS = Path(__file__).resolve().parent.parent / "docs"
LAYOUTS = {"8k": "linux-2.6-8k", "4k": "linux-2.6-4k"}
FILLED = {"anon-holes": "anonymous", "ramfs-holes": "ramfs"}
SEEDS = 25  # runs that differ in how full the slab caches are at the start
HEAD = """\
# Written by scripts/predict.py from docs/prediction-cases.toml; do not edit. Children that only wait, made
# until the OOM killer is called; the median of several runs. `failed_order`: of the allocation that most of
# them could not meet.
"""


def predict(given: dict[str, Any]) -> list[tuple[dict[str, Any], list[Run]]]:
    """Every case of the table, fresh ones first."""
    machines = {one["memory_mb"]: one for one in given["machine"]}
    boots = {(one["memory_mb"], one["variant"]): one for one in given["boot"]}
    cases = [(boot, None, mode) for boot in given["boot"] for mode in ("process", "thread")]
    cases += [
        (boots[holes["memory_mb"], holes["variant"]], holes, mode)
        for holes in given["holes"]
        for mode in holes["modes"]
    ]
    found = []
    for boot, holes, mode in cases:
        table = describe(given["kernel"], machines[boot["memory_mb"]], boot, holes, mode)
        scenario, layout = parse_scenario(table, table["name"]), load_layout(LAYOUTS[boot["variant"]])
        runs = [simulate(scenario, layout, seed) for seed in range(SEEDS)]
        # The run in the middle, and what stops most of them: near the watermark that is chance.
        run = sorted(runs, key=lambda one: one.processes)[SEEDS // 2]
        orders = Counter(one.failed_order for one in runs)
        case = {
            "memory_mb": boot["memory_mb"],
            "state": holes["state"] if holes else "fresh",
            "mode": mode,
            "variant": boot["variant"],
            "processes": run.processes,
            "failed_order": orders.most_common(1)[0][0],
        }
        found.append((case, runs))
    return found


def describe(
    kernel: dict[str, Any],
    machine: dict[str, Any],
    boot: dict[str, Any],
    holes: dict[str, Any] | None,
    mode: str,
) -> dict[str, Any]:
    """The case as a scenario."""
    steps: list[dict[str, Any]] = []
    if holes is not None:
        kind = FILLED[holes["state"]]
        left = sum(count << order for order, count in enumerate(holes["free"]) if order) * 4
        steps = [
            {"do": "fill", "kind": kind, "until_free_kb": left},
            {"do": "punch", "kind": kind, "until_free_kb": holes["free_kb"]},
        ]
        if kind == "ramfs":
            steps[0]["slabs"] = kernel["file_slabs"]
        else:
            steps.append({"do": "pin", "kind": kind})
    steps.append({"do": "children", "mode": mode})
    return {
        "name": f"{machine['memory_mb']} MB {holes['state'] if holes else 'fresh'}",
        "description": "a case of docs/prediction-cases.toml",
        "era": kernel["era"],
        "costs": kernel["costs"],
        "layouts": [LAYOUTS[boot["variant"]]],
        "memory": {
            "block_order": kernel["block_order"],
            "compaction": False,
            "boost": False,
            "min_free_kb": machine["min_free_kb"],
            "per_cpu_pages": kernel["per_cpu_pages"],
            "zone": [
                {
                    "name": "Normal",
                    "pages": machine["pages"],
                    "first": machine["first"],
                    "managed_kb": machine["managed_kb"],
                    **free_blocks(boot),
                }
            ],
        },
        "step": steps,
    }


def free_blocks(boot: dict[str, Any]) -> dict[str, list[int]]:
    """The zone's free blocks, by migratetype where that is known."""
    if "unmovable" not in boot:
        return {"free": boot["free"]}
    unmovable, reclaimable = boot["unmovable"], boot["reclaimable"]
    movable = [a - b - c for a, b, c in zip(boot["free"], unmovable, reclaimable, strict=True)]
    return {"free_unmovable": unmovable, "free_movable": movable, "free_reclaimable": reclaimable}


def dump(cases: list[dict[str, Any]]) -> str:
    lines = [HEAD]
    for case in cases:
        lines.append("[[case]]")
        for key, value in case.items():
            lines.append(f"{key} = {value!r}".replace("'", '"'))
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--show", action="store_true", help="print the cases, write nothing")
    options = parser.parse_args()
    found = predict(tomllib.loads((DOCS / "prediction-cases.toml").read_text(encoding="utf-8")))
    if not options.show:
        (DOCS / "predictions.toml").write_text(dump([case for case, _ in found]), encoding="utf-8")
        return
    for case, runs in found:
        run, counts = runs[0], [one.processes for one in runs]
        stops = Counter((one.failed_order, one.failed_what) for one in runs).most_common(3)
        print(
            *case.values(),
            f"| {min(counts)} to {max(counts)},",
            *(f"{n} of {SEEDS} {why}" for why, n in stops),
        )
        print(" " * 8, "before", run.before_free_pages * 4, "kB", *run.before_buddyinfo)
        print(" " * 8, "after", run.free_pages * 4, "kB", *run.buddyinfo)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Reclaim runs of the experiment one by one, beside what the model says with the disk as it was in that run.

reclaim_by_disk.py DIR [SEEDS]      DIR: output of `stackfit lab experiment --parts reclaim`

The disk is the host's: how long it takes is an input of a run like the memory that was free before, and each
run prints it before memory is short. Predictions use that of a boot; this takes the run's own.
"""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path

from stackfit.lab.console import GuestLog
from stackfit.lab.experiment import outcome
from stackfit.lab.forecast import disk_times
from stackfit.layouts import load_layout
from stackfit.machine.scenario import parse_scenario
from stackfit.machine.simulate import simulate

LAYOUTS = {"8k": "linux-i386", "4k": "linux-i386-4k", "8k-shared": "linux-i386-shared"}
NAMES = ("allocstall", "pgscan_direct", "pgscan_kswapd", "pgsteal_kswapd", "pswpout")


def main() -> None:
    directory, seeds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    stored = json.loads((directory / "predictions.json").read_text("utf-8"))
    print("case, µs a read, children: counted / model;", ", ".join(NAMES))
    for path in sorted((directory / "runs").glob("*.log.xz")):
        name = path.name.removesuffix(".log.xz").rpartition("-")[0]
        if name not in stored or not any(f"-{load}-" in name for load in ("grow", "cycle")):
            continue
        log = GuestLog(lzma.decompress(path.read_bytes()).decode("utf-8"))
        counted = outcome(log)
        table = {**stored[name]["scenario"], "time": disk_times(log)}
        kernel = next(one for one in sorted(LAYOUTS, key=len, reverse=True) if name.startswith(f"{one}-"))
        runs = [
            simulate(parse_scenario(table, name), load_layout(LAYOUTS[kernel]), seed) for seed in range(seeds)
        ]
        said = [
            [one.reclaim.stalls for one in runs],
            [one.reclaim.scanned for one in runs],
            [one.reclaim.kswapd_scanned for one in runs],
            [one.reclaim.kswapd_stolen for one in runs],
            [one.reclaim.swapped for one in runs],
        ]
        pairs = [
            f"{counted.counters[key]} / {' '.join(map(str, values))}"
            for key, values in zip(NAMES, said, strict=True)
        ]
        children = f"{counted.children} / {' '.join(str(one.forks) for one in runs)}"
        print(
            f"{path.name.removesuffix('.log.xz')}, {(counted.disk or 0) / 1000:.0f}, {children};",
            ", ".join(pairs),
        )


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""How stackfit's cost grows: with modules, with runs of a scenario, with page operations.

    modules       stackfit check vmlinuz with the first 0, 1, 10, 100, … modules of the package, by path
    runs          stackfit simulate SCENARIO --seeds 1 … 64: as many processes' lives, one after the other
    operations    10⁵ … 10⁷ blocks taken and given back by the page allocator's model (10⁸ with --long)

CPU seconds (user + system) and the largest resident set of each command (wait4); of several rounds the one
with the least CPU counts. Nothing is taken from the cache. Nothing else should be running.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from allocator import pairs
from cost import BenchmarkError, best, load_fetch_kernel, program, read

SCENARIO = "fresh-boot"
RUNS = (1, 4, 16, 64)
OPERATIONS = (10**5, 10**6, 10**7)
LONG = 10**8
Row = dict[str, float]


def modules(rounds: int) -> list[Row]:
    """CPU seconds and memory of `check` by number of modules."""
    fetch_kernel = load_fetch_kernel()
    try:
        kernel = fetch_kernel.fetch("amd64")
    except fetch_kernel.FetchError as error:
        raise BenchmarkError(str(error)) from None
    files = sorted(Path(kernel.modules).rglob("*.ko*"))
    read([kernel.vmlinuz, *files])
    rows = []
    for count in sorted({0, 1, 10, 100, len(files)}):
        given = [word for file in files[:count] for word in ("--modules", str(file))]
        cost = best(rounds, [[program("stackfit"), "check", kernel.vmlinuz, "--no-cache", *given]])
        rows.append({"modules": count, "cpu": cost.cpu, "wall": cost.wall, "peak_rss": cost.peak_rss})
    return rows


def runs(rounds: int) -> list[Row]:
    """CPU seconds and memory of `simulate` by number of runs."""
    rows = []
    for count in RUNS:
        cost = best(rounds, [[program("stackfit"), "simulate", SCENARIO, "--seeds", str(count)]])
        rows.append({"runs": count, "cpu": cost.cpu, "wall": cost.wall, "peak_rss": cost.peak_rss})
    return rows


def operations(long: bool) -> list[Row]:
    """CPU seconds by number of page operations: order 0, through the per-CPU lists."""
    rows = []
    for wanted in (*OPERATIONS, *((LONG,) if long else ())):
        start = time.process_time()
        done = pairs(True, 0, wanted)()
        rows.append({"operations": done, "cpu": round(time.process_time() - start, 4)})
    return rows


def table(name: str, rows: list[Row]) -> str:
    """One line a row, with what each further one costs."""
    lines = [f"{name:>12} {'CPU s':>9} {'peak MiB':>9} {'CPU s each':>12}"]
    before = (0.0, 0.0)
    for row in rows:
        count, cpu = row[name], row["cpu"]
        memory = f"{row['peak_rss'] / 2**20:9.0f}" if "peak_rss" in row else f"{'':9}"
        each = (cpu - before[1]) / (count - before[0]) if count > before[0] else 0.0
        lines.append(f"{count:>12,.0f} {cpu:9.3f} {memory} {each:12.2e}")
        before = (count, cpu)
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="How stackfit's cost grows.")
    parser.add_argument(
        "--rounds", type=int, default=1, metavar="N", help="take the best of so many (default 1)"
    )
    parser.add_argument("--long", action="store_true", help="10⁸ page operations too")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there as well")
    options = parser.parse_args()
    try:
        found = {
            "operations": operations(options.long),
            "runs": runs(options.rounds),
            "modules": modules(options.rounds),
        }
    except (BenchmarkError, OSError) as error:
        print(f"growth.py: {error}", file=sys.stderr)
        return 2
    for name, rows in found.items():
        print(table(name, rows))
    if options.json:
        Path(options.json).write_text(
            json.dumps({"schema": "stackfit.benchmark-growth/1", **found}, indent=1) + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

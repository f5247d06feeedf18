#!/usr/bin/env python3
"""What reclaim and the disk take on the experiment's machine: microseconds, from traces of it.

reclaim_times.py [FILE…]      text of /sys/kernel/tracing/trace as the experiment's guest prints it with
                              events=N; default: fixtures/recordings/experiment/traces.tar.xz

The trace points themselves take some 4 µs each: what lies between two of them is that much too long.
"""

from __future__ import annotations

import re
import sys
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

RECORDED = Path(__file__).resolve().parent.parent / "fixtures" / "recordings" / "experiment" / "traces.tar.xz"
_LINE = re.compile(r"\s*(\S+)-(\d+)\s+\[000\] \S+\s+([\d.]+): (\w+): (.*)")


def texts(names: list[str]) -> Iterator[tuple[str, str]]:
    if names:
        for name in names:
            yield name, Path(name).read_text("utf-8", "replace")
        return
    with tarfile.open(RECORDED) as tar:
        for member in tar.getmembers():
            file = tar.extractfile(member)
            if file is not None:
                yield member.name, file.read().decode("utf-8", "replace")


def quantiles(values: list[float]) -> str:
    ordered = sorted(values)
    at = (5, 25, 50, 75, 90, 95, 99)
    return " ".join(f"{ordered[min(len(ordered) * p // 100, len(ordered) - 1)]:.0f}" for p in at)


def show(name: str, text: str) -> None:
    rows = [
        (found[1], float(found[3]) * 1e6, found[4], found[5])
        for line in text.splitlines()
        if (found := _LINE.match(line))
    ]
    disk: dict[str, list[float]] = defaultdict(list)
    begun: dict[tuple[str, str], tuple[float, str]] = {}
    pages: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    writes: list[float] = []
    isolated: tuple[float, int, str, int] | None = None
    for at, (_, time, event, rest) in enumerate(rows):
        if event == "block_rq_issue" and (found := re.match(r"(\S+) (\w)\w* .* (\d+) \+ ", rest)):
            begun[found[1], found[3]] = time, found[2]
        elif event == "block_rq_complete" and (found := re.match(r"(\S+) \w+ \(\) (\d+) \+", rest)):
            since = begun.pop((found[1], found[2]), None)
            if since is not None:
                disk[since[1]].append(time - since[0])
        elif event == "mm_vmscan_lru_isolate" and (found := re.search(r"nr_taken=(\d+) lru=(\w+)", rest)):
            isolated = time, int(found[1]), found[2], at
        elif event in ("mm_vmscan_lru_shrink_active", "mm_vmscan_lru_shrink_inactive") and isolated:
            start, taken, which, first = isolated
            between = {row[2] for row in rows[first + 1 : at]}
            found = re.search(r"nr_reclaimed=(\d+)", rest)
            kind = (
                ""
                if found is None
                else "freed"
                if int(found[1]) == taken
                else "spared"
                if found[1] == "0"
                else ""
            )
            if taken and not between and (kind or event.endswith("_active")):
                pages[f"{which}, {kind or 'moved'}"][0] += taken
                pages[f"{which}, {kind or 'moved'}"][1] += time - start
            isolated = None
        elif event == "mm_vmscan_write_folio" and rows[at - 1][2] == event:
            writes.append(time - rows[at - 1][1])
    print(name)
    for key, (count, took) in sorted(pages.items()):
        print(f"  {key}: {took / count:.1f} a page ({count:.0f})")
    if writes:
        print(f"  from one page written to swap to the next: {quantiles(writes)} ({len(writes)})")
    for key, values in sorted(disk.items()):
        print(f"  disk, {'read' if key == 'R' else 'write'}: {quantiles(values)} ({len(values)})")


def main() -> None:
    print("microseconds; distributions as 5 25 50 75 90 95 99 %")
    for name, text in texts(sys.argv[1:]):
        show(name, text)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What one waiting process and one thread cost, from the logs of run.py.

Usage: costs.py [--lab DIR] LOG...

Differences of /proc/slabinfo and /proc/meminfo between the first and the last
interval of a run, divided by the children made between them.  Prints Markdown.
"""

import argparse
import re
from pathlib import Path

from run import meminfo, read_log, sections

PAGE = 4  # kB


def slabs(text: str) -> dict[str, tuple[int, ...]]:
    """Cache → active objects, objects, object size, objects a slab, pages a slab, slabs."""
    found = {}
    pattern = r"^(\S+) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) : tunables.*: slabdata +\d+ +(\d+)"
    for name, *numbers in re.findall(pattern, text, re.M):
        found[name] = tuple(map(int, numbers))
    return found


def report(path: Path) -> str:
    shown = sections(read_log(path))
    made = sorted(n for mark, n, name in shown if mark == "made" and name == "/proc/slabinfo")
    if len(made) < 2:
        return f"{path.stem}: too few intervals\n"
    first, last = made[0], made[-1]
    children = last - first
    a, b = (slabs(shown["made", n, "/proc/slabinfo"]) for n in (first, last))
    rows = []
    total = 0.0
    for name, (active, _, size, per_slab, pages, count) in b.items():
        old = a[name]
        objects, grown = (active - old[0]) / children, (count - old[5]) / children
        if abs(objects) < 0.02 and abs(grown) < 0.002:
            continue
        total += grown * pages * PAGE
        order = pages.bit_length() - 1
        rows.append((name, size, per_slab, order, objects, grown * pages * PAGE))
    rows.sort(key=lambda row: -row[5])
    lines = [
        f"### {path.stem}: children {first} to {last}",
        "| cache | object B | objects a slab | slab order | objects a child | kB a child |",
        "|---|---|---|---|---|---|",
        *(f"| {n} | {s} | {p} | {o} | {c:.3f} | {k:.3f} |" for n, s, p, o, c, k in rows),
        f"| all slabs | | | | | {total:.3f} |",
    ]
    before, after = (meminfo(shown["made", n, "/proc/meminfo"]) for n in (first, last))
    keys = ("KernelStack", "PageTables", "AnonPages", "Slab", "SUnreclaim", "SReclaimable", "MemFree")
    parts = ", ".join(f"{key} {(after[key] - before[key]) / children:.3f}" for key in keys)
    lines += ["", f"/proc/meminfo, kB a child: {parts}", ""]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("logs", nargs="+", type=Path)
    for log in parser.parse_args().logs:
        print(report(log))


if __name__ == "__main__":
    main()

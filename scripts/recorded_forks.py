#!/usr/bin/env python3
"""The model against every recorded run: children until memory gives out, on kernels in QEMU.

    recorded_forks.py [NAME…]      rows whose name contains NAME

Each run of fixtures/recordings/fork-*/runs.tar.xz is brought into its recorded state (boot: pagetypeinfo,
zoneinfo; then what init does) and simulated once. Nothing of its outcome is used.
"""

from __future__ import annotations

import re
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackfit.lab.forecast import per_cpu_pages, zone_table
from stackfit.layouts import load_layout
from stackfit.machine.scenario import parse_scenario
from stackfit.machine.simulate import simulate
from stackfit.pages.procfs import parse_zoneinfo

RECORDINGS = Path(__file__).resolve().parent.parent / "fixtures" / "recordings"
LEAVE_KB = 1024  # free memory at which init.c stops filling
DEBIAN_TOUCHED_KB = 86016


@dataclass(frozen=True)
class Row:
    """A run: children and order of the failing request, measured and modelled."""

    name: str
    measured: tuple[int, int]
    modelled: tuple[int, int | None]

    @property
    def off(self) -> float:
        return self.modelled[0] / self.measured[0] - 1


def logs() -> Iterator[tuple[str, str]]:
    """(name, text) of every log."""
    for archive in sorted(RECORDINGS.glob("fork-*/runs.tar.xz")):
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                file = tar.extractfile(member)
                if file is not None and member.name.endswith(".log"):
                    text = file.read().decode("utf-8", "replace").replace("\r\n", "\n")
                    yield Path(member.name).stem, text


def sections(text: str) -> dict[tuple[str, int, str], str]:
    """The files that init printed, by (mark, children made, path)."""
    found = {}
    for mark, made, path, body in re.findall(r"@@ (\w+) (\d+) (/\S+)\n(.*?)@@ end\n", text, re.S):
        lines = [line for line in body.splitlines() if not re.match(r"\[ *\d+\.\d+\]", line)]
        found[mark, int(made), path] = "\n".join(lines) + "\n"
    return found


def outcome(text: str) -> tuple[int, int]:
    """Children alive when the OOM killer was called, and the order of the request."""
    kernel = re.sub(r"^\[ *\d+\.\d+\] ?", "", text, flags=re.M)
    oom = re.search(r"invoked oom-killer: .*?order=(-?\d+)", kernel)
    if oom is None:
        raise ValueError("no OOM report")
    tasks = re.findall(r"^\[ *\d+\] +\d+ +\d+ .* init$", kernel[oom.start() :], re.M)
    return len(tasks) - 1, int(oom[1])  # init itself


def scenario_of(name: str, text: str) -> tuple[dict[str, Any], str]:
    """The run as a scenario, and its layout."""
    files = sections(text)
    parts = name.split("-")
    debian = parts[0] == "debian"
    state, kind = parts[2], parts[3]
    steps: list[dict[str, Any]] = []
    if not debian and len(parts) > 4:  # memory that is taken first and stays
        steps = [
            {"do": "fill", "kind": "file", "until_free_kb": int(parts[4])},
            {"do": "pin", "kind": "file"},
        ]
    if state == "locked":
        steps += [
            {"do": "fill", "kind": "anonymous", "kb": DEBIAN_TOUCHED_KB},
            {"do": "punch", "kind": "anonymous"},
            {"do": "pin", "kind": "anonymous", "slabs": [28, 72]},
        ]
    elif state != "fresh":
        filled = {"anon": "anonymous", "ramfs": "ramfs"}[state]
        steps += [{"do": "fill", "kind": filled, "until_free_kb": LEAVE_KB}, {"do": "punch", "kind": filled}]
        if filled == "anonymous":
            steps.append({"do": "pin", "kind": filled})
    steps.append({"do": "children", "mode": kind})
    zones = [zone for zone in parse_zoneinfo(name, files["boot", 0, "/proc/zoneinfo"]) if zone.managed]
    described = {
        "name": name,
        "description": "a recorded run",
        "costs": "linux-6.1-i386-debian" if debian else "linux-6.1-i386-lab",
        "layouts": ["-"],
        "memory": {
            "block_order": 10,
            "compaction": debian,
            "boost": "boost" in parts,
            "pinned_may_move": False,
            "per_cpu_pages": per_cpu_pages(files["boot", 0, "/proc/zoneinfo"], zones[-1]),
            "min_free_kb": sum(zone.minimum for zone in zones) * 4,
            "zone": [zone_table(files, zone) for zone in zones],
        },
        "step": steps,
    }
    return described, "linux-2.6-4k" if parts[0] == "B" else "linux-2.6-8k"


def rows(*chosen: str) -> Iterator[Row]:
    """Every run that ends with the OOM killer on an i386 kernel."""
    for name, text in logs():
        if "amd64" in name or "trace" in name or (chosen and not any(word in name for word in chosen)):
            continue
        described, layout = scenario_of(name, text)
        run = simulate(parse_scenario(described, name), load_layout(layout), 0)
        yield Row(name, outcome(text), (run.processes, run.failed_order))


def main() -> None:
    for row in rows(*sys.argv[1:]):
        (children, order), (modelled, model_order) = row.measured, row.modelled
        measured = f"measured {children:5} order {order}"
        print(f"{row.name:32} {measured}  model {modelled:5} order {model_order}  {row.off:+.1%}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""The HTML report of Debian's amd64 kernel with all its modules: its size, and how fast a browser handles it.

    benchmarks/html_report.py [--report FILE] [--traces FILE…]

Writes the report (unless --report names one that is there), loads it in Debian's Chromium, and measures in
the page: from the start of the navigation until everything is drawn; then each search and each sort of the
table of frames, from the event to the next frame on screen. Of ROUNDS the median. Nothing else should be
running.

Needs `stackfit` of this repository with the extra dev, and the packages chromium and chromium-driver.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
ROUNDS = 7
SEARCHES = ("a", "tcp", "frame>512", "btrfs search slot", "no such function")
# Milliseconds from an event until the frame after it is on screen: two animation frames follow it.
MEASURE = """
const [act, done] = [arguments[0], arguments[arguments.length - 1]];
const begin = performance.now();
if (act.search !== undefined) {
  const field = document.getElementById('table-frames-search');
  field.value = act.search;
  field.dispatchEvent(new Event('input'));
} else document.querySelector(`#table-frames th[data-key=${act.sort}] button`).click();
const worked = performance.now() - begin;
requestAnimationFrame(() => requestAnimationFrame(() => done([worked, performance.now() - begin])));
"""


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def write_report(target: Path, traces: list[str]) -> None:
    kernel = load_script("fetch_kernel").fetch("amd64")
    words = [sys.executable, "-m", "stackfit.cli.main", "check", kernel.vmlinuz, "--modules", kernel.modules]
    words += [
        "--layout",
        "linux-x86_64",
        "--layout",
        "linux-x86_64-4k",
        "--fail-on",
        "",
        "--html",
        str(target),
    ]
    words += ["--traces", *traces] if traces else []
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"written in {used.ru_utime + used.ru_stime:.0f} CPU seconds, {used.ru_maxrss / 1024:.0f} MiB at most"
    )


def measure(session: Any, act: dict[str, str]) -> tuple[float, float]:
    session.execute_async_script(MEASURE, {"search": ""})
    worked, shown = session.execute_async_script(MEASURE, act)
    return worked, shown


def main() -> int:
    parser = argparse.ArgumentParser(description="Size and speed of the largest HTML report.")
    parser.add_argument("--report", type=Path, help="measure this one")
    parser.add_argument("--traces", nargs="+", default=[], help="recordings to write it with")
    options = parser.parse_args()
    tools = load_script("browser")
    with tempfile.TemporaryDirectory() as directory:
        report = options.report or Path(directory) / "report.html"
        if options.report is None:
            write_report(report, options.traces)
        print(f"{report.stat().st_size:,} bytes")
        with tools.browser() as session:
            tools.open_report(session, report)
            ready = session.execute_script("return performance.getEntriesByName('ready')[0].startTime")
            print(f"drawn after {ready:.0f} ms")
            print("rows:", session.find_element("css selector", '[data-key="frames"] output').text)
            for act in [{"search": text} for text in SEARCHES] + [{"sort": "name"}, {"sort": "frame"}]:
                found = [measure(session, act) for _ in range(ROUNDS)]
                worked, shown = (statistics.median(column) for column in zip(*found, strict=True))
                print(f"{act}: {worked:.0f} ms of work, on screen after {shown:.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())

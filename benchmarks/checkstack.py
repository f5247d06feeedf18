#!/usr/bin/env python3
"""stackfit next to objdump and the kernel's checkstack.pl: CPU seconds, peak memory; one kernel, one run.

    objdump -d vmlinux                                  what every tool that reads disassembly stands on
    objdump -d vmlinux | perl checkstack.pl x86_64      frames of the kernel's functions
    stackfit frames vmlinuz                             the same question
    stackfit check vmlinuz                              stacks, chains, verdicts from the shipped image
    stackfit check vmlinuz --modules DIR                the same with every module of the package
    … again                                             unchanged: the answer kept by the run before it

checkstack.pl gets the uncompressed vmlinux of the -dbg package, because objdump needs symbols; stackfit gets
the vmlinuz that boots. The script comes out of Debian's linux-kbuild package, the smallest that has it. CPU
seconds are user + system of all processes of a row (wait4); memory is the largest resident set of any one of
them. Of several rounds the one with the least CPU counts. Nothing else should be running.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from cost import BenchmarkError, Cost, best, load_fetch_kernel, measure, one_cpu, program, read

ARCHITECTURE = "amd64"
CHECKSTACK_ARCHITECTURE = "x86_64"
PEER, FLOOR = "objdump -d vmlinux | checkstack.pl", "objdump -d vmlinux"
HELP_ROUNDS = 20  # of commands that take a few hundredths of a second
# (row, the row that it is held against, what it may cost of that one's CPU)
TARGETS = (
    ("stackfit frames vmlinuz", PEER, 0.15),
    ("stackfit check vmlinuz", PEER, 0.15),
    ("stackfit check vmlinuz --modules DIR", PEER, 0.5),
    ("stackfit check vmlinuz, again", "stackfit check vmlinuz", 0.1),
    ("stackfit check vmlinuz --modules DIR, again", "stackfit check vmlinuz --modules DIR", 0.1),
    ("stackfit --help", "python -c pass", 5.0),
)
MOST_MEMORY = 1_200_000_000  # bytes, of any row


def first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    return next(
        (line for line in (done.stdout + done.stderr).splitlines() if line.strip()), "unknown"
    ).strip()


def hot_modules_compiled() -> bool:
    """Whether the decoder stackfit runs on is an extension module, asked in a process of its own."""
    code = "import stackfit.isa.x86_decode as m; print(m.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchmarkError(f"{sys.executable} cannot import stackfit; run `make bench`")
    return not done.stdout.strip().endswith(".py")


def benchmark(rounds: int) -> dict[str, object]:
    objdump, perl, stackfit = program("objdump"), program("perl"), program("stackfit")
    help_text = subprocess.run([stackfit, "check", "--help"], capture_output=True, text=True)
    if help_text.returncode != 0:
        raise BenchmarkError("stackfit check --help fails; is stackfit installed here?")
    compiled = hot_modules_compiled()

    fetch_kernel = load_fetch_kernel()
    try:
        kernel = fetch_kernel.fetch(ARCHITECTURE, debug=True)
        series = ".".join(kernel.release.split(".")[:2])
        kbuild = fetch_kernel.fetch_tree(ARCHITECTURE, rf"linux-kbuild-{re.escape(series)}(\..*)?")
    except fetch_kernel.FetchError as error:
        raise BenchmarkError(str(error)) from None
    script = next(iter(sorted(kbuild.glob("usr/lib/linux-kbuild-*/scripts/checkstack.pl"))), None)
    if script is None:
        raise BenchmarkError(f"{kbuild.name}: no checkstack.pl in it")

    read([kernel.vmlinux, kernel.vmlinuz, *sorted(Path(kernel.modules).rglob("*.ko*"))])
    disassemble = [objdump, "-d", kernel.vmlinux]
    check, tree = [stackfit, "check", kernel.vmlinuz], ["--modules", kernel.modules]
    nothing_kept = ["--no-cache"]
    commands = {
        PEER: [disassemble, [perl, str(script), CHECKSTACK_ARCHITECTURE]],
        FLOOR: [disassemble],
        "stackfit frames vmlinuz": [[stackfit, "frames", kernel.vmlinuz, *nothing_kept]],
        "stackfit check vmlinuz": [[*check, *nothing_kept]],
        "stackfit check vmlinuz --modules DIR": [[*check, *tree, *nothing_kept]],
    }
    costs = {name: best(rounds, pipeline) for name, pipeline in commands.items()}
    costs["… on one CPU"] = best(rounds, [[*check, *tree, *nothing_kept]], before=one_cpu)
    with tempfile.TemporaryDirectory() as cache:
        for name, words in (("", check), (" --modules DIR", [*check, *tree])):
            kept = [[*words, "--cache", cache]]
            measure(kept)
            costs[f"stackfit check vmlinuz{name}, again"] = best(rounds, kept)
    for name, words in (
        ("stackfit --help", [stackfit, "--help"]),
        ("python -c pass", [sys.executable, "-c", "pass"]),
    ):
        costs[name] = best(HELP_ROUNDS, [words])
    reference = next(iter(costs.values()))
    return {
        "schema": "stackfit.benchmark-checkstack/1",
        "kernel": f"{kernel.package} {kernel.version}",
        "modules": sum(1 for _ in Path(kernel.modules).rglob("*.ko*")),
        "rounds": rounds,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "objdump": first_line(objdump, "--version"),
        "perl": first_line(perl, "-e", "print $^V"),
        "hot_modules_compiled": compiled,
        "rows": [
            {
                "command": name,
                **asdict(cost),
                "cpu_ratio": round(reference.cpu / cost.cpu, 2) if cost.cpu else None,
                "rss_ratio": round(reference.peak_rss / cost.peak_rss, 2) if cost.peak_rss else None,
            }
            for name, cost in costs.items()
        ],
        "targets": [_target(costs, *target) for target in TARGETS],
        "most_memory": MOST_MEMORY,
        "peak_rss": max(cost.peak_rss for cost in costs.values()),
    }


def _target(costs: dict[str, Cost], row: str, other: str, most: float) -> dict[str, object]:
    ratio = costs[row].cpu / costs[other].cpu if costs[other].cpu else float("inf")
    return {"row": row, "of": other, "ratio": round(ratio, 3), "most": most, "met": ratio <= most}


def table(result: dict[str, object]) -> str:
    rows = result["rows"]
    assert isinstance(rows, list)
    width = max(len(row["command"]) for row in rows)
    lines = [
        f"{result['kernel']}, {result['modules']} modules, best of {result['rounds']}"
        + ("" if result["hot_modules_compiled"] else ", hot modules NOT compiled"),
        f"{'':{width}}  {'CPU s':>8} {'wall s':>8} {'peak MiB':>9} {'less CPU':>9} {'less mem':>9}",
    ]
    lines += [
        f"{row['command']:{width}}  {row['cpu']:8.2f} {row['wall']:8.2f} {row['peak_rss'] / 2**20:9.0f}"
        f" {row['cpu_ratio'] or 0:8.2f}x {row['rss_ratio'] or 0:8.2f}x"
        for row in rows
    ]
    targets = result["targets"]
    assert isinstance(targets, list)
    for one in targets:
        state = "met" if one["met"] else "NOT met"
        lines.append(f"{one['row']}: {one['ratio']:.2f} of {one['of']}, at most {one['most']}: {state}")
    peak, most = int(str(result["peak_rss"])), int(str(result["most_memory"]))
    state = "met" if peak <= most else "NOT met"
    lines.append(f"peak memory: {peak / 1e6:.0f} MB, at most {most / 1e6:.0f} MB: {state}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="stackfit next to checkstack.pl: CPU seconds and memory.")
    parser.add_argument("--rounds", type=int, default=1, help="take the best of so many (default 1)")
    parser.add_argument("--json", metavar="FILE", help="write the JSON there instead of after the table")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    try:
        result = benchmark(options.rounds)
        text = json.dumps(result, indent=2)
        print(table(result))
        if options.json:
            Path(options.json).write_text(text + "\n")
        else:
            print(text)
    except (BenchmarkError, OSError) as error:
        print(f"checkstack.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""stackfit next to the kernel's own checkstack.pl: CPU seconds and peak memory, same kernel, same run.

    objdump -d vmlinux | perl checkstack.pl x86_64      frames of the kernel's functions
    stackfit check vmlinuz                              stacks, chains, verdicts from the shipped image
    stackfit check vmlinuz --modules DIR                the same with every module of the package

checkstack.pl gets the uncompressed vmlinux of the -dbg package, because objdump needs symbols; stackfit gets
the vmlinuz that boots. The script comes out of Debian's linux-kbuild package, the smallest that has it. CPU
seconds are user + system of all processes of a row (wait4); memory is the largest resident set of any one of
them. Of several rounds the one with the least CPU counts. Nothing else should be running.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).resolve().parent.parent
ARCHITECTURE = "amd64"
CHECKSTACK_ARCHITECTURE = "x86_64"


@dataclass(frozen=True)
class Cost:
    """CPU (user + system) and wall-clock seconds, and the largest resident set in bytes."""

    cpu: float
    wall: float
    peak_rss: int
    output_lines: int


class BenchmarkError(Exception):
    """The benchmark cannot run: one line."""


def load_fetch_kernel() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fetch_kernel", REPOSITORY / "scripts" / "fetch_kernel.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fetch_kernel"] = module
    spec.loader.exec_module(module)
    return module


def program(name: str) -> str:
    beside = Path(sys.executable).parent / name  # not resolved: a venv's own directory
    path = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if path is None:
        raise BenchmarkError(f"{name} not found")
    return path


def measure(pipeline: list[list[str]], accepted: tuple[int, ...] = (0,)) -> Cost:
    """Runs the commands as one pipeline and adds up what the kernel charged to them and their children."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        children: list[subprocess.Popen[bytes]] = []
        for number, command in enumerate(pipeline):
            before = children[-1].stdout if children else None
            last = number == len(pipeline) - 1
            child = subprocess.Popen(
                command,
                stdin=before or subprocess.DEVNULL,
                stdout=output if last else subprocess.PIPE,
                stderr=errors,
            )
            if before:
                before.close()
            children.append(child)
        cpu, peak = 0.0, 0
        for command, child in zip(pipeline, children, strict=True):
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            cpu += usage.ru_utime + usage.ru_stime
            peak = max(peak, usage.ru_maxrss * 1024)
            if child.returncode not in accepted:
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip().splitlines()
                raise BenchmarkError(
                    f"{Path(command[0]).name} exited {child.returncode}: {said[-1] if said else 'no message'}"
                )
        wall = time.perf_counter() - start
        output.seek(0)
        return Cost(round(cpu, 2), round(wall, 2), peak, sum(1 for _ in output))


def best(rounds: int, pipeline: list[list[str]], accepted: tuple[int, ...] = (0,)) -> Cost:
    return min((measure(pipeline, accepted) for _ in range(rounds)), key=lambda cost: cost.cpu)


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
    check = [stackfit, "check"]
    if "--no-cache" in help_text.stdout:  # a stored result would measure nothing
        check.append("--no-cache")

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

    commands = {
        "objdump -d vmlinux | checkstack.pl": [
            [objdump, "-d", kernel.vmlinux],
            [perl, str(script), CHECKSTACK_ARCHITECTURE],
        ],
        "stackfit check vmlinuz": [[*check, kernel.vmlinuz]],
        "stackfit check vmlinuz --modules DIR": [[*check, kernel.vmlinuz, "--modules", kernel.modules]],
    }
    # Input that has to come from the disk would charge its first reader.
    for path in (kernel.vmlinux, kernel.vmlinuz, *sorted(Path(kernel.modules).rglob("*.ko*"))):
        with open(path, "rb") as stream:
            while stream.read(1 << 20):
                pass

    costs = {name: best(rounds, pipeline) for name, pipeline in commands.items()}
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
    }


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

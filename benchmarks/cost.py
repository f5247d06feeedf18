"""What commands cost: CPU seconds and peak memory of whole pipelines, as the kernel charged them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

__all__ = ["BenchmarkError", "Cost", "best", "load_fetch_kernel", "measure", "one_cpu", "program", "read"]

REPOSITORY = Path(__file__).resolve().parent.parent


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


def measure(
    pipeline: list[list[str]], accepted: tuple[int, ...] = (0,), before: Callable[[], None] | None = None
) -> Cost:
    """Runs the commands as one pipeline and adds up what the kernel charged to them and their children.

    `before`: called in each new process.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        children: list[subprocess.Popen[bytes]] = []
        for number, command in enumerate(pipeline):
            previous = children[-1].stdout if children else None
            last = number == len(pipeline) - 1
            child = subprocess.Popen(
                command,
                stdin=previous or subprocess.DEVNULL,
                stdout=output if last else subprocess.PIPE,
                stderr=errors,
                preexec_fn=before,
            )
            if previous:
                previous.close()
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
        return Cost(round(cpu, 4), round(wall, 4), peak, sum(1 for _ in output))


def best(
    rounds: int,
    pipeline: list[list[str]],
    accepted: tuple[int, ...] = (0,),
    before: Callable[[], None] | None = None,
) -> Cost:
    """The cheapest of several rounds; said on standard error as it comes, as all may take minutes."""
    cost = min((measure(pipeline, accepted, before) for _ in range(rounds)), key=lambda cost: cost.cpu)
    words = " | ".join(" ".join(Path(word).name for word in command[:4]) for command in pipeline)
    print(
        f"{cost.cpu:9.3f} CPU s {cost.wall:9.3f} wall s {cost.peak_rss >> 20:5} MiB  {words}", file=sys.stderr
    )
    return cost


def one_cpu() -> None:
    """Keep this process to one of the CPUs that it may use."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def read(paths: Iterable[Path | str]) -> None:
    """Read files: input that has to come from the disk would charge its first reader."""
    for path in paths:
        with open(path, "rb") as stream:
            while stream.read(1 << 20):
                pass

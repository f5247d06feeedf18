"""Runs every target for a while: `python -m fuzz --seconds 60`, status 1 when there is a finding.

Each target has a process of its own; one that ends (out of time or memory, or in a crash) is a finding, and
is started again behind the input it ended at. Findings go to `--out`, one file each, with what was wrong
beside it;
`python -m fuzz --try FILE --target NAME` runs one again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

_ROOT = Path(__file__).parent
_MOST_ENDS = 25  # of one target, in a run


@dataclass
class Result:
    """What a target's run came to. `wrong`: by kind, the file."""

    target: str
    inputs: int = 0
    kinds: int = 0
    peak: int = 0  # MiB
    wrong: dict[str, Path] = field(default_factory=dict)


def run_target(name: str, seconds: float, seed: str, out: Path) -> Result:
    result = Result(name)
    end = time.monotonic() + seconds
    first = ends = 0
    while (left := end - time.monotonic()) > 0 and ends < _MOST_ENDS:
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as work:
            place = Path(work)
            words = [name, "--seed", seed, "--first", str(first), "--seconds", f"{left:.1f}", "--work", work]
            done = subprocess.run(
                [sys.executable, "-m", "fuzz.worker", *words],
                capture_output=True, text=True, cwd=_ROOT.parent, timeout=left + 600, check=False,
            )  # fmt: skip
            for line in _lines(done.stdout):
                if "done" in line:
                    result.inputs += line["done"]
                    result.kinds, result.peak = (
                        max(result.kinds, line["kinds"]),
                        max(result.peak, line["peak"]),
                    )
                else:
                    _keep(result, line["wrong"], line["traceback"], place / f"finding-{line['number']}", out)
            if done.returncode == 0:
                return result
            ends += 1
            progress = place / "progress"
            if not progress.exists():  # before the first input
                print(done.stderr, file=sys.stderr)
                result.wrong["does not start"] = place
                return result
            number = json.loads(progress.read_text())["number"]
            inputs = [one for one in place.iterdir() if one.name.startswith("input")]
            _keep(result, _end(done.returncode), done.stderr, inputs[0], out)
            result.inputs += number + 1 - first
            first = number + 1
    return result


def _lines(text: str) -> Iterator[dict[str, object]]:
    for line in text.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def _end(status: int) -> str:
    if status == -signal.SIGPROF:
        return "too much time"
    return f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _keep(result: Result, wrong: object, traceback: object, data: Path, out: Path) -> None:
    wrong = str(wrong)
    if wrong in result.wrong:
        return
    out.mkdir(parents=True, exist_ok=True)
    place = out / f"{result.target}-{len(result.wrong)}{data.suffix}"
    shutil.copy(data, place)
    place.with_name(place.name + ".txt").write_text(f"{wrong}\n\n{traceback}")
    result.wrong[wrong] = place


def main() -> int:
    from fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="in all, divided among the targets")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), default=[])
    parser.add_argument("--seed", default="0")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--try", dest="file", type=Path, help="run one file, under no limits")
    options = parser.parse_args()
    names = options.target or list(TARGETS)
    if options.file is not None:
        with tempfile.TemporaryDirectory() as work:
            path = Path(work) / f"input{TARGETS[names[0]].suffix}"
            shutil.copy(options.file, path)
            print(TARGETS[names[0]].run(path))
        return 0
    each = options.seconds * options.jobs / len(names)
    wrong = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for result in pool.map(lambda name: run_target(name, each, options.seed, options.out), names):
            print(
                f"{result.target:12} {result.inputs:8} inputs, {result.kinds:4} outcomes,"
                f" peak {result.peak:5} MiB",
                *(f"\n    {kind}: {place}" for kind, place in result.wrong.items()),
                flush=True,
            )
            wrong += len(result.wrong)
    print(f"{wrong} findings")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

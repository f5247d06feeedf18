"""One process that runs one target on changed inputs: `python -m fuzz.worker TARGET …`.

An input may take LIMIT_SECONDS of the processor and LIMIT_MEMORY bytes beyond what the process had before.
The kernel watches over both, so compiled code cannot get around them: the process ends, or is given no more
memory. Which input that was stands in the file `progress`. fuzz/__main__.py starts it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import lzma
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from fuzz.mutate import MOST, mutate
from fuzz.targets import TARGETS, Target
from stackfit.image.model import InputError

LIMIT_SECONDS = 20  # of the processor; a MiB must not take a minute, on a slower machine either
LIMIT_MEMORY = 768 << 20
_POOL = 300  # inputs that lead to something new, kept to be changed further

__all__ = [
    "LIMIT_MEMORY",
    "LIMIT_SECONDS",
    "content",
    "corpus",
    "findings",
    "input_of",
    "judged",
    "limited",
    "main",
    "outcome",
]

ROOT = Path(__file__).parent


def corpus(target: Target) -> list[bytes]:
    """The target's inputs and past findings, by name."""
    places = [*sorted((ROOT / "corpus" / target.name).iterdir()), *findings(target)]
    return [content(place) for place in places]


def content(place: Path) -> bytes:
    """A file of the corpus; `*.stored.xz` is kept packed here, and is none to the target."""
    data = place.read_bytes()
    return lzma.decompress(data) if place.name.endswith(".stored.xz") else data


def findings(target: Target) -> list[Path]:
    directory = ROOT / "findings" / target.name
    return sorted(directory.iterdir()) if directory.is_dir() else []


def input_of(target: Target, pool: list[bytes], chance: random.Random) -> tuple[bytes, bytes]:
    """(what was changed, the file made of it)."""
    changed = mutate(chance.choice(pool), target.form, chance, pool)
    if target.wrap is not None and (target.always or chance.random() < 0.15):
        return changed, target.wrap(changed, chance)[:MOST]
    return changed, changed


def limited() -> None:
    """No more memory than LIMIT_MEMORY beyond what this process has."""
    (size,) = re.findall(r"^VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    limit = (int(size) << 10) + LIMIT_MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28, 1 << 28))


def outcome(target: Target, path: Path) -> tuple[str, str]:
    """("", what came out) or (what is wrong, its traceback) of one file."""
    signal.setitimer(signal.ITIMER_PROF, LIMIT_SECONDS)
    try:
        said = target.run(path)
        return "", _shape(said, path) if isinstance(said, str) else "read"
    except InputError as error:
        return "", _shape(str(error), path)
    except (Exception, SystemExit) as error:
        frames = [one for one in traceback.extract_tb(error.__traceback__) if "stackfit" in one.filename]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "fuzz"
        return f"{type(error).__name__} in {where}", "".join(traceback.format_exception(error))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _shape(said: str, path: Path) -> str:
    """An error without what is particular in it."""
    return re.sub(r"[\d.]+|'.*'|0x\w+", "#", said.replace(str(path), ""))[:80]


def judged(target: Target, data: bytes) -> str:
    """What is wrong with the target's way with these bytes, in a process of its own; empty: nothing."""
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / f"input{target.suffix}"
        path.write_bytes(data)
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                signal.signal(signal.SIGPROF, signal.SIG_DFL)
                limited()
                wrong, came = outcome(target, path)
                (Path(work) / "wrong").write_text(f"{wrong}\n{came}" if wrong else "")
                status = 0
            os._exit(status)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            return f"more than {LIMIT_SECONDS} s" if name == "SIGPROF" else f"ended by {name}"
        found = Path(work) / "wrong"
        return found.read_text() if found.exists() else "out of memory"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seed", default="0")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    target = TARGETS[options.target]
    path = options.work / f"input{target.suffix}"
    pool = corpus(target)
    for data in pool:  # what is imported late, and what a valid input takes, is there before the limit
        path.write_bytes(data)
        outcome(target, path)
    limited()
    seen: set[str] = set()
    found: set[str] = set()
    end = time.monotonic() + options.seconds
    number = options.first
    while time.monotonic() < end:
        changed, data = input_of(target, pool, random.Random(f"{target.name} {options.seed} {number}"))
        path.write_bytes(data)
        started = time.process_time()
        (options.work / "progress").write_text(json.dumps({"number": number}))
        wrong, came = outcome(target, path)
        took = time.process_time() - started
        if wrong and wrong not in found:
            found.add(wrong)
            print(json.dumps({"wrong": wrong, "number": number, "traceback": came}), flush=True)
            (options.work / f"finding-{number}").write_bytes(data)
        elif took > LIMIT_SECONDS / 4 and "slow" not in found:
            found.add("slow")
            print(json.dumps({"wrong": f"slow: {took:.1f} s", "number": number, "traceback": ""}), flush=True)
            (options.work / f"finding-{number}").write_bytes(data)
        elif came not in seen and len(changed) < 1 << 17:
            seen.add(came)
            if len(pool) < _POOL:
                pool.append(changed)
        number += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps({"done": number - options.first, "kinds": len(seen), "peak": peak}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The experiment: kernels that differ in their stacks, booted, and held against what was said of them before.

Three steps, each of which keeps what it made and goes on where it was left: boots without a child, from
which the
model's inputs come; predictions, stored; runs. A prediction is never made from a run, and never made anew
once it
is stored, unless it is asked for: then the first stays beside it.
"""

from __future__ import annotations

import fcntl
import json
import lzma
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from stackfit.image.model import InputError
from stackfit.lab.boot import GuestRun, boot, build_guest
from stackfit.lab.build import Built, load_built
from stackfit.lab.cases import READS, Case, Storm, fork_cases, reclaim_cases, storms
from stackfit.lab.console import GuestLog
from stackfit.lab.forecast import Forecast, base_costs, costs_text, forecast, scenario_table
from stackfit.lab.overflow import (
    OverflowPrediction,
    OverflowRow,
    levels_to_run,
    overflow_row,
    predict_overflow,
)
from stackfit.layouts import load_layout

__all__ = ["PARTS", "Experiment", "Outcome", "Plan", "Row", "StormRow"]

Told = Callable[[str], None]
_COUNTERS = (
    "allocstall", "pgscan_direct", "pgsteal_direct", "pgscan_kswapd", "pgsteal_kswapd", "pswpin", "pswpout",
    "compact_stall", "compact_fail", "compact_success", "compact_migrate_scanned", "compact_free_scanned",
)  # fmt: skip
_MOST_REPEATS = 99
PARTS = ("forks", "reclaim", "storm", "overflow")


@dataclass(frozen=True)
class Plan:
    """`kernels`: names of builds below `builds`. `repeats`: of every run. `seeds`: of every prediction.
    `parts`: of
    what is run."""

    builds: Path
    output: Path
    kernels: tuple[str, ...]
    sizes: tuple[int, ...]
    repeats: int = 3
    seeds: int = 5
    parts: tuple[str, ...] = PARTS
    seconds: int = 20  # of a storm
    timeout: int = 900


@dataclass(frozen=True)
class Outcome:
    """One run. `order`, `caller`: of the request that called the OOM killer. `p50`, `p99`: nanoseconds of the
    guest's time for a fork; `disk`: for a read of a page of the disk, the mean before memory was short.
    `counters`: what /proc/vmstat counted between the first child and the last snapshot, and `forks` until
    then."""

    children: int
    stopped: str
    order: int | None
    caller: str
    free_before_kb: int
    buddyinfo_before: tuple[int, ...]
    free_after_kb: int
    buddyinfo_after: tuple[int, ...]
    p50: int | None
    p99: int | None
    counters: Mapping[str, int]
    disk: int | None = None


@dataclass(frozen=True)
class Row:
    """Prediction beside outcome. `first`: the prediction made first, where it was made again since."""

    case: Case
    predicted: Forecast
    first: Forecast | None
    outcomes: tuple[Outcome, ...]

    @property
    def children(self) -> int:
        return int(median(one.children for one in self.outcomes))

    @property
    def order(self) -> int | None:
        """Of the request that failed in most runs."""
        orders = [one.order for one in self.outcomes]
        return max(orders, key=orders.count)

    @property
    def off(self) -> float:
        """The prediction over the outcome, less 1."""
        return self.predicted.processes / self.children - 1 if self.children else float("inf")

    def rates(self, name: str) -> list[float]:
        """A counter per 1,000 forks, of each run, least first."""
        return sorted(
            one.counters.get(name, 0) * 1000 / max(one.counters.get("forks", 0), 1) for one in self.outcomes
        )

    def rate(self, name: str) -> float:
        return float(median(self.rates(name)))


@dataclass(frozen=True)
class StormRow:
    """How deep stacks got under interrupts, bytes; None: not seen. `traced`: by the stack tracer, which
    adds its
    own frames to what it measures; `deepest`: of any task, by the marks that the kernel itself keeps."""

    storm: Storm
    traced: int | None
    deepest: int | None
    hardirq: int | None
    softirq: int | None
    interrupts: int
    complaints: tuple[str, ...]


class Experiment:
    """One output directory. InputError: a kernel was not built, a run gave nothing, the directory is not
    writable."""

    def __init__(self, plan: Plan, told: Told = lambda text: None) -> None:
        self.plan, self.told = plan, told
        self.kernels = {name: load_built(plan.builds, name) for name in plan.kernels}
        self._boots: dict[tuple[str, int, bool, bool], GuestLog] = {}
        try:
            for name in ("boots", "costs", "runs"):
                (plan.output / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(str(plan.output), error.strerror or str(error)) from None

    # cases

    def cases(self) -> list[Case]:
        """Of the parts that are planned."""
        names, found = self.plan.kernels, list[Case]()
        if "forks" in self.plan.parts:
            found += fork_cases(names, self.plan.sizes)
        if "reclaim" in self.plan.parts:
            found += reclaim_cases(names, max(self.plan.sizes))
        return found

    def storms(self) -> list[Storm]:
        return storms(self.plan.kernels) if "storm" in self.plan.parts else []

    # predictions

    def predict(self, again: bool = False) -> None:
        """Store what the model says of every case of which nothing is stored yet; `again`: of all, the first
        prediction kept."""
        with self._alone():
            self._predict(again)

    def _predict(self, again: bool) -> None:
        stored = self._stored()
        for case in self.cases():
            kept = stored.get(case.name)
            if kept is not None and not again:
                continue
            self.told(f"predicting {case.name}")
            built = self.kernels[case.kernel]
            start = self._boot(case)
            table = scenario_table(case, start, self._costs(case, start), "compaction" in built.configs)
            made = asdict(forecast(case, table, load_layout(built.layout), self.plan.seeds))
            first = None if kept is None else kept["first"] or kept["predicted"]
            stored[case.name] = {"predicted": made, "first": first, "scenario": table}
            self._write("predictions.json", stored)
        if "overflow" in self.plan.parts:
            for name, built in self.kernels.items():
                key = f"{name}-overflow"
                if key not in stored or again:
                    self.told(f"predicting {key}")
                    made_now = [asdict(one) for one in predict_overflow(built)]
                    kept = stored.get(key)
                    first = None if kept is None else kept["first"] or kept["predicted"]
                    stored[key] = {"predicted": made_now, "first": first}
                    self._write("predictions.json", stored)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While predictions are stored nobody else stores any: each would undo the other's."""
        with (self.plan.output / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(
                    str(self.plan.output), "another lab experiment is predicting there"
                ) from None
            yield

    def _overflows(self) -> list[OverflowPrediction]:
        if "overflow" not in self.plan.parts:
            return []
        stored = self._stored()
        kept = (stored.get(f"{name}-overflow", {"predicted": []})["predicted"] for name in self.kernels)
        return [OverflowPrediction(**one) for many in kept for one in many]

    def _stored(self) -> dict[str, Any]:
        path = self.plan.output / "predictions.json"
        try:
            found = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise InputError(str(path), f"not written by lab experiment: {error}") from None
        return dict(found)

    def _boot(self, case: Case) -> GuestLog:
        """The machine of a case as it is after boot."""
        random = case.condition == "aslr"
        key = case.kernel, case.memory, random, case.reclaim
        if key not in self._boots:
            name = f"{case.kernel}-{case.memory}{'-aslr' * random}{'-disk' * case.reclaim}"
            words: dict[str, str | int] = {"kind": "none", **({"aslr": 2} if random else {})}
            if case.reclaim:
                words["read"] = READS
            run = GuestRun(self.kernels[case.kernel].path("bzImage"), case.memory, words, **_machine(case))
            self._boots[key] = self._log(f"boots/{name}", run)
        return self._boots[key]

    def _costs(self, case: Case, start: GuestLog) -> str:
        name = case.kernel + ("-aslr" if case.condition == "aslr" else "")
        path = self.plan.output / "costs" / f"{name}.toml"
        text = costs_text(base_costs(), start, name, f"slabinfo and maps of a boot of {case.kernel}")
        path.write_text(text, "utf-8")
        return str(path)

    # runs

    def run(self) -> None:
        """Every run that has not been made. Predictions come first."""
        stored = self._stored()
        for case in self.cases():
            if case.name not in stored:
                raise InputError(case.name, "no prediction is stored: it would come after the run")
            for repeat in range(self.plan.repeats):
                self._case(case, repeat)
        for storm in self.storms():
            self._storm(storm)
        for prediction in self._overflows():
            for levels in levels_to_run(prediction):
                self._overflow(prediction, levels)

    def _case(self, case: Case, repeat: int) -> GuestLog:
        words = {**case.words, "repeat": repeat}
        run = GuestRun(
            self.kernels[case.kernel].path("bzImage"), case.memory, words, **_machine(case),
            timeout=self.plan.timeout,
        )  # fmt: skip
        return self._log(f"runs/{case.name}-{repeat}", run)

    def _storm(self, storm: Storm) -> GuestLog:
        built = self.kernels[storm.kernel]
        words = {
            "load": "storm", "seconds": self.plan.seconds, "swap": storm.memory * 1024,
            "stack": load_layout(built.layout).home("syscall").size,  # type: ignore[union-attr]
        }  # fmt: skip
        plain = ["ip=10.0.2.15::10.0.2.2:255.255.255.0::eth0:off", *(["stacktrace"] if storm.traced else [])]
        run = GuestRun(
            built.path("bzImage"), storm.memory, words, plain, disk=64, swap=64, ext4=True, network=True,
            timeout=self.plan.timeout,
        )  # fmt: skip
        return self._log(f"runs/{storm.name}", run)

    def _overflow(self, prediction: OverflowPrediction, levels: int) -> GuestLog:
        built = self.kernels[prediction.kernel]
        run = GuestRun(
            built.path("bzImage"), 64, {"load": "overflow", "context": prediction.context, "levels": levels},
            files={name: built.path(name) for name in ("chain.ko", "overflow.ko")}, timeout=120,
        )  # fmt: skip
        return self._log(
            f"runs/{prediction.kernel}-overflow-{prediction.context}-{levels}", run, may_hang=True
        )

    def _log(self, name: str, run: GuestRun, may_hang: bool = False) -> GuestLog:
        """A run's console, kept; made where it is not there."""
        path = self.plan.output / f"{name}.log.xz"
        if path.exists():
            return GuestLog(lzma.decompress(path.read_bytes()).decode("utf-8"))
        self.told(f"running {path.name.removesuffix('.log.xz')}")
        with tempfile.TemporaryDirectory(prefix="stackfit-lab-") as directory:
            log = boot(run, build_guest(Path(directory)), Path(directory))
        if not log.stopped and not may_hang:
            last = [line for line in log.text.splitlines() if line.strip()][-1:]
            raise InputError(path.name, f"the guest did not end; its console ends: {' '.join(last)[-200:]}")
        self._write(f"{name}.log.xz", lzma.compress(log.text.encode("utf-8")))
        return log

    def _write(self, name: str, data: object) -> None:
        path = self.plan.output / name
        content = data if isinstance(data, bytes) else (json.dumps(data, indent=1) + "\n").encode("utf-8")
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_bytes(content)
        temporary.replace(path)

    # what came of it

    def rows(self) -> list[Row]:
        """Every case that was predicted and run."""
        stored, found = self._stored(), list[Row]()
        for case in self.cases():
            if case.name in stored:
                logs = list(self._made(case))
                if logs:
                    first = stored[case.name]["first"]
                    found.append(
                        Row(
                            case, Forecast(**stored[case.name]["predicted"]),
                            None if first is None else Forecast(**first), tuple(outcome(log) for log in logs),
                        )
                    )  # fmt: skip
        return found

    def _made(self, case: Case) -> Iterable[GuestLog]:
        """Every run that is there, however many are planned now."""
        for repeat in range(_MOST_REPEATS):
            path = self.plan.output / "runs" / f"{case.name}-{repeat}.log.xz"
            if path.exists():
                yield GuestLog(lzma.decompress(path.read_bytes()).decode("utf-8"))

    def storm_rows(self) -> list[StormRow]:
        found = []
        for storm in self.storms():
            path = self.plan.output / "runs" / f"{storm.name}.log.xz"
            if path.exists():
                log = GuestLog(lzma.decompress(path.read_bytes()).decode("utf-8"))
                found.append(_storm_row(storm, log, self.kernels[storm.kernel]))
        return found

    def overflow_rows(self) -> list[OverflowRow]:
        found = []
        for prediction in self._overflows():
            logs = {
                levels: GuestLog(lzma.decompress(path.read_bytes()).decode("utf-8"))
                for levels in levels_to_run(prediction)
                if (path := self._overflow_path(prediction, levels)).exists()
            }
            if logs:
                found.append(overflow_row(prediction, logs))
        return found

    def _overflow_path(self, prediction: OverflowPrediction, levels: int) -> Path:
        return (
            self.plan.output / "runs" / f"{prediction.kernel}-overflow-{prediction.context}-{levels}.log.xz"
        )


def _machine(case: Case) -> dict[str, Any]:
    """What a case needs but memory; `ballast` of the page cache is a disk."""
    needs: dict[str, Any] = {"plain_words": () if case.condition == "aslr" else ("norandmaps",)}
    if case.state == "cache" or case.reclaim:
        needs["disk"] = 128
    if case.reclaim:
        needs["swap"] = 64
    return needs


def outcome(log: GuestLog) -> Outcome:
    """What a run's console says."""
    report = log.out_of_memory
    counted = [
        made for mark, made, path in log.sections if path == "/proc/vmstat" and mark in ("made", "end")
    ]
    last = max(counted, default=0)
    marks = [mark for mark in ("end", "failed", "made") if (mark, last, "/proc/vmstat") in log.sections]
    after = log.numbers(marks[0], "/proc/vmstat", last) if marks else {}
    before = log.numbers("before", "/proc/vmstat")
    times = sorted(log.latencies)
    free = log.numbers(marks[0], "/proc/meminfo", last).get("MemFree", 0) if marks else 0
    return Outcome(
        children=report.children if report else log.made,
        stopped=log.stopped if log.error is None else f"errno {log.error}",
        order=report.order if report else None,
        caller=report.caller if report else "",
        free_before_kb=log.numbers("before", "/proc/meminfo").get("MemFree", 0),
        buddyinfo_before=log.buddyinfo("before"),
        free_after_kb=report.free_kb if report else free,
        buddyinfo_after=report.buddyinfo if report else (),
        p50=times[len(times) // 2] if times else None,
        p99=times[len(times) * 99 // 100] if times else None,
        disk=sum(log.disk) // len(log.disk) if log.disk else None,
        counters={
            "forks": last,
        }
        | {
            name: sum(value - before.get(key, 0) for key, value in after.items() if _counts(key, name))
            for name in _COUNTERS
        },
    )


def _counts(key: str, name: str) -> bool:
    """allocstall has a row for each zone."""
    return key == name or (name == "allocstall" and key.startswith("allocstall_"))


def _storm_row(storm: Storm, log: GuestLog, built: Built) -> StormRow:
    stack = load_layout(built.layout).home("syscall")
    assert stack is not None
    traced = log.sections.get(("end", 0, "/sys/kernel/tracing/stack_max_size"), "0").strip()
    marks = log.marks
    lines = log.sections.get(("end", 0, "/proc/interrupts"), "").splitlines()
    counts = [int(line.split()[1]) for line in lines if len(line.split()) > 2 and line.split()[1].isdigit()]
    return StormRow(
        storm,
        int(traced) or None if traced.isdigit() else None,
        None if storm.traced or log.least_left is None else stack.size - log.least_left,
        marks.get("hardirq") or None,
        marks.get("softirq") or None,
        sum(counts),
        log.complaints,
    )

"""What the experiment runs: kernels, memory sizes, states of memory, loads, and conditions that mattered."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "CONDITIONS",
    "MODES",
    "READS",
    "RECLAIM",
    "SIZES",
    "STATES",
    "Case",
    "Storm",
    "fork_cases",
    "reclaim_cases",
    "storms",
]

SIZES = (32, 48, 64)  # MiB
STATES = ("fresh", "anon", "ramfs", "cache")
MODES = ("process", "thread")
# Each is the other setting of something that all other runs have off.
CONDITIONS = {
    "boost": "vm.watermark_boost_factor as the kernel has it",
    "aslr": "address-space layout random",
    "threads": "kernel.threads-max as the kernel chose it",
}
# Reclaim loads: memory full of page cache and swappable pages. cycle: a child ends for each that comes; grow:
# none ends, so that every stack has to be made room for. guest/experiment.c has the meanings.
_FULL = {"anon": 20480, "leave": 3072, "rounds": 200, "pages": 64, "use": 64}
READS = 1000  # of the disk, timed
RECLAIM = {"cycle": {**_FULL, "alive": 200, "forks": 2000}, "grow": {**_FULL, "alive": 1000, "forks": 1000}}
CHURN = {"rounds": 400, "pages": 64}
# kB free at which filling stops before holes are made; page cache above the marks at which kswapd takes it
# back.
LEAVE = {"anon": 1024, "ramfs": 1024, "cache": 2048}


@dataclass(frozen=True)
class Case:
    """`kernel`: name of a build. `state`: of memory before the first child; "cycle" or "grow": a reclaim
    load."""

    kernel: str
    memory: int
    state: str
    mode: str
    condition: str = ""
    repeat: int = 0

    @property
    def name(self) -> str:
        """The same for every repetition."""
        parts = [self.kernel, str(self.memory), self.state, self.mode, self.condition]
        return "-".join(part for part in parts if part)

    @property
    def reclaim(self) -> bool:
        return self.state in RECLAIM

    @property
    def words(self) -> dict[str, str | int]:
        """For the guest's program."""
        words: dict[str, str | int] = {"kind": self.mode}
        if self.reclaim:
            words |= {"load": "cycle", "read": READS, **RECLAIM[self.state]}
        else:
            words |= {"state": self.state, "leave": LEAVE.get(self.state, 0)}
            if self.state == "cache":
                words |= CHURN
            if self.mode == "thread":
                words["every"] = 200
        if self.condition == "boost":
            words["boost"] = "default"
        if self.condition == "aslr":
            words["aslr"] = 2
        if self.condition == "threads":
            words["threads"] = "default"
        return words


def fork_cases(kernels: tuple[str, ...], sizes: tuple[int, ...] = SIZES) -> list[Case]:
    """Every kernel in every state, then the conditions, on the smallest memory."""
    cases = [
        Case(kernel, memory, state, mode)
        for memory in sizes
        for state in STATES
        for mode in MODES
        for kernel in kernels
    ]
    cases += [
        Case(kernel, sizes[0], state, "process", condition)
        for condition in CONDITIONS
        for state in ("fresh", "anon")
        for kernel in kernels
        if "compaction" not in kernel
    ]
    return cases


def reclaim_cases(kernels: tuple[str, ...], memory: int = 64) -> list[Case]:
    return [Case(kernel, memory, load, "process") for load in RECLAIM for kernel in kernels]


@dataclass(frozen=True)
class Storm:
    """Interrupts from network, disk and timers on system calls; `traced`: with the stack tracer."""

    kernel: str
    traced: bool
    memory: int = 64

    @property
    def name(self) -> str:
        return f"{self.kernel}-{self.memory}-storm" + ("-traced" if self.traced else "")


def storms(kernels: tuple[str, ...]) -> list[Storm]:
    return [Storm(kernel, traced) for kernel in kernels for traced in (False, True)]

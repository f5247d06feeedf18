"""The same work on many arguments: in this process, on worker processes of this machine, or on a Dask
cluster.

What comes out of one argument depends on nothing but that argument; who computed it, in which order and how
often (a worker may be lost) does not show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from stackfit.fleet.extra import need
from stackfit.image.model import InputError
from stackfit.text import clean

__all__ = ["Outcome", "Progress", "Workers", "attempt", "run_all"]

A = TypeVar("A")
R = TypeVar("R")
Progress = Callable[[int, int], None]  # done, of so many


@dataclass(frozen=True)
class Workers:
    """Who computes. `number`: processes of this machine; 0 this one; None as many as there are CPUs and
    memory for, at most one an argument. `scheduler`: the address of a Dask scheduler, whose workers are
    taken instead."""

    number: int | None = None
    scheduler: str | None = None


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """What became of one argument. Either `value`, or `error`: one line on why there is none."""

    index: int
    value: R | None
    error: str | None = None


def run_all(
    work: Callable[[A], R],
    arguments: Sequence[A],
    workers: Workers,
    progress: Progress,
    memory: int = 1 << 29,
) -> Iterator[Outcome[R]]:
    """Each argument's outcome as it is done, in no order: `Outcome.index` counts `arguments`. `memory`: bytes
    that one of them may well take; no more workers are made here of themselves than have that much.

    An argument whose work fails does not stop the others. InputError: no scheduler answers, its workers are
    of another version, or Dask is not installed.
    """
    progress(0, len(arguments))
    if workers.scheduler is None and (workers.number == 0 or (workers.number is None and len(arguments) < 2)):
        outcomes: Iterator[Outcome[R]] = (
            Outcome(index, *attempt(work, one)) for index, one in enumerate(arguments)
        )
    else:
        for module in ("distributed", "cryptography"):
            need(module, "; --workers 0 goes without")
        from stackfit.fleet.cluster import outcomes_of

        outcomes = outcomes_of(work, arguments, workers, memory)
    for done, outcome in enumerate(outcomes, 1):
        progress(done, len(arguments))
        yield outcome


def attempt(work: Callable[[A], R], argument: A) -> tuple[R | None, str | None]:
    """(value, None), or (None, why there is none): whatever the argument does to the work, others follow."""
    try:
        return work(argument), None
    except InputError as error:
        return None, clean(str(error))
    except MemoryError:
        return None, "not enough memory for this input"
    except Exception as error:  # a defect of ours, brought out by this input: said, and the others go on
        return None, clean(f"defect in stackfit: {type(error).__name__}: {error}")

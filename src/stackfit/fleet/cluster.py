"""Work on Dask's workers. The one module that imports Dask; imported when there is something to distribute.

A cluster of this machine has workers of one thread each, of lower priority, which together may take nine
tenths of the memory. It listens on the loopback address alone and talks TLS with a key made for this run:
another user of the machine who finds the port can do nothing with it. No dashboard.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import dask
from distributed import Client, Future, LocalCluster, Security, WorkerPlugin, as_completed
from distributed.scheduler import KilledWorker
from distributed.system import MEMORY_LIMIT

from stackfit import __version__
from stackfit.fleet.run import Outcome, Workers, attempt
from stackfit.image.model import InputError

__all__ = ["local_cluster", "outcomes_of"]

A = TypeVar("A")
R = TypeVar("R")

_NICE = 5  # added to a local worker's
_SHARE = 0.9  # of the memory that all local workers may take together
_LOSSES = 3  # workers lost while on one argument, before it is given up
_AHEAD = 4  # arguments handed out for each worker
_LEAST_AHEAD = 32
_CONNECT = 15  # seconds
_START = 60  # … until a scheduler has a worker: they may be starting
_SETTINGS: dict[str, Any] = {
    "distributed.scheduler.allowed-failures": _LOSSES,
    "distributed.scheduler.worker-saturation": 1.0,
    # A worker that computes for minutes in compiled code sends no heartbeat, and is well: one that died is
    # noticed by its connection.
    "distributed.scheduler.worker-ttl": None,
    # Results are small and leave at once: nothing to write to disk, and a worker that paused because of
    # memory that its allocator keeps would never go on.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    # Each process has a server for HTTP whether there is a dashboard or not: it has no pages.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.nanny.http.routes": [],
    "distributed.admin.low-level-log-length": 0,
}


class _Polite(WorkerPlugin):  # type: ignore[misc]
    """Lets others of the machine go first."""

    name = "stackfit-nice"

    def setup(self, worker: Any) -> None:
        os.nice(_NICE)


def outcomes_of(
    work: Callable[[A], R], arguments: Sequence[A], workers: Workers, memory: int
) -> Iterator[Outcome[R]]:
    """As `run.run_all`, on Dask."""
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(_SETTINGS))
        if workers.scheduler is None:
            there = max(min(dask.system.CPU_COUNT, int(MEMORY_LIMIT * _SHARE / memory)), 1)
            count = min(workers.number or there, max(len(arguments), 1))
            client = stack.enter_context(_local_client(count))
        else:
            client = stack.enter_context(_client(workers.scheduler))
        yield from _gather(client, work, arguments)


def _gather(client: Client, work: Callable[[A], R], arguments: Sequence[A]) -> Iterator[Outcome[R]]:
    """Hands out a few arguments more than there are workers, so that many thousand need no memory here."""
    index: dict[str, int] = {}
    waiting = iter(enumerate(arguments))
    suspects: list[int] = []

    def submit(count: int) -> list[Future]:
        futures = []
        for at, argument in (one for one, _ in zip(waiting, range(count), strict=False)):
            future = client.submit(attempt, work, argument, pure=False)
            index[future.key] = at
            futures.append(future)
        return futures

    threads = sum(client.nthreads().values())
    pending = as_completed(submit(max(_AHEAD * threads, _LEAST_AHEAD)), loop=client.loop)
    for future in pending:
        at = index.pop(future.key)
        outcome: Outcome[R] | None = _outcome(client, at, future)
        for more in submit(1):
            pending.add(more)
        if outcome is None:
            suspects.append(at)
        else:
            yield outcome
    for at in suspects:  # arguments that waited on the same worker share the blame: now each by itself
        future = client.submit(attempt, work, arguments[at], pure=False)
        outcome = _outcome(client, at, future)
        yield outcome or Outcome(at, None, "every worker that took it died (killed, or out of memory)")


def _outcome(client: Client, at: int, future: Future) -> Outcome[R] | None:
    """What became of it; None: workers died on it again and again."""
    try:
        value, error = future.result()
    except KilledWorker:
        return None
    except Exception as lost:  # what cannot be sent, or a scheduler that is gone
        if client.status != "running":
            raise InputError(_address(client), f"the scheduler is lost: {lost}") from None
        value, error = None, f"{type(lost).__name__}: {lost}"
    future.release()
    return Outcome(at, value, error)


def _address(client: Client) -> str:
    return str(client.scheduler.address) if client.scheduler is not None else "scheduler"


@contextmanager
def local_cluster(workers: int) -> Iterator[LocalCluster]:
    """So many worker processes of this machine."""
    with (
        tempfile.TemporaryDirectory(prefix="stackfit-") as directory,
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            worker_dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            memory_limit=int(MEMORY_LIMIT * _SHARE / workers),
            silence_logs=logging.CRITICAL,
            security=Security.temporary(),
            protocol="tls://",
            local_directory=directory,
        ) as cluster,
    ):
        yield cluster


@contextmanager
def _local_client(workers: int) -> Iterator[Client]:
    with local_cluster(workers) as cluster, Client(cluster) as client:
        client.register_plugin(_Polite())
        yield client


@contextmanager
def _client(address: str) -> Iterator[Client]:
    """Of a scheduler that is there already; its workers have this version. InputError."""
    try:
        client = Client(address, timeout=_CONNECT, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(address, f"no scheduler answers: {str(error) or type(error).__name__}") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=_START)
            versions = set(client.run(_version).values())
        except TimeoutError:
            raise InputError(address, f"the scheduler has no workers within {_START} s") from None
        except Exception as error:  # a worker without stackfit cannot even read what it is to run
            raise InputError(address, f"a worker cannot run stackfit: {error}") from None
        if versions != {__version__}:
            raise InputError(
                address, f"its workers have stackfit {', '.join(sorted(versions))}, this is {__version__}"
            )
        yield client


def _version() -> str:
    return __version__

"""A cluster of this machine that tests take as if it were a far one, and a hand that kills its workers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Two workers; `scheduler_address` is for --scheduler."""
    distributed = pytest.importorskip("distributed", reason="the extra fleet is not installed")
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            silence_logs=50,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        ) as found,
    ):
        yield found


class Killer(threading.Thread):
    """Kills one worker of a cluster as soon as it has something to do; `killed` is its process, None
    before."""

    def __init__(self, cluster: Any) -> None:
        super().__init__(daemon=True)
        self.cluster = cluster
        self.killed: int | None = None

    def run(self) -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            busy = {
                address for address, one in list(self.cluster.scheduler.workers.items()) if one.processing
            }
            for nanny in list(self.cluster.workers.values()):
                if nanny.worker_address in busy and nanny.pid is not None:
                    self.killed = nanny.pid
                    os.kill(nanny.pid, signal.SIGKILL)
                    return
            time.sleep(0.001)


@pytest.fixture
def killer() -> type[Killer]:
    return Killer

"""Work on many arguments: every outcome, whoever computes it, and whoever dies of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stackfit.cli.main import main
from stackfit.fleet.extra import need
from stackfit.fleet.names import file_names
from stackfit.fleet.run import Outcome, Workers, run_all
from stackfit.image.model import InputError

pytestmark = pytest.mark.slow  # nothing here is about the hot modules: once is enough


def silent(done: int, total: int) -> None:
    pass


def work_of_a_kind() -> Callable[[int], int]:
    """Functions inside of others are sent to workers whole: they cannot import this file."""

    def square(number: int) -> int:
        if number == 3:
            raise InputError("three", "not a number for this")
        if number == 4:
            raise MemoryError
        if number == 5:
            raise KeyError("five")
        return number**2

    return square


WANTED = [
    Outcome(0, 0),
    Outcome(1, 1),
    Outcome(2, 4),
    Outcome(3, None, "three: not a number for this"),
    Outcome(4, None, "not enough memory for this input"),
    Outcome(5, None, "defect in stackfit: KeyError: 'five'"),
    Outcome(6, 36),
]


def test_what_one_argument_does_to_the_work_is_said_and_the_others_follow() -> None:
    seen: list[tuple[int, int]] = []
    found = list(
        run_all(work_of_a_kind(), range(7), Workers(0), lambda done, total: seen.append((done, total)))
    )
    assert found == WANTED
    assert seen == [(done, 7) for done in range(8)]


def test_a_cluster_gives_the_same(cluster: Any) -> None:
    found = list(run_all(work_of_a_kind(), range(7), Workers(scheduler=cluster.scheduler_address), silent))
    assert sorted(found, key=lambda one: one.index) == WANTED


def test_a_worker_killed_at_its_work_loses_nothing(cluster: Any, tmp_path: Path) -> None:
    """The work writes down who does it and waits; that process is killed; another one does it again."""
    started, go = tmp_path / "started", tmp_path / "go"
    first, second = str(started), str(go)

    def wait(number: int) -> int:
        if number == 1:
            with open(first, "a", encoding="ascii") as file:
                file.write(f"{os.getpid()}\n")
            while not os.path.exists(second):
                time.sleep(0.01)
        return number * 10

    def kill() -> None:
        while not started.exists() or not started.read_text(encoding="ascii").endswith("\n"):
            time.sleep(0.01)
        os.kill(int(started.read_text(encoding="ascii")), signal.SIGKILL)
        go.touch()

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    found = list(run_all(wait, range(4), Workers(scheduler=cluster.scheduler_address), silent))
    thread.join()
    assert sorted(found, key=lambda one: one.index) == [Outcome(number, number * 10) for number in range(4)]
    pids = started.read_text(encoding="ascii").split()
    assert len(set(pids)) == 2, "the process that was killed, and the one that did it again"


def test_what_kills_every_worker_is_left_out(cluster: Any) -> None:
    def deadly(number: int) -> int:
        if number == 2:
            os._exit(1)
        return number

    found = list(run_all(deadly, range(4), Workers(scheduler=cluster.scheduler_address), silent))
    died = "every worker that took it died (killed, or out of memory)"
    wanted = [Outcome(0, 0), Outcome(1, 1), Outcome(2, None, died), Outcome(3, 3)]
    assert sorted(found, key=lambda one: one.index) == wanted


def test_a_scheduler_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("distributed", reason="the extra fleet is not installed")
    assert main(["fleet", "simulate", "anon-holes", "--scheduler", "none://x"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("stackfit: error: none://x: no scheduler answers") and error.count("\n") == 1


def test_without_the_extra_one_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="the extra fleet is not installed")
    for name in ("distributed", "fsspec", "fsspec.core"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"distributed: not installed: pip install 'stackfit\[fleet\]'"):
        list(run_all(work_of_a_kind(), range(2), Workers(2), silent))
    with pytest.raises(InputError, match=r"fsspec: not installed: pip install"):
        need("fsspec.core")
    assert [one.value for one in run_all(work_of_a_kind(), range(2), Workers(0), silent)] == [0, 1]


def test_help_and_other_commands_import_nothing_of_it() -> None:
    code = (
        "import sys; from stackfit.cli.main import build_parser; build_parser(['fleet']);"
        " print({'dask', 'distributed', 'pyarrow', 'fsspec', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_file_names_stay_in_their_directory_and_differ() -> None:
    names = ["a", "../../etc/passwd", "A", "..", "", "\x1b[31m", "-rf", "x" * 500, "a"]
    found = file_names(names)
    assert len({name.lower() for name in found}) == len(names)
    assert all("/" not in name and not name.startswith((".", "-")) and 0 < len(name) < 140 for name in found)
    assert found[:3] == ["a", "_._.._etc_passwd", "A-2"]

"""QEMU's monitor, against programs that answer like it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stackfit.image.model import InputError
from stackfit.lab.monitor import dump_memory

ANSWERS = """
import json, sys
def say(message):
    print(json.dumps(message), flush=True)
say({"QMP": {"version": {}}})
for line in sys.stdin:
    asked = json.loads(line)
    say({"event": "SOMETHING"})
    if asked["execute"] == "dump-guest-memory":
        %s
    say({"return": {}})
"""
WRITES = "open(asked['arguments']['protocol'][5:], 'w').write(str(asked['arguments']['paging']))"
REFUSES = "say({'error': {'class': 'GenericError', 'desc': 'no room'}}); continue"
ENDS = "sys.exit(1)"
WAITS = "sys.stdin.read()"


@contextmanager
def machine(what: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", ANSWERS % what]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_memory_is_written_without_paging(tmp_path: Path) -> None:
    with machine(WRITES) as process:
        dump_memory(process, tmp_path / "core", 60)
    assert (tmp_path / "core").read_text() == "False"


@pytest.mark.parametrize(
    ("what", "timeout", "cause"),
    [
        (REFUSES, 60, "dump-guest-memory: no room"),
        (ENDS, 60, "ended before its memory was written"),
        (WAITS, 2, "does not answer"),
    ],
)
def test_what_goes_wrong_is_one_line(what: str, timeout: int, cause: str, tmp_path: Path) -> None:
    with machine(what) as process, pytest.raises(InputError, match=cause):
        dump_memory(process, tmp_path / "core", timeout)

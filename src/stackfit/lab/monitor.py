"""QEMU's monitor (QMP) on its standard input and output: stops the machine and writes its memory to a file.

Source: QEMU docs/interop/qmp-spec.rst, qapi/dump.json (dump-guest-memory).
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

from stackfit.image.model import InputError

__all__ = ["MONITOR", "dump_memory"]

MONITOR = ("-qmp", "stdio")


def dump_memory(process: subprocess.Popen[bytes], path: Path, timeout: float) -> None:
    """Physical memory as an ELF core; the machine stays stopped. InputError: QEMU says no, or nothing."""
    monitor = _Monitor(process, time.monotonic() + timeout)
    monitor.line()  # its greeting
    monitor.execute("qmp_capabilities")
    monitor.execute("stop")
    monitor.execute("dump-guest-memory", paging=False, protocol=f"file:{path}")


class _Monitor:
    def __init__(self, process: subprocess.Popen[bytes], end: float) -> None:
        self.process = process
        self.end = end
        self.rest = b""

    def execute(self, command: str, **arguments: object) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(
                json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"
            )
            self.process.stdin.flush()
        except OSError as error:
            raise InputError("qemu", f"{command}: {error.strerror}") from None
        while True:
            answer = self.line()
            if "return" in answer:
                return
            if "error" in answer:
                raise InputError("qemu", f"{command}: {answer['error'].get('desc', answer['error'])}")

    def line(self) -> dict[str, Any]:
        """The next message; events and answers alike."""
        assert self.process.stdout is not None
        handle = self.process.stdout.fileno()
        while b"\n" not in self.rest:
            ready = select.select([handle], [], [], max(self.end - time.monotonic(), 0))[0]
            if not ready:
                raise InputError("qemu", "its monitor does not answer (--timeout)")
            data = os.read(handle, 65536)
            if not data:
                raise InputError("qemu", "ended before its memory was written")
            self.rest += data
        text, _, self.rest = self.rest.partition(b"\n")
        message = json.loads(text)
        return message if isinstance(message, dict) else {}

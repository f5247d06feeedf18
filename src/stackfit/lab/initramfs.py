"""The guest's file system: a cpio archive with our init, busybox and modules, made without cpio.

Source of the format: Documentation/driver-api/early-userspace/buffer-format.rst (newc).
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

from stackfit.lab.modules import LoadOrder

__all__ = ["build_initramfs", "newc"]

_DIRECTORIES = ("bin", "dev", "proc", "sys", "tmp", "modules")


def newc(entries: Sequence[tuple[str, int, bytes, int, int]]) -> bytes:
    """A cpio archive (newc) of (path, mode, data, device major, device minor)."""
    out = bytearray()
    for inode, (path, mode, data, major, minor) in enumerate([*entries, ("TRAILER!!!", 0, b"", 0, 0)], 1):
        name = path.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def build_initramfs(init: Path, busybox: Path | None, order: LoadOrder) -> bytes:
    """The compressed archive; the same for the same files."""
    entries = [(name, 0o040755, b"", 0, 0) for name in _DIRECTORIES]
    entries.append(("dev/console", 0o020600, b"", 5, 1))
    entries.append(("init", 0o100755, init.read_bytes(), 0, 0))
    if busybox is not None:
        entries.append(("bin/busybox", 0o100755, busybox.read_bytes(), 0, 0))
    entries.append(("order", 0o100644, order.text().encode(), 0, 0))
    entries += [(f"modules/{name}.ko", 0o100644, data, 0, 0) for name, data in order.files.items()]
    return gzip.compress(newc(entries), 1, mtime=0)

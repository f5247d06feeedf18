"""Archives of relocatable objects (`ar`): the members and their names.

Common format, with the long names of GNU (`//`, `/OFFSET`) and BSD (`#1/LENGTH`): System V gABI "Archive file";
binutils `include/aout/ar.h`. Thin archives hold names of files only: whoever made one may have meant any file,
so they are refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from stackfit.image.model import InputError

__all__ = ["Member", "is_archive", "read_archive"]

_MAGIC, _THIN = b"!<arch>\n", b"!<thin>\n"
_HEADER = 60
_NAME, _SIZE, _END = slice(0, 16), slice(48, 58), slice(58, 60)
_INDEXES = ("/", "/SYM64/", "__.SYMDEF", "__.SYMDEF SORTED", "__.SYMDEF_64")
_MOST_MEMBERS = 200_000
_LONGEST_NAME = 4096  # bytes


@dataclass(frozen=True)
class Member:
    """One file in an archive: its name, where its bytes begin in the archive, and these."""

    name: str
    offset: int
    data: bytes | memoryview


def is_archive(head: bytes) -> bool:
    """Whether a file starts as an archive does, thin ones included."""
    return head[:8] in (_MAGIC, _THIN)


def read_archive(path: str, data: bytes | memoryview) -> list[Member]:
    """The members in the archive's order, without its indexes. InputError: thin, or damaged."""
    if bytes(data[:8]) == _THIN:
        raise InputError(path, "a thin archive: its members are files of their own, give those instead", 0)
    found: list[Member] = []
    names = b""
    at = len(_MAGIC)
    while at < len(data):
        header = bytes(data[at : at + _HEADER])
        if len(header) < _HEADER or header[_END] != b"`\n":
            raise InputError(path, "no header of an archive's member", at)
        digits = header[_SIZE].strip(b" ")
        if not digits.isdigit():
            raise InputError(path, "the size of an archive's member is no number", at + _SIZE.start)
        start, size = at + _HEADER, int(digits)
        if start + size > len(data):
            raise InputError(path, f"an archive's member of {size} bytes ends beyond the end of the file", at)
        body = data[start : start + size]
        name = header[_NAME].rstrip(b" ")
        if name == b"//":
            names = bytes(body)
        else:
            text, skipped = _name(path, at, name, names, body)
            if text not in _INDEXES:
                if len(found) == _MOST_MEMBERS:
                    raise InputError(path, f"more than {_MOST_MEMBERS} members", at)
                found.append(Member(text, start + skipped, body[skipped:]))
        at = start + size + (size & 1)
    return found


def _name(path: str, at: int, name: bytes, names: bytes, body: bytes | memoryview) -> tuple[str, int]:
    """A member's name, and how many of its bytes are that name (BSD)."""
    if name.startswith(b"#1/") and name[3:].isdigit():
        length = int(name[3:])
        if length > min(len(body), _LONGEST_NAME):
            raise InputError(path, "the name of an archive's member is longer than the member", at)
        return bytes(body[:length]).rstrip(b"\0").decode("utf-8", "replace"), length
    if name.startswith(b"/") and name[1:].isdigit():
        start = int(name[1:])
        end = names.find(b"\n", start, start + _LONGEST_NAME)
        if start >= len(names) or end < 0:
            raise InputError(path, "the name of an archive's member is not among its long names", at)
        return names[start:end].removesuffix(b"/").decode("utf-8", "replace"), 0
    if name not in (b"/", b"/SYM64/"):
        name = name.removesuffix(b"/")
    return name.decode("utf-8", "replace"), 0

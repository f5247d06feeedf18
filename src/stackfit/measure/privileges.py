"""Gives up what root may do and measuring does not need.

What the running kernel shows is read through files that only root may open. Once they are open, nothing but
writing reports is left: the capabilities go, for good and for whatever this process starts.

Sources: capabilities(7), include/uapi/linux/capability.h, include/uapi/linux/prctl.h.
"""

from __future__ import annotations

import ctypes
import os

__all__ = ["drop_capabilities"]

_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 23, 24, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_VERSION = 0x2008_0522  # _LINUX_CAPABILITY_VERSION_3: two words of 32 capabilities
# Reports go where who called sudo wants them, into directories that are not root's.
_KEPT = 1  # CAP_DAC_OVERRIDE


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Word(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32),
    )  # fmt: skip


def drop_capabilities() -> bool:
    """Drop every capability but the one to write reports anywhere. False: the kernel would not; nothing that
    is measured depends on it.

    Who is not root has none to begin with.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def control(option: int, argument: int) -> int:
        return int(libc.prctl(option, *map(ctypes.c_ulong, (argument, 0, 0, 0))))

    gone = control(_PR_SET_NO_NEW_PRIVS, 1) == 0
    number = 0
    while control(_PR_CAPBSET_READ, number) >= 0:  # the kernel's last one is followed by an error
        if number != _KEPT and os.geteuid() == 0:
            gone &= control(_PR_CAPBSET_DROP, number) == 0
        number += 1
    control(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header, words = _Header(_VERSION, 0), (_Word * 2)()
    if libc.capget(ctypes.byref(header), words) != 0:
        return False
    kept = words[0].permitted & 1 << _KEPT
    words[0] = _Word(kept, kept, 0)
    words[1] = _Word(0, 0, 0)
    return libc.capset(ctypes.byref(header), words) == 0 and gone

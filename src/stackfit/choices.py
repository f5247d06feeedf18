"""What a caller of an analysis chooses from: names and limits, apart from the code that heeds them.

A command line is read, and an answer kept is found again, without loading any of that.
"""

from __future__ import annotations

import enum

__all__ = ["MOST_HOPS", "UNLIMITED", "Hypervisor", "Indirect"]

UNLIMITED = -1  # hops: no limit, whatever the assumption sets say
MOST_HOPS = 32  # a curve is never given beyond this many: each is a layer of values over the whole program


class Indirect(enum.Enum):
    """What resolution may rest on."""

    STRICT = "strict"  # what the image's own constant data settles
    TYPED = "typed"  # … and that pointers are used as their types say
    SIGNATURE = "signature"  # … but any function of the prototype may be in any place of that prototype


class Hypervisor(enum.Enum):
    """What pv_ops hold."""

    NONE = "none"  # what the image has: native functions
    ANY = "any"  # … or what any hypervisor's guest code puts there

"""What a caller of an analysis chooses from: names and limits, apart from the code that heeds them.

A command line is read, and an answer kept is found again, without loading any of that.
"""

from __future__ import annotations

import enum

__all__ = ["ARCHITECTURES", "DEFAULT_MARGIN", "MOST_HOPS", "UNLIMITED", "Hypervisor", "Indirect"]

UNLIMITED = -1  # hops: no limit, whatever the assumption sets say
MOST_HOPS = 32  # a curve is never given beyond this many: each is a layer of values over the whole program

ARCHITECTURES = ("arm", "thumb", "aarch64", "riscv32", "riscv64")  # of flat binaries (image/flat.py)
DEFAULT_MARGIN = "10%"  # on top of a bound, in advice on sizes (verdict/allocation.py)


class Indirect(enum.Enum):
    """What resolution may rest on."""

    STRICT = "strict"  # what the image's own constant data settles
    TYPED = "typed"  # … and that pointers are used as their types say
    SIGNATURE = "signature"  # … but any function of the prototype may be in any place of that prototype


class Hypervisor(enum.Enum):
    """What pv_ops hold."""

    NONE = "none"  # what the image has: native functions
    ANY = "any"  # … or what any hypervisor's guest code puts there

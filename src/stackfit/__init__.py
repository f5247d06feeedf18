"""stackfit decides how big a stack has to be, with evidence.

import stackfit
analysis = stackfit.check("vmlinuz", modules=["/lib/modules/6.1.0"], layouts=["linux-x86_64"])
for layout in analysis.verdicts:
    for need in layout.stacks:
        print(layout.layout.name, need.stack.name, need.direct, need.verdict.value)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["Analysis", "__version__", "analyse", "check"]

__version__ = "0.1.0"

if TYPE_CHECKING:
    from stackfit.analysis import Analysis, analyse, check


def __getattr__(name: str) -> Any:
    """The library's front door, imported when it is used: `stackfit --help` needs none of it."""
    if name in ("Analysis", "analyse", "check"):
        from stackfit import analysis

        return getattr(analysis, name)
    raise AttributeError(f"module 'stackfit' has no attribute {name!r}")

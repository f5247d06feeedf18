"""Where code stands in the source, for reports: lines of the kernel's own debug information or its
companion's."""

from __future__ import annotations

from stackfit.analysis import Analysis
from stackfit.image.lines import SourceLine, SourceLines
from stackfit.report.rows import ChainRow

__all__ = ["Sources"]


class Sources:
    """Lines of addresses of one analysis. Modules have none: their debug sections are not relocated."""

    def __init__(self, analysis: Analysis) -> None:
        functions = analysis.code.functions
        self._functions = functions
        own = analysis.program.images[0]
        has = next(
            (
                image
                for image in (own, analysis.debug)
                if image is not None and image.section(".debug_info") is not None
            ),
            None,
        )
        self._lines = SourceLines(has) if has is not None else None

    def address(self, row: ChainRow) -> int | None:
        """The row's call site, else its function's entry; None of what hardware pushes."""
        if row.address:
            return row.address
        return self.entry(row.index)

    def entry(self, function: int) -> int | None:
        """The address of a function."""
        return int(self._functions.address[function]) if function >= 0 else None

    def line(self, address: int | None) -> SourceLine | None:
        """Where that is, or None. InputError: the debug information is damaged."""
        return self._lines.at(address) if self._lines is not None and address is not None else None

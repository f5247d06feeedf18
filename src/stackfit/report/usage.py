"""frames --stack-usage for people and as JSON; the numbers come from frames/usage.py."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from stackfit.analysis import Analysis
from stackfit.frames.usage import UsageDifference, UsageWitness
from stackfit.report.terminal import line, print_table
from stackfit.text import bytes_text, clean, number_text

__all__ = ["print_usage", "usage_json"]


def print_usage(console: Console, analysis: Analysis, witness: UsageWitness) -> None:
    print_table(
        console,
        "compiler_frame against gcc's -fstack-usage",
        [("kind", "left"), ("rows", "right"), ("compared", "right"), ("equal", "right"), ("", "right"),
         ("above", "right"), ("below", "right"), ("open", "right")],
        [
            [
                one.kind, number_text(one.rows), number_text(one.compared), number_text(one.equal),
                f"{one.equal / one.compared:.2%}" if one.compared else "—",
                number_text(one.above), number_text(one.below), number_text(one.open),
            ]
            for one in witness.kinds
        ],
    )  # fmt: skip
    line(
        console,
        f"{number_text(witness.missing)} rows name no function of the image, {number_text(witness.ambiguous)}"
        " more than one.",
    )
    if witness.differences:
        line(console, "")
        print_table(
            console,
            "where they differ",
            [("function", "left"), ("source", "left"), ("kind", "left"), ("gcc", "right"), ("here", "right")],
            [
                [
                    _name(analysis, one), clean(one.row.unit), one.row.kind, bytes_text(one.row.bytes),
                    bytes_text(one.frame),
                ]
                for one in witness.differences
            ],
        )  # fmt: skip


def _name(analysis: Analysis, one: UsageDifference) -> str:
    return clean(analysis.code.functions.names[one.function])


def usage_json(analysis: Analysis, witness: UsageWitness) -> dict[str, Any]:
    return {
        "schema": "stackfit.stack-usage/1",
        "image": analysis.program.path,
        "kinds": [
            {
                "kind": one.kind,
                "rows": one.rows,
                "compared": one.compared,
                "equal": one.equal,
                "above": one.above,
                "below": one.below,
                "open": one.open,
            }
            for one in witness.kinds
        ],
        "missing": witness.missing,
        "ambiguous": witness.ambiguous,
        "differences": [
            {
                "function": analysis.code.functions.names[one.function],
                "address": int(analysis.code.functions.address[one.function]),
                "source": one.row.unit,
                "kind": one.row.kind,
                "gcc": one.row.bytes,
                "frame": one.frame,
            }
            for one in witness.differences
        ],
    }

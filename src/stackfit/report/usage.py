"""frames --stack-usage for people and as JSON; the numbers come from frames/usage.py."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from stackfit.analysis import Analysis
from stackfit.frames.model import OPEN_FRAME
from stackfit.frames.usage import UsageDifference, UsageWitness
from stackfit.report.terminal import line, print_table, stated_text
from stackfit.text import bytes_text, clean, number_text

__all__ = ["print_stated", "print_usage", "stated_json", "usage_json"]


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


def print_stated(console: Console, analysis: Analysis) -> None:
    """What compilers said, and every difference."""
    for stated in analysis.stated:
        line(console, stated_text(stated))
        witness = stated.usage
        if witness.missing or witness.ambiguous:
            line(
                console,
                f"  {number_text(witness.missing)} rows name no function of the image"
                + (
                    f" ({number_text(stated.discarded)} that the linker discarded)"
                    if stated.discarded
                    else ""
                )
                + f", {number_text(witness.ambiguous)} more than one",
            )
        rows = [
            [
                _name(analysis, one), one.row.kind, bytes_text(one.row.bytes), bytes_text(one.frame),
                clean(one.row.source),
            ]
            for one in witness.differences
        ]  # fmt: skip
        frames = analysis.frames
        rows += [
            [
                clean(analysis.code.functions.names[function]), row.kind, bytes_text(row.bytes), "open",
                clean(", ".join((row.source, *row.objects))),
            ]
            for function, row in witness.pairs
            if int(frames.summary[function]) & OPEN_FRAME
        ]  # fmt: skip
        columns = [
            ("function", "left"),
            ("kind", "left"),
            ("stated", "right"),
            ("here", "right"),
            ("by", "left"),
        ]
        if rows:
            print_table(console, "", columns, rows)
        if stated.missing:
            print_table(
                console,
                "calls that the compiler states and the code does not show",
                [("function", "left"), ("calls", "left"), ("place", "left"), ("by", "left")],
                [
                    [
                        clean(analysis.code.functions.names[one.function]), clean(one.callee),
                        clean(one.statement.place), clean(one.statement.source),
                    ]
                    for one in stated.missing
                ],
            )  # fmt: skip


def stated_json(analysis: Analysis) -> list[dict[str, Any]]:
    """What compilers said: counts, differences, rows of frames that are open here, calls not found."""
    names, address = analysis.code.functions.names, analysis.code.functions.address
    return [
        {
            "name": stated.name,
            "rows": sum(one.rows for one in stated.usage.kinds),
            "compared": sum(one.compared for one in stated.usage.kinds),
            "equal": sum(one.equal for one in stated.usage.kinds),
            "missing": stated.usage.missing,
            "discarded": stated.discarded,
            "ambiguous": stated.usage.ambiguous,
            "differences": [
                {
                    "function": names[one.function],
                    "address": int(address[one.function]),
                    "kind": one.row.kind,
                    "stated": one.row.bytes,
                    "frame": one.frame,
                    "source": one.row.source,
                }
                for one in stated.usage.differences
            ],
            "open": [
                {
                    "function": names[function],
                    "address": int(address[function]),
                    "kind": row.kind,
                    "stated": row.bytes,
                    "objects": list(row.objects),
                    "source": row.source,
                }
                for function, row in stated.usage.pairs
                if int(analysis.frames.summary[function]) & OPEN_FRAME
            ],
            "calls": stated.calls,
            "missing_calls": [
                {
                    "function": names[one.function],
                    "address": int(address[one.function]),
                    "callee": one.callee,
                    "place": one.statement.place,
                    "source": one.statement.source,
                }
                for one in stated.missing
            ],
        }
        for stated in analysis.stated
    ]


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

"""Many images' verdicts for people, and as JSON (stackfit.fleet-check/1 in docs/schemas)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from stackfit.fleet.check import Checked, FleetCheck
from stackfit.report.terminal import line, print_table
from stackfit.text import bytes_text, clean, number_text, range_text, size_text
from stackfit.verdict.model import Verdict

__all__ = ["fleet_json", "print_fleet"]

Json = dict[str, Any]
_STYLE = {
    Verdict.EXCEEDS.value: "bold red",
    Verdict.MAY_EXCEED.value: "red",
    Verdict.UNKNOWN.value: "yellow",
    Verdict.FITS_IF.value: "green",
    Verdict.FITS.value: "bold green",
}


def fleet_json(fleet: FleetCheck, reports: Mapping[str, str]) -> Json:
    """The document of `fleet check --json`. `reports`: the file written of each image, by its name."""
    return {
        "schema": "stackfit.fleet-check/1",
        "images": [_image(one, reports.get(one.input.name)) for one in fleet.images],
        "skipped": [{"name": one.name, "path": one.image, "cause": cause} for one, cause in fleet.skipped],
        "stacks": [{"image": one.input.name, **row} for one in fleet.images for row in one.stacks],
        "contexts": [{"image": one.input.name, **row} for one in fleet.images for row in one.contexts],
    }


def _image(one: Checked, report: str | None) -> Json:
    return {
        "name": one.input.name,
        **one.image,
        "modules": one.modules,
        "bad_modules": [{"path": path, "cause": cause} for path, cause in one.bad],
        "report": report,
    }


def print_fleet(console: Console, fleet: FleetCheck) -> None:
    """A row for each stack, then how many contexts have which verdict."""
    kept = sum(one.kept for one in fleet.images)
    count = len(fleet.images)
    text = f"{number_text(count)} image{'s' if count > 1 else ''}"
    if kept:
        text += f", {number_text(kept)} unchanged and not analysed again"
    if fleet.skipped:
        text += f"; {number_text(len(fleet.skipped))} left out"
    line(console, text, "bold")
    line(console, "")
    _print_images(console, fleet)
    _print_stacks(console, fleet)
    _print_contexts(console, fleet)


def _print_images(console: Console, fleet: FleetCheck) -> None:
    columns = [
        ("image", "left"), ("machine", "left"), ("Linux", "left"), ("modules", "right"), ("build-id", "left"),
    ]  # fmt: skip
    rows = [
        [
            one.input.name,
            one.image["machine"],
            one.image["release"] or "—",
            number_text(one.modules) + (f" (and {len(one.bad)} that cannot be read)" if one.bad else ""),
            (one.image["build_id"] or "—")[:12],
        ]
        for one in fleet.images
    ]
    print_table(console, "", columns, rows)


def _print_stacks(console: Console, fleet: FleetCheck) -> None:
    columns = [
        ("image", "left"), ("layout", "left"), ("stack", "left"), ("size", "right"), ("measured", "right"),
        ("direct", "right"), ("bound", "right"), ("verdict", "left"), ("evidence", "left"), ("open", "right"),
    ]  # fmt: skip
    shown = [(one, row) for one in fleet.images for row in one.stacks]
    rows = [
        [
            one.input.name,
            row["layout"] + (" *" if row["hypothetical"] else ""),
            row["stack"],
            size_text(row["size"]),
            bytes_text(row["measured"]),
            range_text(row["found"], row["direct"], bool(row["open"])),
            "none" if row["bound"] is None else bytes_text(row["bound"], bool(row["open"])),
            row["verdict"],
            row["evidence"],
            number_text(row["open"]),
        ]
        for one, row in shown
    ]
    print_table(console, "Stacks", columns, rows, [_STYLE.get(row["verdict"], "dim") for _, row in shown])
    if any(row["hypothetical"] for _, row in shown):
        text = "* hypothetical: the kernel switches stacks where this layout has none: a plain call here"
        line(console, text)
        line(console, "")


def _print_contexts(console: Console, fleet: FleetCheck) -> None:
    verdicts = [one.value for one in Verdict if one is not Verdict.NOT_ANALYSED]
    columns = [("image", "left"), ("layout", "left"), ("contexts", "right")]
    columns += [(verdict, "right") for verdict in verdicts]
    columns += [("without a finite bound", "right"), ("nothing open", "right")]
    rows = []
    for one in fleet.images:
        for layout in dict.fromkeys(row["layout"] for row in one.stacks):
            mine = [row for row in one.contexts if row["layout"] == layout]
            counts = Counter(row["verdict"] for row in mine)
            numbers = [
                len(mine),
                *(counts[verdict] for verdict in verdicts),
                sum(row["bound"] is None for row in mine),
                sum(not row["open"] for row in mine),
            ]
            rows.append([clean(one.input.name), layout, *map(number_text, numbers)])
    print_table(console, "Contexts, each as if no other started on its stack", columns, rows)

"""stackfit calls: call sites, by function or by why they are open."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stackfit.analysis import Analysis
from stackfit.calls.model import CallKind
from stackfit.cli.options import add_image_options, run_analysis
from stackfit.cli.remember import add_cache_options, remembered
from stackfit.cli.written import output
from stackfit.image.model import InputError
from stackfit.report.components import components_json, print_components
from stackfit.report.json import calls_json, dumps
from stackfit.report.terminal import make_console, print_table
from stackfit.text import near_text, number_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser)
    add_cache_options(parser)
    parser.epilog = "A last word that is no file names a function: its own sites and those that reach it."
    parser.add_argument("--open", action="store_true", help="only sites that are open")
    parser.add_argument(
        "--components",
        action="store_true",
        help="components of recursion, before any assumption and after each; the recursion that is left",
    )


def run(options: argparse.Namespace) -> int:
    return remembered(options, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    function = (
        options.images[-1] if len(options.images) > 1 and not Path(options.images[-1]).exists() else None
    )
    if options.components and (function or options.open):
        raise InputError("--components", "is of the whole program: no FUNCTION and no --open with it")
    analysis = run_analysis(options, options.images[:-1] if function else options.images)
    if options.components:
        if options.json:
            output(options.json, dumps(components_json(analysis)))
        if options.json != "-":
            print_components(make_console(), analysis)
        return 0
    chosen = np.ones(len(analysis.calls), np.bool_)
    if options.open:
        chosen &= analysis.calls.open
    if function:
        chosen &= _around(analysis, function)
    if options.json:
        output(options.json, dumps(calls_json(analysis, chosen)))
    if options.json != "-":
        if function or options.open:
            _print_sites(analysis, chosen)
        else:
            _print_summary(analysis)
    return 0


def _around(analysis: Analysis, name: str) -> NDArray[np.bool_]:
    """Sites in the functions of that name, and sites that can reach them."""
    functions, calls = analysis.code.functions, analysis.calls
    found = functions.named(name)
    if not found:
        hint = near_text(name, functions.names)
        raise InputError(analysis.program.images[0].path, f"no function {name[:100]}{hint}")
    sets = [index for index, members in enumerate(calls.candidate_sets) if set(members) & set(found)]
    return np.isin(calls.function, found) | np.isin(calls.candidates, sets)


def _print_sites(analysis: Analysis, chosen: NDArray[np.bool_]) -> None:
    document = calls_json(analysis, chosen)
    functions = analysis.code.functions
    names = dict(zip(functions.address.tolist(), functions.names, strict=True))
    rows = []
    for site in document["sites"]:
        members = [] if site["candidates"] is None else document["candidate_sets"][site["candidates"]]
        reached = ", ".join(names[address] for address in members[:4])
        reached += f" … {len(members)} in all" if len(members) > 4 else ""
        reached += f"  [{site['place']}]" if reached and site["place"] else ""
        rows.append(
            [
                f"{site['address']:x}",
                site["function"],
                site["module"] or "",
                number_text(site["depth"]),
                site["kind"],
                site["rung"],
                site["evidence"],
                _told(reached, site["reason"] or "", site["assumption"], site["charge"]),
            ]
        )
    columns = [
        ("address", "right"), ("function", "left"), ("module", "left"), ("depth", "right"), ("kind", "left"),
        ("rung", "left"), ("evidence", "left"), ("reaches", "left"),
    ]  # fmt: skip
    print_table(make_console(), f"{number_text(len(rows))} call sites", columns, rows)


def _told(reached: str, reason: str, assumption: str | None, charge: int) -> str:
    """What a site reaches, or why it is open; what is assumed of it."""
    if assumption is None:
        return reached or reason
    through = f"code in no image, {number_text(charge)} B" if charge else ""
    return f"{' then '.join(filter(None, (through, reached))) or 'nothing'}  (assumed: {assumption})"


def _print_summary(analysis: Analysis) -> None:
    calls = analysis.calls
    rows = []
    for kind in CallKind:
        of_kind = calls.kind == kind
        rows.append(
            [kind.label, number_text(int(of_kind.sum())), number_text(int((of_kind & calls.open).sum()))]
        )
    print_table(
        make_console(),
        f"{number_text(len(calls))} call sites (a function's name or --open lists them, --json writes all)",
        [("kind", "left"), ("sites", "right"), ("open", "right")],
        rows,
    )

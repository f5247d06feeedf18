"""What the commands share: options, progress.

What runs an analysis is imported when one runs: an answer kept is given again without.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stackfit.choices import ARCHITECTURES, DEFAULT_MARGIN, MOST_HOPS, UNLIMITED, Hypervisor, Indirect
from stackfit.cli.written import output
from stackfit.image.model import InputError

if TYPE_CHECKING:
    from stackfit.analysis import Analysis, Step
    from stackfit.image.flat import Flat
    from stackfit.machine.scenario import Scenario
    from stackfit.report.html_model import Page
    from stackfit.verdict.allocation import Margin

__all__ = [
    "add_analysis_options",
    "add_html_option",
    "add_image_options",
    "add_margin_option",
    "add_scenario_options",
    "add_suggest_option",
    "add_traces_option",
    "progress",
    "run_analysis",
    "scenarios",
    "write_html",
]

_MOST_SEEDS = 10_000


def add_image_options(parser: argparse.ArgumentParser, images: str | None = "+") -> None:
    """Options of every command that takes an image."""
    more: dict[str, Any] = {"action": "append", "default": []}
    option = parser.add_argument
    option(
        "images",
        nargs=images,
        metavar="IMAGE",
        help="kernel (vmlinuz, vmlinux); further ones are its modules",
    )
    option(
        "--modules",
        metavar="DIR|KO",
        help="modules of the kernel: a directory or a file (repeatable)",
        **more,
    )
    add_analysis_options(parser)
    option(
        "--debug", metavar="FILE", help="ELF with DWARF of the same build: its CFI is held against the depths"
    )
    option(
        "--witness",
        metavar="FILE|DIR",
        help="what the compiler said (.su, .ci, objects with .stack_sizes): held against it (repeatable)",
        **more,
    )
    option(
        "--arch",
        choices=ARCHITECTURES,
        help="the image is a flat binary (.bin) of this instruction set, at --base",
    )
    option("--base", type=_address, metavar="ADDRESS", help="address of a flat binary's first byte")
    option("--json", metavar="FILE", help="write JSON there; - is standard output")


def _address(text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 64:
        raise argparse.ArgumentTypeError(f"{text!r} is no address (0x8000000)")
    return value


def _flat(options: argparse.Namespace) -> Flat | None:
    """What the options say of a flat binary. InputError: half of it."""
    architecture, base = getattr(options, "arch", None), getattr(options, "base", None)
    if architecture is None and base is None:
        return None
    from stackfit.image.flat import Flat

    if architecture is None or base is None:
        raise InputError("--arch", "a flat binary needs both --arch and --base")
    return Flat(architecture, base)


def add_analysis_options(parser: argparse.ArgumentParser) -> None:
    """Options of every analysis, whatever it is of."""
    more: dict[str, Any] = {"action": "append", "default": []}
    option = parser.add_argument
    option("--layout", metavar="NAME|FILE", help="stack layout: a preset or a TOML file (repeatable)", **more)
    option("--assume", metavar="FILE", help="assumptions, over the shipped ones (repeatable)", **more)
    option("--without", metavar="NAME", help="leave the assumptions of that name out (repeatable)", **more)
    option("--hops", type=_hops, metavar="N|unlimited", help="greatest number of indirect calls on a chain")
    option(
        "--indirect",
        choices=[mode.value for mode in Indirect],
        help="what candidates of indirect calls may rest on (default: typed)",
    )
    option(
        "--hypervisor",
        choices=[one.value for one in Hypervisor],
        help="what paravirt operations reach: native functions (none, the default), or those of guests too",
    )


def add_margin_option(parser: argparse.ArgumentParser) -> None:
    """The option of advice on sizes."""
    parser.add_argument(
        "--margin",
        type=_margin,
        metavar="BYTES|N%",
        help=f"on top of a bound, in advice on sizes (default {DEFAULT_MARGIN}; firmware)".replace("%", "%%"),
    )


def _margin(text: str) -> Margin:
    from stackfit.verdict.allocation import parse_margin

    try:
        return parse_margin(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_html_option(parser: argparse.ArgumentParser) -> None:
    """A report to look at in a browser; its page is written by `write_html`."""
    parser.add_argument(
        "--html", type=_html_target, metavar="FILE", help="write a report there, one file, for a browser"
    )


def _html_target(path: str) -> str:
    """A file; and Plotly is there, so that a long analysis does not end in an error."""
    from stackfit.report.html import plotly_source

    if path == "-":
        raise argparse.ArgumentTypeError("a file, not standard output, which has the table")
    try:
        plotly_source()
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return path


def write_html(path: str, page: Page) -> None:
    """The report, whole or not at all."""
    from stackfit.report.html import render

    output(path, render(page))


def add_suggest_option(parser: argparse.ArgumentParser) -> None:
    """The option of commands whose bounds rest on budgets."""
    parser.add_argument(
        "--suggest-cuts",
        action="store_true",
        help="print an assumption file to be reviewed instead: functions whose budget or cut would help most",
    )


def add_traces_option(parser: argparse.ArgumentParser, required: bool = False) -> None:
    """Recordings of the kernel running."""
    parser.add_argument(
        "--traces",
        metavar="FILE",
        nargs="+",
        action="extend",
        default=None if required else [],
        required=required,
        help="recordings of that kernel running (measure trace, lab): measured and composed",
    )


def _hops(text: str) -> int:
    if text == "unlimited":
        return UNLIMITED
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'unlimited'") from None
    if not 0 <= value <= MOST_HOPS:
        raise argparse.ArgumentTypeError(f"0 to {MOST_HOPS}, or unlimited")
    return value


def add_scenario_options(parser: argparse.ArgumentParser) -> None:
    """Options of every command that runs scenarios."""
    from stackfit.pages.era import ERAS

    parser.add_argument(
        "--seeds",
        type=_seeds,
        metavar="N",
        help="runs of each scenario and layout, seeds 0 to N-1 (default 1; 5 where children come and go)",
    )
    parser.add_argument(
        "--era",
        metavar="NAME|FILE",
        help=f"rules of the page allocator, not the scenario's: a TOML file, or one of {', '.join(ERAS)}",
    )


def scenarios(names: Iterable[str], era: str | None) -> list[Scenario]:
    """The scenarios, under another kernel's page allocator if one is named."""
    from stackfit.machine.scenario import load_scenario
    from stackfit.pages.era import load_era

    found = [load_scenario(name) for name in names]
    if era is None:
        return found
    rules = load_era(era)
    return [replace(one, era=rules) if one.memory is not None else one for one in found]


def _seeds(text: str) -> int:
    """A number of runs, for argparse."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _MOST_SEEDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_MOST_SEEDS}")
    return int(text)


def run_analysis(options: argparse.Namespace, images: list[str] | None = None) -> Analysis:
    """Load and analyse what the options name, with progress on a terminal."""
    from stackfit.analysis import analyse
    from stackfit.contexts.images import NOTHING_DECLARED
    from stackfit.verdict.allocation import parse_margin

    with progress() as report:
        return analyse(
            images if images is not None else options.images,
            options.modules,
            options.layout,
            options.assume,
            options.hops,
            options.debug,
            report,
            Indirect(options.indirect or Indirect.TYPED.value),
            options.without,
            Hypervisor(options.hypervisor or Hypervisor.NONE.value),
            getattr(options, "traces", None) or (),
            getattr(options, "resolve", None),
            getattr(options, "debug_modules", None) or (),
            getattr(options, "witness", None) or (),
            getattr(options, "margin", None) or parse_margin(DEFAULT_MARGIN),
            _flat(options),
            getattr(options, "declared", None) or NOTHING_DECLARED,
        )


@contextmanager
def progress() -> Iterator[Step]:
    """What is being done and the share done, on a terminal; nothing in a pipe."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda step, share: None
        return
    with Progress(TextColumn("{task.description}"), BarColumn(), console=console, transient=True) as progress:
        task = progress.add_task("reading images", total=1.0)
        yield lambda step, share: progress.update(task, description=step, completed=share)

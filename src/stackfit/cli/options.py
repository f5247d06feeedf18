"""What the commands share: options, progress, atomic output."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from stackfit.analysis import MOST_HOPS, UNLIMITED, Analysis, Step, analyse
from stackfit.calls.paravirt import Hypervisor
from stackfit.calls.resolve import Indirect
from stackfit.cli.written import output
from stackfit.image.model import InputError
from stackfit.machine.scenario import Scenario, load_scenario
from stackfit.pages.era import ERAS, load_era
from stackfit.report.html import plotly_source, render
from stackfit.report.html_model import Page

__all__ = [
    "add_analysis_options",
    "add_html_option",
    "add_image_options",
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
    option("--json", metavar="FILE", help="write JSON there; - is standard output")


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


def add_html_option(parser: argparse.ArgumentParser) -> None:
    """A report to look at in a browser; its page is written by `write_html`."""
    parser.add_argument(
        "--html", type=_html_target, metavar="FILE", help="write a report there, one file, for a browser"
    )


def _html_target(path: str) -> str:
    """A file; and Plotly is there, so that a long analysis does not end in an error."""
    if path == "-":
        raise argparse.ArgumentTypeError("a file, not standard output, which has the table")
    try:
        plotly_source()
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return path


def write_html(path: str, page: Page) -> None:
    """The report, whole or not at all."""
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
        )


@contextmanager
def progress() -> Iterator[Step]:
    """What is being done and the share done, on a terminal; nothing in a pipe."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda step, share: None
        return
    with Progress(TextColumn("{task.description}"), BarColumn(), console=console, transient=True) as progress:
        task = progress.add_task("reading images", total=1.0)
        yield lambda step, share: progress.update(task, description=step, completed=share)

"""What the commands share: options, progress, atomic output."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from stackfit.analysis import Analysis, analyse
from stackfit.image.model import InputError

__all__ = ["add_image_options", "output", "run_analysis"]


def add_image_options(parser: argparse.ArgumentParser, images: str = "+") -> None:
    """Options of every command that takes an image."""
    parser.add_argument("images", nargs=images, metavar="IMAGE", help="kernel (vmlinuz, vmlinux) or executable; further ones are its modules")
    parser.add_argument("--modules", action="append", default=[], metavar="DIR|KO", help="modules of the kernel: a directory or a file (repeatable)")
    parser.add_argument("--layout", action="append", default=[], metavar="NAME|FILE", help="stack layout: a preset or a TOML file (repeatable)")
    parser.add_argument("--assume", action="append", default=[], metavar="FILE", help="assumptions, over the shipped ones (repeatable)")
    parser.add_argument("--hops", type=_hops, default=None, metavar="N|unlimited", help="greatest number of indirect calls on a chain")
    parser.add_argument("--debug", metavar="FILE", help="ELF with DWARF of the same build: its CFI is held against the depths")
    parser.add_argument("--json", metavar="FILE", help="write JSON there; - is standard output")


def _hops(text: str) -> int:
    if text == "unlimited":
        return 32  # beyond this many the curve has long ended at a cycle or at its last value
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'unlimited'") from None
    if not 0 <= value <= 32:
        raise argparse.ArgumentTypeError("0 to 32, or unlimited")
    return value


def run_analysis(options: argparse.Namespace, images: list[str] | None = None) -> Analysis:
    """Load and analyse what the options name, with progress on a terminal."""
    with _progress() as report:
        return analyse(
            images if images is not None else options.images,
            options.modules,
            options.layout,
            options.assume,
            options.hops,
            options.debug,
            report,
        )


@contextmanager
def _progress() -> Iterator[object]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda step, share: None
        return
    with Progress(TextColumn("{task.description}"), BarColumn(), console=console, transient=True) as progress:
        task = progress.add_task("reading images", total=1.0)
        yield lambda step, share: progress.update(task, description=step, completed=share)


def output(path: str, text: str) -> None:
    """Write a whole file or nothing; `-` is standard output."""
    if path == "-":
        sys.stdout.write(text)
        return
    target = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent or Path("."), prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise InputError(path, error.strerror or str(error)) from None

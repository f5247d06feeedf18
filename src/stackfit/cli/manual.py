"""The manual page and shell completions, made from the parsers of all commands.

    python -m stackfit.cli.manual DIRECTORY

writes `man/man1/stackfit.1`, and `bash-completion/completions/stackfit`, `zsh/site-functions/_stackfit` below
DIRECTORY, as they lie below /usr/share. Completions need shtab (extra docs).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from stackfit import __version__
from stackfit.cli.main import build_parser

__all__ = ["completions", "main", "man_page"]


def man_page(parser: argparse.ArgumentParser) -> str:
    """The page in roff's man macros: groff_man(7)."""
    lines = [
        f'.TH STACKFIT 1 "" "stackfit {_roff(__version__)}" "User Commands"',
        ".SH NAME",
        _roff(f"stackfit - {_description(parser)[:1].lower()}{_description(parser)[1:]}"),
        ".SH SYNOPSIS",
        ".B stackfit",
        ".I COMMAND",
        "[options]",
        ".SH DESCRIPTION",
        _roff(_description(parser)),
        ".SH OPTIONS",
        *_options(parser),
        ".SH COMMANDS",
    ]
    for name, command in _subcommands(parser):
        lines += [f".SS stackfit {_roff(name)}", *_command(command)]
    lines += [
        ".SH EXIT STATUS",
        *_entry("0", "done, whatever the verdicts are"),
        *_entry("1", "a verdict that --fail-on names, or a recording that contradicts the analysis"),
        *_entry("2", "usage or input error: one line on standard error"),
        *_entry("3", "fleet: done, but for some inputs, each named on standard error"),
        *_entry("130", "interrupted from the keyboard"),
    ]
    return "\n".join(lines) + "\n"


def completions(parser: argparse.ArgumentParser, shell: str) -> str:
    """A completion script for "bash" or "zsh"."""
    import shtab

    for action in _actions(parser):
        if any(word in str(action.metavar) for word in ("FILE", "DIR", "IMAGE", "EVENTS")):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell=shell)) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Write all three files."""
    words = argparse.ArgumentParser(description="Write the manual page and shell completions.")
    words.add_argument("directory", type=Path, help="what stands for /usr/share")
    directory = words.parse_args(arguments).directory
    parser = build_parser()
    for name, text in {
        "man/man1/stackfit.1": man_page(parser),
        "bash-completion/completions/stackfit": completions(parser, "bash"),
        "zsh/site-functions/_stackfit": completions(parser, "zsh"),
    }.items():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Of all commands."""
    yield from parser._actions
    for _, command in _subcommands(parser):
        yield from _actions(command)


def _command(parser: argparse.ArgumentParser) -> Iterator[str]:
    usage = parser.format_usage().removeprefix("usage: ").split()
    yield ".RS"
    yield _roff(" ".join(usage))
    yield ".RE"
    yield ".PP"
    yield _roff(_description(parser)[:1].upper() + _description(parser)[1:] + ".")
    yield from _options(parser)
    for _, command in _subcommands(parser):
        yield ".PP"
        yield f".B {_roff(command.prog)}"
        yield ".br"
        yield from _command(command)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) or action.help == argparse.SUPPRESS:
            continue
        metavar = action.metavar if action.metavar is not None else action.dest.upper()
        value = " ".join(metavar) if isinstance(metavar, tuple) else metavar
        if action.choices is not None and action.metavar is None:
            value = "|".join(map(str, action.choices))
        takes = action.nargs != 0
        names = ", ".join(action.option_strings)
        head = (f"{names} {value}" if takes else names) if names else value
        yield from _entry(head, action.help or "")


def _entry(head: str, text: str) -> Iterable[str]:
    return ".TP", f".B {_roff(head)}", _roff(text)


def _subcommands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _description(parser: argparse.ArgumentParser) -> str:
    return (parser.description or "").rstrip(".")


def _roff(text: str) -> str:
    """One line of ASCII: special characters and what groff would obey escaped."""
    line = " ".join(text.replace("%%", "%").split()).replace("\\", "\\e").replace("-", "\\-")
    line = "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in line)
    return "\\&" + line if line[:1] in (".", "'") else line


if __name__ == "__main__":
    sys.exit(main())

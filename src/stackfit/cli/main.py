"""The command line: one file per command; this one dispatches and turns errors into one line and a status.

Commands are imported when they run, so that `stackfit --help` answers at once.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import io
import os
import sys
from collections.abc import Iterable

from stackfit import __version__

__all__ = ["build_parser", "main"]

_COMMANDS = {
    "check": "does it fit? verdicts for each stack of each layout",
    "frames": "how much stack each function's own code takes",
    "calls": "call sites: what each can reach, and what is open",
    "contexts": "system calls, exceptions, interrupts, threads, each with its ladder",
    "explain": "the worst chain, frame by frame and variable by variable, and what would shorten it",
    "simulate": "processes, page allocator and interrupts on a layout; or recorded events replayed",
    "compare": "the decision table: what each layout costs and what it buys",
    "diff": "what grew, shrank, appeared from one build to the next",
    "measure": "what running machines show: recorded stacks and calls, coverage, free memory",
    "cache": "answers kept: how many, how large; remove them",
    "lab": "a kernel booted in QEMU, workloads run in it, what its tracers saw recorded",
}


def build_parser(commands: Iterable[str] = tuple(_COMMANDS)) -> argparse.ArgumentParser:
    """The parser, with the options of these commands (others have their help line alone)."""
    parser = argparse.ArgumentParser(
        prog="stackfit",
        description="Decides how big a stack has to be, with evidence, from the stock binary.",
    )
    parser.add_argument("--version", action="version", version=f"stackfit {__version__}")
    known = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    wanted = set(commands)
    for name, text in _COMMANDS.items():
        command = known.add_parser(name, help=text, description=text)
        if name in wanted:
            module = importlib.import_module(f"stackfit.cli.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Status 0 done, 1 what --fail-on names, 2 usage or input error."""
    words = sys.argv[1:] if arguments is None else arguments
    chosen = next((word for word in words if word in _COMMANDS), None)
    parser = build_parser(() if chosen is None else (chosen,))
    options = parser.parse_args(words)
    gc.set_threshold(200_000, 20, 20)  # hundreds of thousands of names and symbols, next to no cycles
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # a terminal or locale without the characters that tables use
            stream.reconfigure(errors="replace")
    return _guarded(options)


def _guarded(options: argparse.Namespace) -> int:
    from stackfit.image.model import InputError

    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except InputError as error:
        print(f"stackfit: error: {_one_line(str(error))}", file=sys.stderr)
        return 2
    except MemoryError:
        print("stackfit: error: not enough memory for this input", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stackfit: interrupted", file=sys.stderr)
        return 130
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        # The reader has gone (`| head`; rich turns it into SystemExit): nothing is left to say, also not when
        # Python flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(getattr(options, "status", 0))  # a gate's is known before anything is printed
    except OSError as error:  # of standard output: a full disk
        print(f"stackfit: error: {error.strerror or error}", file=sys.stderr)
        return 2


def _one_line(text: str) -> str:
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


if __name__ == "__main__":
    sys.exit(main())

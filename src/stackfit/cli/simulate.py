"""stackfit simulate: recorded page-allocator events replayed."""

from __future__ import annotations

import argparse
from pathlib import Path

from stackfit.cli.options import output
from stackfit.image.model import InputError
from stackfit.pages.replay import read_recording, replay
from stackfit.pages.trace import read_trace, write_csv
from stackfit.report.json import dumps
from stackfit.report.pages import print_replay, replay_json
from stackfit.report.terminal import make_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # One of these says what to do; a scenario, as a positional word, joins this group.
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--replay",
        metavar="DIR|EVENTS",
        help="a recording: events, and buddyinfo, kpageflags, zoneinfo at each snapshot",
    )
    what.add_argument(
        "--convert",
        nargs=2,
        metavar=("EVENTS", "CSV"),
        help="write what the replay uses of a trace (CSV, or text of trace-cmd, tracefs, perf) as CSV; "
        "- is standard output",
    )
    parser.add_argument("--json", metavar="FILE", help="write JSON there; - is standard output")


def run(options: argparse.Namespace) -> int:
    if options.convert is not None:
        if options.json:
            raise InputError("--json", "does not go with --convert, which writes CSV")
        source, target = options.convert
        output(target, write_csv(read_trace(Path(source))))
        return 0
    result = replay(read_recording(Path(options.replay)))
    if options.json:
        output(options.json, dumps(replay_json(result)))
    if options.json != "-":
        print_replay(make_console(), result)
    return 0

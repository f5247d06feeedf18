"""stackfit measure: what running machines show. So far: `pages`, free memory and its fragmentation."""

from __future__ import annotations

import argparse
from pathlib import Path

from stackfit.cli.options import output
from stackfit.pages.free import FILES, read_free_memory
from stackfit.report.json import dumps
from stackfit.report.pages import pages_json, print_pages
from stackfit.report.terminal import make_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    text = "free memory: fragmentation by order, and how many more stacks fit now"
    pages = kinds.add_parser("pages", help=text, description=text)
    pages.add_argument(
        "places",
        nargs="*",
        metavar="DIR|FILE",
        help="saved files of /proc, or directories with them (default: /proc); names start with "
        + ", ".join(FILES),
    )
    pages.add_argument("--json", metavar="FILE", help="write JSON there; - is standard output")


def run(options: argparse.Namespace) -> int:
    document = pages_json(read_free_memory([Path(place) for place in options.places]))
    if options.json:
        output(options.json, dumps(document))
    if options.json != "-":
        print_pages(make_console(), document)
    return 0

"""stackfit cache: what is kept between runs."""

from __future__ import annotations

import argparse
import sys

from stackfit.cache.store import MOST_BYTES, Store, default_directory, open_store
from stackfit.image.model import InputError
from stackfit.text import escape, number_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cache", metavar="DIR", help="that directory, not the user's own")
    parser.add_argument("--clear", action="store_true", help="remove every answer")


def run(options: argparse.Namespace) -> int:
    if options.cache is not None:
        store = open_store(options.cache)
    else:
        directory = default_directory()
        if directory is None:
            raise InputError("cache", "neither XDG_CACHE_HOME nor a home directory is known")
        store = Store(directory)
    where = escape(str(store.directory))
    if options.clear:
        sys.stdout.write(f"{where}: {number_text(store.clear())} answers removed\n")
        return 0
    entries = store.entries()
    size = sum(entry[1] for entry in entries)
    sys.stdout.write(
        f"{where}: {number_text(len(entries))} answers, {number_text(size)} B of at most"
        f" {number_text(MOST_BYTES)} B\n"
    )
    return 0

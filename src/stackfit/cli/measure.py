"""stackfit measure: what running machines show, beside what the analysis says."""

from __future__ import annotations

import argparse
from pathlib import Path

from stackfit.analysis import Analysis
from stackfit.cli.options import (
    add_image_options,
    add_traces_option,
    output,
    output_bytes,
    run_analysis,
)
from stackfit.image.load import load_image
from stackfit.measure.core import open_dump
from stackfit.measure.debugged import dump_marks
from stackfit.measure.files import marks_traces_json, pack, traces_json
from stackfit.pages.free import FILES, read_free_memory
from stackfit.report.json import dumps
from stackfit.report.marks import marks_json, print_marks
from stackfit.report.pages import pages_json, print_pages
from stackfit.report.terminal import make_console
from stackfit.report.traces import coverage_json, print_coverage, print_trace, trace_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    text = "recordings of a running kernel, held against frames and call graph"
    trace = kinds.add_parser("trace", help=text, description=text)
    add_image_options(trace, images=None)
    trace.add_argument(
        "traces",
        nargs="+",
        metavar="FILE",
        help="ftrace's stack_trace or trace, perf script, a kernel log with call traces, a list of call"
        " edges, a traces file; compressed or not",
    )
    trace.add_argument("--output", metavar="FILE", help="write all of it as one traces file, for --traces")
    text = "what recordings have exercised of the deepest chains, and what to test next"
    coverage = kinds.add_parser("coverage", help=text, description=text)
    add_image_options(coverage, images=None)
    add_traces_option(coverage, required=True)
    text = "how deep each task's and each CPU's stack has been, from a memory dump"
    dump = kinds.add_parser("dump", help=text, description=text)
    dump.add_argument(
        "file", metavar="FILE", help="ELF core: QEMU's dump-guest-memory without paging, vmcore"
    )
    dump.add_argument("--image", metavar="FILE", help="that kernel: CPUs' stacks, by its symbols")
    dump.add_argument(
        "--debug", metavar="FILE", help="its vmlinux with DWARF: names, by drgn; held against the scan"
    )
    dump.add_argument("--output", metavar="FILE", help="write the marks as a traces file, for --traces")
    dump.add_argument("--json", metavar="FILE", help="write JSON there; - is standard output")
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
    return {"trace": _trace, "coverage": _coverage, "dump": _dump, "pages": _pages}[options.what](options)


def _trace(options: argparse.Namespace) -> int:
    """Status 1: something recorded contradicts the analysis."""
    return finish_trace(options, run_analysis(options, [options.images]))


def finish_trace(options: argparse.Namespace, analysis: Analysis) -> int:
    """Write and print what an analysis' recordings show. Status 1: something contradicts the analysis."""
    document = trace_json(analysis)
    if options.output:
        output_bytes(options.output, pack(traces_json(analysis.program, analysis.code, analysis.traces)))
    if options.json:
        output(options.json, dumps(document))
    if options.json != "-" and options.output != "-":
        print_trace(make_console(), document)
    return 1 if document["defects"] else 0


def _coverage(options: argparse.Namespace) -> int:
    document = coverage_json(run_analysis(options, [options.images]))
    if options.json:
        output(options.json, dumps(document))
    if options.json != "-":
        print_coverage(make_console(), document)
    return 0


def _dump(options: argparse.Namespace) -> int:
    """Status 1: debug information and the scan do not agree."""
    dump = open_dump(Path(options.file))
    debug = load_image(options.debug) if options.debug else None
    image = load_image(options.image) if options.image else debug
    found = dump_marks(dump, image, debug)
    document = marks_json(
        options.file,
        dump.machine.value,
        found.marks,
        dump.release,
        dump.build_id,
        found.compared,
        found.notes,
    )
    if options.output:
        machine, release, build_id = dump.machine.value, dump.release, dump.build_id
        output_bytes(options.output, pack(marks_traces_json(machine, found.marks, release, build_id)))
    if options.json:
        output(options.json, dumps(document))
    if options.json != "-" and options.output != "-":
        print_marks(make_console(), document)
    return 1 if found.compared is not None and found.compared[1] else 0


def _pages(options: argparse.Namespace) -> int:
    document = pages_json(read_free_memory([Path(place) for place in options.places]))
    if options.json:
        output(options.json, dumps(document))
    if options.json != "-":
        print_pages(make_console(), document)
    return 0

"""What check adds for CI: stackfit.toml, budgets, a baseline, and outputs that other tools read."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

from stackfit.analysis import Analysis
from stackfit.cli.config import NAME, apply_config, find_config
from stackfit.cli.failing import FailOn, fail_on
from stackfit.cli.written import note, output, output_file
from stackfit.decision.gate import BUDGET, GROWTH, Budget, Finding, Held, hold, verdict_findings
from stackfit.image.model import InputError
from stackfit.report.folded import folded_text
from stackfit.report.gate import annotations_text, check_markdown, gate_json
from stackfit.report.json import Json, dumps
from stackfit.report.sarif import sarif_json
from stackfit.store.diff import diff
from stackfit.store.model import Diff, FunctionChange, NeedChange
from stackfit.store.read import read_database, snapshot
from stackfit.store.show import diff_markdown
from stackfit.store.write import write_database
from stackfit.verdict.model import Verdict

__all__ = ["Gate", "Judged", "add_gate_options", "judge", "open_gate", "write_outputs"]

_TOP = 10  # rows of a baseline's tables


@dataclass(frozen=True)
class Gate:
    """What is held against an analysis. `config`: the file it comes from, if any."""

    config: str | None
    budgets: tuple[Budget, ...]
    fail_on: FailOn
    baseline: str | None


@dataclass(frozen=True)
class Judged:
    """`change`: since the baseline."""

    gate: Gate
    held: tuple[Held, ...]
    findings: tuple[Finding, ...]
    change: Diff | None

    @property
    def status(self) -> int:
        """Of the process: 1 if anything fails."""
        return int(any(finding.fails for finding in self.findings))

    @property
    def document(self) -> Json:
        """The `gate` object of the JSON."""
        gate = self.gate
        return gate_json(gate.config, gate.fail_on.words, self.held, gate.baseline, self.findings)


def add_gate_options(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option(
        "--fail-on",
        type=fail_on,
        metavar="WHAT",
        help="exit 1 on these, comma-separated: verdicts, budget, growth:BYTES"
        " (default: exceeds,may-exceed with --layout, and budget, with stackfit.toml; else none)",
    )
    option("--baseline", metavar="FILE", help="a database (--db) of before: what grew since")
    option("--config", metavar="FILE", help=f"settings and budgets (default: ./{NAME}, if it is there)")
    option("--no-config", action="store_true", help=f"leave ./{NAME} alone")
    option("--db", metavar="FILE", help="write everything found into a SQLite file")
    option(
        "--sarif",
        metavar="FILE",
        help="write findings as SARIF 2.1.0, with source lines where --debug has them",
    )
    option(
        "--folded",
        metavar="FILE",
        help="write worst chains as folded stacks, for flamegraph.pl and speedscope",
    )
    option("--markdown", metavar="FILE", help="write a summary in Markdown, for a pull request")
    option(
        "--annotations", choices=["github"], help="also print findings as workflow commands of GitHub Actions"
    )


def open_gate(options: argparse.Namespace) -> Gate:
    """What is to be held; stackfit.toml's settings go into `options`. InputError: contradictions."""
    config = find_config(options.config, options.no_config)
    explicit = bool(options.layout) or config is not None
    if config is not None:
        apply_config(options, config)
    wanted: FailOn | None = options.fail_on
    if wanted is None:
        wanted = FailOn(
            frozenset((Verdict.EXCEEDS.value, Verdict.MAY_EXCEED.value)) if explicit else frozenset()
        )
    if options.db == "-":
        raise InputError("--db -", "a database is a file; it does not go to standard output")
    if wanted.growth is not None and options.baseline is None:
        raise InputError("--fail-on", "growth is held against a database: --baseline")
    standard = [
        f"--{name}" for name in ("json", "sarif", "folded", "markdown") if getattr(options, name) == "-"
    ]
    if options.annotations and standard:
        raise InputError("--annotations", f"go to standard output, as {standard[0]} - does")
    if len(standard) > 1:
        raise InputError(standard[1], f"standard output is taken by {standard[0]}")
    return Gate(
        None if config is None else config.path,
        () if config is None else config.budgets,
        wanted,
        options.baseline,
    )


def judge(options: argparse.Namespace, analysis: Analysis, gate: Gate) -> Judged:
    """Verdicts, budgets and growth. Writes --db, which the comparison then reads back."""
    before = read_database(gate.baseline) if gate.baseline is not None else None  # before --db replaces it
    if options.db:
        output_file(options.db, lambda file: write_database(analysis, file))
    change = None
    if before is not None:
        name = analysis.program.images[0].path
        after = read_database(options.db) if options.db else snapshot(analysis, name)
        change = diff(before, after)
    held = tuple(hold(analysis, gate.budgets, gate.config or NAME))
    findings = [*verdict_findings(analysis, gate.fail_on.rules)]
    fails = BUDGET in gate.fail_on.rules
    findings += [
        Finding(BUDGET, one.subject, one.text, fails, one.need, one.chain) for one in held if one.over
    ]
    if change is not None and gate.fail_on.growth is not None:
        findings += [_growth(analysis, one) for one in change.grown(gate.fail_on.growth)]
    return Judged(gate, held, tuple(findings), change)


def _growth(analysis: Analysis, one: FunctionChange | NeedChange) -> Finding:
    if isinstance(one, FunctionChange):
        functions = analysis.code.functions
        places = [
            index
            for index in functions.named(one.name)
            if analysis.program.images[int(functions.image[index])].module == one.module
        ]
        subject = f"{one.name} [{one.module}]" if one.module else one.name
        old, new = ("open" if value is None else f"{value} B" for value in (one.old, one.new))
        text = f"its frame was {old}, is {new}"
        return Finding(GROWTH, subject, text, True, function=places[0] if len(places) == 1 else -1)
    subject = " ".join(part for part in one.key[:3] if part)
    if one.change == "unbounded":
        return Finding(GROWTH, subject, "its need is no longer bounded", True)
    return Finding(GROWTH, subject, f"needs {one.growth} B more than in the baseline", True)


def write_outputs(options: argparse.Namespace, analysis: Analysis, judged: Judged) -> bool:
    """--sarif, --folded, --markdown, --annotations; True: one of them, or JSON, has standard output alone."""
    if options.sarif:
        output(options.sarif, dumps(sarif_json(analysis, judged.findings)))
    if options.folded:
        text, left = folded_text(analysis)
        output(options.folded, text)
        if left:
            note(f"folded stacks of {left} contexts left out, the shallowest")
    if options.markdown:
        text = check_markdown(analysis, judged.held, judged.findings)
        if judged.change is not None:
            text += f"\n{diff_markdown(judged.change, _TOP)}"
        output(options.markdown, text)
    if options.annotations:
        sys.stdout.write(annotations_text(analysis, judged.findings))
    return "-" in (options.json, options.sarif, options.folded, options.markdown)

"""Findings as SARIF 2.1.0, for code scanning and editors.

Source: OASIS, Static Analysis Results Interchange Format 2.1.0 with errata 01.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from stackfit import __version__
from stackfit.analysis import Analysis
from stackfit.decision.gate import BUDGET, GROWTH, Finding
from stackfit.image.lines import SourceLine
from stackfit.report.rows import ChainRow, bound_rows, chain_rows, module_of
from stackfit.report.sources import Sources
from stackfit.text import bytes_text, clean
from stackfit.verdict.model import Verdict

__all__ = ["SARIF_SCHEMA", "finding_rows", "sarif_json"]

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_ROOT = "SRCROOT"
Json = dict[str, Any]
_RULES = {
    Verdict.EXCEEDS.value: ("error", "A stack was measured deeper than it is."),
    Verdict.MAY_EXCEED.value: (
        "warning",
        "A chain of calls, nothing assumed in it, is deeper than the stack.",
    ),
    Verdict.UNKNOWN.value: ("note", "Whether the stack suffices is not known."),
    Verdict.FITS_IF.value: ("note", "The stack suffices under assumptions."),
    Verdict.FITS.value: ("note", "The stack suffices."),
    Verdict.NOT_ANALYSED.value: ("note", "Nothing that runs on the stack is modelled."),
    BUDGET: ("error", "More stack than the project's budget allows."),
    GROWTH: ("warning", "More stack than in the baseline."),
}


def sarif_json(analysis: Analysis, findings: Iterable[Finding]) -> Json:
    """One run. What fails the gate is an error, whatever its rule's own level is."""
    sources = Sources(analysis)
    names = list(_RULES)
    results = [_result(analysis, sources, finding, names) for finding in findings]
    return {
        "$schema": SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "stackfit",
                        "version": __version__,
                        "semanticVersion": __version__,
                        "rules": [
                            {
                                "id": name,
                                "shortDescription": {"text": text},
                                "defaultConfiguration": {"level": level},
                            }
                            for name, (level, text) in _RULES.items()
                        ],
                    }
                },
                "invocations": [{"executionSuccessful": True}],
                "originalUriBaseIds": {
                    _ROOT: {"description": {"text": "The source tree that the image was built from."}}
                },
                "results": results,
            }
        ],
    }


def finding_rows(analysis: Analysis, finding: Finding) -> list[ChainRow]:
    """The frames that a finding is about: a context's chain, or one that starts in a module."""
    if finding.need is not None:
        return chain_rows(analysis, finding.need, finding.chain)
    return bound_rows(analysis, finding.chain, 0) if finding.chain is not None else []


def _result(analysis: Analysis, sources: Sources, finding: Finding, names: list[str]) -> Json:
    rows = finding_rows(analysis, finding)
    level = "error" if finding.fails else _RULES[finding.rule][0]
    result: Json = {
        "ruleId": finding.rule,
        "ruleIndex": names.index(finding.rule),
        "level": level,
        "message": {"text": clean(f"{finding.subject}: {finding.text}")},
        "locations": [_place(analysis, sources, finding, rows)],
        "partialFingerprints": {"stackfit/v1": _fingerprint(finding)},
    }
    if rows:
        result["codeFlows"] = [
            {
                "message": {"text": "the chain of calls, from the stack's top"},
                "threadFlows": [{"locations": [{"location": _row(analysis, sources, row)} for row in rows]}],
            }
        ]
    return result


def _fingerprint(finding: Finding) -> str:
    """The same finding in another build has the same: numbers are left out."""
    return hashlib.sha256(f"{finding.rule}\0{finding.subject}".encode()).hexdigest()[:32]


def _place(analysis: Analysis, sources: Sources, finding: Finding, rows: list[ChainRow]) -> Json:
    """The function meant; of a chain its largest frame, of those with a line if any has one."""
    if finding.function >= 0:
        name, module = analysis.code.functions.names[finding.function], module_of(analysis, finding.function)
        return _location(analysis, sources, name, module, sources.entry(finding.function))
    with_line = [row for row in rows if sources.line(sources.address(row)) is not None]
    largest = max(with_line or rows, key=lambda row: row.depth, default=None)
    if largest is None:
        return {"physicalLocation": {"artifactLocation": _image(analysis, None)}}
    return _location(analysis, sources, largest.function, largest.module, sources.address(largest))


def _row(analysis: Analysis, sources: Sources, row: ChainRow) -> Json:
    how = "" if row.kind in ("direct", "end", "entry") else f", {row.kind}"
    evidence = "" if row.evidence == "proved" else f", {row.evidence}"
    text = f"{clean(row.function)}: {bytes_text(row.depth)}, {bytes_text(row.total)} in all{how}{evidence}"
    location = _location(analysis, sources, row.function, row.module, sources.address(row))
    return {**location, "message": {"text": text}}


def _location(
    analysis: Analysis, sources: Sources, function: str, module: str | None, address: int | None
) -> Json:
    line = sources.line(address)
    if line is not None:
        physical: Json = {"artifactLocation": _file(line), "region": {"startLine": line.line}}
    else:
        physical = {"artifactLocation": _image(analysis, module)}
    if address is not None:
        physical["address"] = {"name": f"{address:#x}", "kind": "instruction"}
        if address < 1 << 63:  # a kernel's are not, and readers take integers for signed ones
            physical["address"]["absoluteAddress"] = address
    name = clean(function)
    logical: Json = {"name": name, "kind": "function"}
    if module is not None:
        logical["fullyQualifiedName"] = f"{clean(module)}::{name}"
    return {"physicalLocation": physical, "logicalLocations": [logical]}


def _file(line: SourceLine) -> Json:
    uri = _uri(line.file)
    return {"uri": uri} if line.file.startswith("/") else {"uri": uri, "uriBaseId": _ROOT}


def _image(analysis: Analysis, module: str | None) -> Json:
    images = analysis.program.images
    path = next((image.path for image in images if image.module == module), images[0].path)
    return {"uri": _uri(path)}


def _uri(path: str) -> str:
    """A file: URI of an absolute path, a relative reference of a relative one."""
    raw = str(PurePosixPath(path)).encode("utf-8", "surrogateescape")
    shown = quote(raw, safe="/")
    return f"file://{shown}" if shown.startswith("/") else shown

"""The documentation's examples run, its site builds without a broken link, and pages name what there is."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stackfit.analysis import analyse
from stackfit.report.json import check_json, dumps

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
SAMPLE = REPOSITORY / "fixtures" / "sample" / "bin" / "x86_64"


def blocks(path: Path, language: str) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_examples_of_the_python_page(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("plotly", reason="the extra html is not installed")
    monkeypatch.chdir(REPOSITORY)
    found = blocks(DOCS / "python.md", "pycon")
    assert len(found) >= 8
    test = doctest.DocTestParser().get_doctest("\n".join(found), {}, "python.md", "docs/python.md", 0)
    results = doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF).run(test)
    assert results.attempted > 20 and results.failed == 0


def test_other_examples_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("plotly", reason="the extra html is not installed")
    monkeypatch.chdir(tmp_path)
    analysis = analyse([SAMPLE / "vmlinux"], [], ["linux-x86_64"])
    (tmp_path / "check.json").write_text(dumps(check_json(analysis)), encoding="utf-8")
    for page in ("report.md", "guides/ci.md"):
        (block,) = blocks(DOCS / page, "python")
        exec(compile(block, page, "exec"), {})
    assert "8 KiB" in (tmp_path / "experiment.html").read_text(encoding="utf-8")


def test_the_site_builds_without_a_broken_link(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    pytest.importorskip("material", reason="the extra docs is not installed")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    home = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "guides/kernel.html" in home and "report.html" in home
    fetched = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', home)
    assert not fetched, "the site is read without a network"


def test_every_schema_is_listed() -> None:
    text = (DOCS / "file-formats.md").read_text(encoding="utf-8")
    for path in sorted((DOCS / "schemas").glob("*.json")):
        name = "/".join(path.stem.rsplit("-", 1))
        assert f"[{name}](schemas/{path.name})" in text

"""The GitHub Action and the pre-commit hook: valid by GitHub's schema, their command lines run for real."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE = REPOSITORY / "fixtures" / "sample" / "bin" / "x86_64"
LAYOUT = """name = "{name}"
[stack.process]
per = "process"
size = {size}
allocation = "static"
runs = ["syscall"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with images and layouts, and `stackfit` on the path."""
    directory, programs = tmp_path / "a project", tmp_path / "bin"
    directory.mkdir()
    programs.mkdir()
    command = programs / "stackfit"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m stackfit.cli.main "$@"\n')
    command.chmod(0o755)
    for name in ("vmlinux", "vendor_blob.ko"):
        (directory / name).write_bytes((SAMPLE / name).read_bytes())
    for name, size in (("small", 512), ("large", 1 << 20)):
        (directory / f"{name}.toml").write_text(LAYOUT.format(name=name, size=size), encoding="utf-8")
    return directory


def action(project: Path, **inputs: str) -> tuple[int, str, str, str]:
    """Exit status, log, summary and outputs of the action's step."""
    summary, outputs = project.parent / "summary.md", project.parent / "outputs"
    for file in (summary, outputs):
        file.unlink(missing_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("INPUT_")}
    environment |= {f"INPUT_{key.upper()}": value for key, value in inputs.items()}
    environment |= {
        "PATH": f"{project.parent / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), *sys.path]),
        "GITHUB_STEP_SUMMARY": str(summary),
        "GITHUB_OUTPUT": str(outputs),
    }
    script = step(load("action.yml"))["run"].replace("$GITHUB_ACTION_PATH", str(REPOSITORY))
    result = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        capture_output=True, text=True, cwd=project, env=environment, timeout=120, check=False,
    )  # fmt: skip
    text = summary.read_text(encoding="utf-8") if summary.exists() else ""
    return result.returncode, result.stdout + result.stderr, text, outputs.read_text(encoding="utf-8")


def load(name: str) -> dict[str, object]:
    return dict(YAML(typ="safe").load(REPOSITORY / name))


def step(document: dict[str, object]) -> dict[str, str]:
    """The step that checks."""
    runs = document["runs"]
    assert isinstance(runs, dict)
    return next(one for one in runs["steps"] if one.get("id") == "check")


def test_the_action_is_valid_by_githubs_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-actions"]
    result = subprocess.run([*command, str(REPOSITORY / "action.yml")], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_input_reaches_the_script_through_the_environment() -> None:
    document = load("action.yml")
    inputs = document["inputs"]
    assert isinstance(inputs, dict)
    environment = step(document)["env"]
    assert isinstance(environment, dict)
    script = (REPOSITORY / "scripts" / "action.sh").read_text(encoding="utf-8")
    for name in set(inputs) - {"working-directory", "python-version"}:
        variable = f"INPUT_{name.upper().replace('-', '_')}"
        assert re.sub(r"\s", "", environment[variable]) == f"${{{{inputs.{name}}}}}"
        assert f"${{{variable}:-}}" in script
    assert "${{" not in step(document)["run"]  # what is put into a script can end its quotes


def test_a_stack_that_is_too_small_fails_the_step_and_is_annotated(project: Path) -> None:
    status, log, summary, outputs = action(project, image="vmlinux", layout="small.toml\n\n  linux-x86_64\n")
    assert (status, outputs) == (1, "status=1\n")
    assert [line for line in log.splitlines() if line.startswith("::error ")]
    assert "| small | process | 512 B |" in summary and "linux-x86\\_64" in summary


def test_what_stackfit_toml_says_is_enough(project: Path) -> None:
    (project / "stackfit.toml").write_text(
        'image = "vmlinux"\nmodules = ["vendor_blob.ko"]\nlayouts = ["large.toml"]\n', encoding="utf-8"
    )
    status, log, summary, outputs = action(project, db="out.db", sarif="out.sarif")
    assert (status, outputs) == (0, "status=0\n"), log
    assert "1 module" in summary
    assert (project / "out.db").exists() and (project / "out.sarif").exists()


def test_errors_are_the_steps_errors_and_names_are_no_options(project: Path) -> None:
    assert action(project, image="--help")[0] == 2
    status, log, summary, outputs = action(
        project, image="nowhere", modules="$(touch escaped)\n`touch escaped`"
    )
    assert (status, summary, outputs) == (2, "", "status=2\n")
    assert "stackfit: error:" in log
    assert not (project / "escaped").exists()


def test_the_hook_runs_what_the_command_line_has(project: Path) -> None:
    (hook,) = YAML(typ="safe").load(REPOSITORY / ".pre-commit-hooks.yaml")
    assert (hook["language"], hook["pass_filenames"]) == ("python", False)
    wanted = re.compile(hook["files"])
    for name in ("stackfit.toml", "build/driver.ko", "boot/vmlinuz", "vmlinux"):
        assert wanted.search(name), name
    assert not wanted.search("notes.txt") and not wanted.search("pyproject.toml")
    (project / "stackfit.toml").write_text('image = "vmlinux"\nlayouts = ["small.toml"]\n', encoding="utf-8")
    words = shlex.split(hook["entry"])
    words[0] = str(project.parent / "bin" / words[0])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), *sys.path])}
    assert subprocess.run(words, cwd=project, env=environment, capture_output=True).returncode == 1

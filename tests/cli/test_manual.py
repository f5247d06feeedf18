"""The manual page and the completions: every command and option, and the tools that read them are content."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stackfit.cli.main import build_parser
from stackfit.cli.manual import main, man_page


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("shtab", reason="the extra docs is not installed")
    directory = tmp_path_factory.mktemp("share")
    assert main([str(directory)]) == 0
    return directory


def every(parser: argparse.ArgumentParser) -> Iterator[tuple[str, set[str]]]:
    """(command with its words, its options), of each command."""
    yield parser.prog, {word for action in parser._actions for word in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from every(command)


def test_the_page_has_every_command_and_option() -> None:
    parser = build_parser()
    page = man_page(parser).replace("\\-", "-")
    commands = dict(every(parser))
    assert {"stackfit check", "stackfit measure trace", "stackfit lab workloads"} <= set(commands)
    for command, options in commands.items():
        assert command in page
        for option in options:
            assert option in page, f"{command} {option}"


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_has_nothing_to_complain_about(share: Path) -> None:
    command = ["groff", "-man", "-Tutf8", "-ww", "-z", str(share / "man" / "man1" / "stackfit.1")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_options_and_values(share: Path) -> None:
    script = share / "bash-completion" / "completions" / "stackfit"

    def complete(*words: str) -> set[str]:
        line = " ".join(f"'{word}'" for word in words)
        code = (
            f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1};"
            ' function=$(complete -p stackfit | sed "s/.*-F \\([^ ]*\\).*/\\1/"); $function stackfit;'
            ' printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    assert complete("stackfit", "c") == {"check", "calls", "contexts", "compare", "cache"}
    assert "--html" in complete("stackfit", "check", "--h")
    assert complete("stackfit", "check", "--indirect", "t") == {"typed"}

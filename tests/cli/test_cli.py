"""The command line on the sample kernel: output, exit status, bad input, names that would harm a terminal."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stackfit.cli.main import main

SAMPLE = Path(__file__).resolve().parents[2] / "fixtures" / "sample" / "bin"
KERNEL = SAMPLE / "x86_64" / "vmlinux"
MODULE = SAMPLE / "x86_64" / "vendor_blob.ko"
LAYOUT = """name = "{name}"
[stack.process]
per = "process"
size = {size}
allocation = "static"
runs = ["syscall"]
"""
COMMANDS = ("check", "frames", "calls", "contexts")


def run(*words: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "stackfit.cli.main", *map(str, words)],
        capture_output=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line with which the command refuses, status 2."""
    assert main([str(word) for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("stackfit: error: "), captured.err
    assert lines[0].isprintable()
    return lines[0].removeprefix("stackfit: error: ")


def usage(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    assert stopped.value.code == 2
    return capsys.readouterr().err


# ---------------------------------------------------------------- recursion: what is left, what to review


def test_components_name_the_recursion_that_has_no_budget(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calls", str(KERNEL), "--components"]) == 0
    printed = capsys.readouterr().out
    assert "(nothing assumed)" in printed
    assert "tree_depth" in printed
    assert "left without a budget or a cut over direct calls" in printed


def test_components_are_of_the_whole_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no FUNCTION" in refused(capsys, "calls", KERNEL, "tree_depth", "--components")


@pytest.mark.parametrize("command", ["check", "contexts"])
def test_a_suggestion_becomes_an_assumption_only_once_it_is_reviewed(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([command, str(KERNEL), "--suggest-cuts"]) == 0
    text = capsys.readouterr().out
    assert 'function = "walk_' in text
    file = tmp_path / "suggested.toml"
    file.write_text(text, encoding="utf-8")
    assert "is a placeholder" in refused(capsys, "contexts", KERNEL, "--assume", file)
    file.write_text(text.replace("TODO: ", "read: "), encoding="utf-8")
    assert main(["contexts", str(KERNEL), "--assume", str(file), "--suggest-cuts"]) == 0
    assert "[[budget]]" not in capsys.readouterr().out


# ---------------------------------------------------------------- output


@pytest.mark.parametrize("command", COMMANDS)
def test_output_is_the_same_on_every_run_and_errors_stay_silent(command: str) -> None:
    runs = [run(command, KERNEL, "--modules", MODULE, PYTHONHASHSEED=seed) for seed in ("1", "2")]
    for result in runs:
        assert (result.returncode, result.stderr) == (0, b"")
    assert runs[0].stdout == runs[1].stdout
    assert b"\x1b" not in runs[0].stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_json_on_standard_output_is_all_there_is(command: str) -> None:
    result = run(command, KERNEL, "--json", "-")
    assert (result.returncode, result.stderr) == (0, b"")
    assert json.loads(result.stdout)["schema"] == f"stackfit.{command}/1"


def test_json_in_a_file_comes_with_the_usual_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.json"
    assert main(["check", str(KERNEL), "--json", str(target)]) == 0
    assert json.loads(target.read_text(encoding="utf-8"))["schema"] == "stackfit.check/1"
    assert "linux-x86_64" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_check_names_stack_need_verdict_and_chain(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(KERNEL)]) == 0
    out = capsys.readouterr().out
    for text in (
        "process",
        "16 KiB",
        "≥ ",
        "unknown",
        "worst chain: ",
        "do_syscall_64",
        "Open ",
        "Assumed ",
        "--open",
    ):
        assert text in out, text


def test_the_command_that_check_suggests_lists_open_sites(capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", str(KERNEL), "--modules", str(MODULE)])
    out = capsys.readouterr().out
    (suggested,) = [line for line in out.splitlines() if "list them:" in line]
    words = suggested.split("list them: stackfit ")[1].split()
    assert main(words) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) > 5 and any("vfs_write" in row for row in rows)


def test_frames_shows_the_largest_first_and_what_is_open_before(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["frames", str(KERNEL), "--top", "4"]) == 0
    rows = [row.split() for row in capsys.readouterr().out.splitlines() if "ffffffff" in row]
    assert [row[0] for row in rows[:3]] == ["open"] * 3
    # startup_32 is 32-bit code in a 64-bit image: it runs into bytes that are no 64-bit instruction.
    assert {row[3] for row in rows[:3]} == {"alloca_open", "startup_32", "vla_open"}
    assert "do_syscall_64" in rows[3] and rows[3][:2] == ["1", "056"]


def test_calls_of_one_function_are_its_own_and_those_that_reach_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["calls", str(KERNEL), "ksys_write"]) == 0
    rows = [row for row in capsys.readouterr().out.splitlines() if "ffffffff" in row]
    assert any("__x64_sys_write" in row and "tail" in row for row in rows)
    assert any("vfs_write" in row for row in rows)
    assert all("ksys_write" in row for row in rows)


def test_registered_functions_need_types(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contexts", str(KERNEL), "--registered"]) == 0
    assert "BTF" in capsys.readouterr().out
    assert main(["contexts", str(KERNEL), "--module", "kernel"]) == 2
    assert "--registered" in capsys.readouterr().err
    assert main(["contexts", str(KERNEL), "--registered", "--module", "vendor_bolb"]) == 2
    assert "no module vendor_bolb" in capsys.readouterr().err


def test_contexts_of_one_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contexts", str(KERNEL), "--kind", "syscall"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    rows, closing = [row for row in rows if row][:-3], [row for row in rows if row][-3:]
    assert len(rows) == 13  # twelve numbers, and entry and exit work
    assert all(row.startswith("syscall") for row in rows)
    assert [line.partition(",")[0] for line in closing[:2]] == ["of 13 system calls"] * 2
    assert "reach the largest component of recursion" in closing[2]
    assert "below 4 KiB" in closing[0] and "at any number" in closing[1]


def test_through_a_module_that_only_pointers_reach(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(KERNEL), "--modules", str(MODULE), "--through", "vendor_blob"]) == 0
    out = capsys.readouterr().out
    assert "called through pointers" in out and "528 B of the chain in its own frames" in out


def test_the_running_kernel_is_named_when_its_image_cannot_be_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.release", lambda: "9.9.9-none")
    assert "9.9.9-none" in refused(capsys, "check")


# ---------------------------------------------------------------- exit status


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ([], 0),
        (["--layout", "linux-x86_64"], 0),  # unknown is no failure unless it is asked for
        (["--fail-on", "unknown"], 1),
        (["--fail-on", "exceeds,may-exceed"], 0),
        (["--layout", "SMALL"], 1),  # with --layout may-exceed fails
        (["--layout", "SMALL", "--fail-on", "exceeds"], 0),
        (["--layout", "SMALL", "--fail-on", ""], 0),
    ],
)
def test_exit_status(words: list[str], status: int, tmp_path: Path) -> None:
    small = tmp_path / "small.toml"
    small.write_text(
        LAYOUT.format(name="small", size=512),
        encoding="utf-8",
    )
    assert (
        main(["check", str(KERNEL), *[str(small) if word == "SMALL" else word for word in words]]) == status
    )


def test_usage_errors_are_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert "maybe" in usage(capsys, "check", KERNEL, "--fail-on", "maybe")
    assert "hops" in usage(capsys, "check", KERNEL, "--hops", "-1")
    assert "unlimited" in usage(capsys, "check", KERNEL, "--hops", "many")
    usage(capsys, "frames")
    usage(capsys, "fraims", KERNEL)
    usage(capsys)


# ---------------------------------------------------------------- bad input


def test_files_that_are_no_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, text = tmp_path / "empty", tmp_path / "text"
    empty.write_bytes(b"")
    text.write_bytes(b"hello\n" * 100)
    os.mkfifo(tmp_path / "pipe")
    for path, cause in (
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path / "none", "No such file"),
        (empty, "empty"),
        (tmp_path, "directory"),
        (text, "not an ELF file"),
    ):
        for command in COMMANDS:
            message = refused(capsys, command, path)
            assert cause in message and str(path) in message


def test_modules_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no kernel modules" in refused(capsys, "check", KERNEL, "--modules", tmp_path)
    assert "No such file" in refused(capsys, "check", KERNEL, "--modules", tmp_path / "none")
    assert "already given" in refused(
        capsys, "check", KERNEL, "--modules", MODULE, "--modules", copy(MODULE, tmp_path)
    )


def copy(path: Path, to: Path) -> Path:
    target = to / path.name
    target.write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", ["vmlinux", "vendor_blob.ko"])
def test_truncated_files_are_refused_in_one_line(
    name: str, share: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (SAMPLE / "x86_64" / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: int(len(whole) * share)])
    words = [path] if name == "vmlinux" else [KERNEL, "--modules", path]
    assert str(path) in refused(capsys, "frames", *words)


def patched(tmp_path: Path, offset: int, value: bytes, source: Path = KERNEL) -> Path:
    data = bytearray(source.read_bytes())
    data[offset : offset + len(value)] = value
    path = tmp_path / source.name
    path.write_bytes(data)
    return path


def test_other_machines_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "chine" in refused(capsys, "frames", patched(tmp_path, 18, struct.pack("<H", 8)))  # EM_MIPS
    assert "endian" in refused(capsys, "frames", patched(tmp_path, 5, b"\x02"))  # ELFDATA2MSB


def test_a_module_of_another_machine_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "frames", KERNEL, "--modules", SAMPLE / "i386" / "vendor_blob.ko")
    assert "i386" in message and "x86_64" in message


def test_a_module_of_another_kernel_is_taken_with_a_warning_that_names_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = MODULE.read_bytes().replace(b"vermagic=6.1.0-sample", b"vermagic=6.9.9-sample")
    module = tmp_path / "vendor_blob.ko"
    module.write_bytes(data)
    assert main(["check", str(KERNEL), "--modules", str(module)]) == 0
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert "6.9.9-sample-amd64" in warning and "6.1.0-sample-amd64" in warning


def test_layouts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "check", KERNEL, "--layout", "linux-i386")
    assert "i386" in message and "x86_64" in message
    assert "did you mean 'linux-x86_64'" in refused(capsys, "check", KERNEL, "--layout", "linux-x8664")
    bad = tmp_path / "bad.toml"
    bad.write_text("name = ", encoding="utf-8")
    for option in ("--layout", "--assume"):
        message = refused(capsys, "check", KERNEL, option, bad)
        assert str(bad) in message and "not TOML" in message
    deep = tmp_path / "deep.toml"
    deep.write_text(
        LAYOUT.format(name="deep", size=4096) + "nests = { exception = 1000 }\n",
        encoding="utf-8",
    )
    assert "nests.exception" in refused(capsys, "check", KERNEL, "--layout", deep)


def test_names_that_are_not_there_come_with_those_near(capsys: pytest.CaptureFixture[str]) -> None:
    assert "near: vfs_write" in refused(capsys, "calls", KERNEL, "vfs_wrte")
    assert "near: vfs_write" in refused(capsys, "check", KERNEL, "--through", "vfs_wrte")


def test_a_json_target_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "none" / "out.json"
    assert str(target) in refused(capsys, "frames", KERNEL, "--json", target)
    assert str(tmp_path) in refused(capsys, "frames", KERNEL, "--json", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_json_target_is_replaced_as_a_whole_and_devices_stay_what_they_are(tmp_path: Path) -> None:
    target, link = tmp_path / "out.json", tmp_path / "link.json"
    target.write_text("old", encoding="utf-8")
    link.symlink_to(target)
    assert main(["frames", str(KERNEL), "--json", str(link)]) == 0
    assert link.is_symlink() and target.read_text(encoding="utf-8").startswith("{")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    assert main(["frames", str(KERNEL), "--json", str(pipe)]) == 0
    out, _ = reader.communicate(timeout=60)
    assert pipe.is_fifo() and json.loads(out)["schema"] == "stackfit.frames/1"


HOSTILE = [
    b"\x1b[31mxxxxxx",
    b"\x1b]0;x\x07xxxx",
    b"a\nb\rc\td\x08e\x7f",
    b"[red]x[/]xx",
    b"\xff\xfe\xc3\x28\x80xxxxxx",
    "\u202e\u200bxxxxx".encode(),
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_symbol_names_never_reach_the_terminal_raw(name: bytes, tmp_path: Path) -> None:
    original = b"alloca_open"
    name = name[: len(original)].ljust(len(original), b"x")
    data = KERNEL.read_bytes()
    assert data.count(b"\0" + original + b"\0") == 1
    path = tmp_path / "vmlinux"
    path.write_bytes(data.replace(b"\0" + original + b"\0", b"\0" + name + b"\0"))
    for words in (
        ["frames", path, "--top", "0"],
        ["calls", path, "--open"],
        ["check", path],
        ["frames", path, "--json", "-"],
    ):
        result = run(*words)
        assert result.returncode == 0, result.stderr
        for line in result.stdout.decode("utf-8").splitlines():
            assert line.isprintable(), line
    if name.startswith(b"[red]"):
        assert b"[red]x[/]xx" in run("frames", path).stdout


def test_hostile_text_of_layout_files_and_paths_is_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = tmp_path / "hostile.toml"
    hostile.write_text(
        'assumptions = ["a\\u001b[31mb [red]"]\n'
        + LAYOUT.format(name="hostile", size=8192)
        + 'reserve_base = 8\n[stack.process.source]\nreserve_base = "\\u001b]0;x\\u0007"\n',
        encoding="utf-8",
    )
    assert main(["check", str(KERNEL), "--layout", str(hostile)]) == 0
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())
    assert "\x1b" not in refused(capsys, "check", tmp_path / "\x1b[31m\n")


# ---------------------------------------------------------------- pipes and signals


def test_a_reader_that_goes_away_is_no_error() -> None:
    writer = subprocess.Popen(
        [sys.executable, "-m", "stackfit.cli.main", "frames", str(KERNEL), "--json", "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert writer.stdout is not None and writer.stderr is not None
    writer.stdout.read(10)
    writer.stdout.close()
    assert (writer.wait(60), writer.stderr.read()) == (0, b"")


def test_a_table_s_reader_that_goes_away_is_no_error() -> None:
    writer = subprocess.Popen(
        [sys.executable, "-m", "stackfit.cli.main", "calls", str(KERNEL), "--open"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert writer.stdout is not None and writer.stderr is not None
    writer.stdout.close()
    assert (writer.wait(60), writer.stderr.read()) == (0, b"")


def test_a_full_disk_is_one_line() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "wb") as full:
        result = subprocess.run(
            [sys.executable, "-m", "stackfit.cli.main", "frames", str(KERNEL)],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert result.returncode == 2
    assert result.stderr.decode().count("\n") == 1 and "No space left" in result.stderr.decode()


def heeds_interrupts() -> None:
    """What runs in a shell's background ignores SIGINT, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_interrupted_from_the_keyboard_it_says_so(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"  # writing to it never begins: there is no reader
    os.mkfifo(pipe)
    running = subprocess.Popen(
        [sys.executable, "-m", "stackfit.cli.main", "frames", str(KERNEL), "--json", str(pipe)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heeds_interrupts,
    )
    time.sleep(4)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err) == (130, b"", b"stackfit: interrupted\n")


def test_a_locale_without_the_characters_of_tables_is_no_error() -> None:
    result = run("check", KERNEL, PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (0, b"")

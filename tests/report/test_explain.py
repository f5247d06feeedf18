"""`stackfit explain`: what it prints and writes, and that its advice does what it says."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from stackfit.analysis import Analysis, analyse
from stackfit.cli.main import main
from stackfit.decision.explain import explain
from stackfit.image.model import InputError
from stackfit.report.explain import explain_json
from stackfit.report.json import dumps
from toolchain import compile_object

REPOSITORY = Path(__file__).resolve().parents[2]
KERNEL = REPOSITORY / "fixtures" / "sample" / "bin" / "x86_64" / "vmlinux"
OBJECTS = REPOSITORY / "fixtures" / "anatomy" / "bin"
CHAIN = """
#define NOINLINE __attribute__((noipa))
#ifndef STORAGE
#define STORAGE
#endif
struct table { char bytes[600]; };
#ifdef KEEP_OUT
#define INLINE NOINLINE
#else
#define INLINE inline __attribute__((always_inline))
#endif
NOINLINE int sink(void *p) { return *(int *)p; }
NOINLINE int leaf(int n) { char text[40]; text[0] = n; return sink(text) + n; }
static INLINE int looked_up(int n) { char key[256]; key[0] = n; return sink(key); }
NOINLINE int worker(int n)
{
    STORAGE struct table table;
    table.bytes[n & 511] = 1;
    return sink(&table) + leaf(n);
}
NOINLINE int other(int n) { char text[300]; text[0] = n; return leaf(sink(text)) + 1; }
NOINLINE int reader(int n) { int found = looked_up(n); return leaf(found) + other(n) + 2; }
NOINLINE int entry(int n) { return worker(n) + other(n); }
"""


def valid(document: dict[str, Any]) -> dict[str, Any]:
    schema = json.loads((REPOSITORY / "docs" / "schemas" / "stackfit.explain-1.json").read_text("utf-8"))
    read = json.loads(dumps(document))
    jsonschema.Draft202012Validator(schema).validate(read)
    return dict(read)


def built(directory: Path, *options: str) -> Analysis:
    directory.mkdir(exist_ok=True)
    return analyse([compile_object(directory, CHAIN, 64, "-g", "-O2", "-mno-red-zone", *options)])


# ---------------------------------------------------------------- documents


@pytest.mark.parametrize("name", ["x86_64-O2", "i386-O2", "x86_64-protected", "i386-O0"])
def test_a_function_s_document_adds_up(name: str) -> None:
    analysis = analyse([OBJECTS / f"{name}.o"])
    document = valid(explain_json(analysis, explain(analysis, "mixed")))
    assert document["subject"]["kind"] == "function" and document["stack"] is None
    (frame,) = document["frames"]
    assert frame["name"] == "mixed" and frame["debug"] and frame["source"]["file"].endswith("shapes.c")
    assert sum(frame["bytes"].values()) == frame["frame"]
    assert document["chain"][-1]["total"] == document["found"] >= frame["frame"]
    assert sum(row["depth"] for row in document["chain"]) == document["found"]
    assert document["lower_bound"]  # sink() is in no image


def test_a_context_s_document_agrees_with_check() -> None:
    analysis = analyse([KERNEL], layouts=["linux-x86_64"])
    result = explain(analysis, "syscall write", frames=-1)
    document = valid(explain_json(analysis, result))
    needs = analysis.composer.context_needs(analysis.layouts[0], chains=True)
    (need,) = [one for one in needs if one.context.title == document["subject"]["name"]]
    assert (document["found"], document["bound"]) == (need.found, need.direct)
    assert document["stack"]["name"] == "process" and document["stack"]["size"] == 16384
    (whole,) = [one for one in analysis.verdicts[0].stacks if one.stack.name == "process"]
    assert document["stack"]["need"] == whole.direct
    assert all(one["stack"] is None or one["stack"] <= whole.direct for one in document["advice"])
    named = {row["function"] for row in document["chain"]} - {"(entry frame)"}
    assert {frame["name"] for frame in document["frames"]} == named
    assert all(frame["debug"] is None for frame in document["frames"])
    assert explain(analysis, "__x64_sys_write").function is not None


def test_names_of_nothing_come_with_those_near() -> None:
    analysis = analyse([OBJECTS / "x86_64-O2.o"])
    with pytest.raises(InputError, match=r"no function or context mixd \(near: mixed"):
        explain(analysis, "mixd")
    with pytest.raises(InputError, match="no function at 0x10"):
        explain(analysis, "0x10")
    (function,) = analysis.code.functions.named("mixed")
    inside = int(analysis.code.functions.address[function]) + 5
    assert explain(analysis, f"{inside:#x}").function == function


def test_the_command_prints_frame_chain_and_advice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = compile_object(tmp_path, CHAIN, 64, "-g", "-O2", "-mno-red-zone")
    assert main(["explain", str(path), "entry"]) == 0
    text = capsys.readouterr().out
    assert "struct table" not in text  # of a function its own frame only
    assert main(["explain", str(path), "entry", "--frames", "all", "--json", str(tmp_path / "out.json")]) == 0
    text = capsys.readouterr().out
    assert "move `table` (struct table, 600 B) off the stack of worker" in text
    assert any("worker" in line and ".c:" in line for line in text.splitlines())
    valid(json.loads((tmp_path / "out.json").read_text("utf-8")))
    assert main(["explain", str(path)]) == 2
    assert "is to be named" in capsys.readouterr().err


# ---------------------------------------------------------------- advice


def found(analysis: Analysis, name: str) -> int:
    return explain(analysis, name).before.found


def test_the_first_advice_applied_lowers_the_need_by_what_was_predicted(tmp_path: Path) -> None:
    analysis = built(tmp_path / "before")
    result = explain(analysis, "entry", frames=-1)
    first = result.advice[0]
    assert (first.change.kind.value, first.change.name) == ("move", "table")
    assert 592 <= first.change.bytes <= 624  # its 600, and what filled the frame up
    # Not by all of its bytes: then the other chain is the deepest.
    assert 0 < first.falls < first.change.bytes
    after = built(tmp_path / "after", "-DSTORAGE=static")
    assert found(after, "entry") == first.after.found == result.before.found - first.falls
    # Below the function itself all of it counts.
    own = explain(analysis, "worker").advice[0]
    assert found(after, "worker") == own.after.found


def test_an_inlined_function_kept_out_of_line_lowers_the_need_of_chains_beside_it(tmp_path: Path) -> None:
    analysis = built(tmp_path / "before")
    result = explain(analysis, "reader", frames=-1)
    (advice,) = [one for one in result.advice if one.change.kind.value == "noinline"]
    assert advice.change.name == "looked_up" and advice.falls > 200
    after = found(built(tmp_path / "after", "-DKEEP_OUT"), "reader")
    # What it saves when it is a function is counted at its most.
    assert advice.after.found - 48 <= after <= advice.after.found


# ---------------------------------------------------------------- modules and their companions


def test_debug_information_of_a_module_may_be_in_a_companion(tmp_path: Path) -> None:
    if shutil.which("objcopy") is None:
        pytest.skip("no objcopy")
    source = OBJECTS / "x86_64-O2.o"
    module, debug = tmp_path / "shapes.ko", tmp_path / "debug"
    debug.mkdir()
    companion = debug / "shapes.ko"
    subprocess.run(["objcopy", "--strip-debug", str(source), str(module)], check=True)
    subprocess.run(["objcopy", "--only-keep-debug", str(source), str(companion)], check=True)
    own = analyse([source], resolve=lambda code: False)
    for places in ([debug], [companion]):
        linked = analyse([KERNEL], [module], debug_modules=places, resolve=lambda code: False)
        for name in ("inlined_many", "switched", "spills"):
            here, there = explain(linked, name), explain(own, name)
            one, other = here.frames[here.function or 0], there.frames[there.function or 0]
            assert one.debug and (one.names, one.types, one.owners) == (
                other.names,
                other.types,
                other.owners,
            )
            assert one.use.tolist() == other.use.tolist()
            image = int(linked.code.functions.image[one.function])
            line = linked.companions.line(image, int(linked.code.functions.address[one.function]))
            assert line is not None and line.file.endswith("shapes.c")
    bare = analyse([KERNEL], [module], resolve=lambda code: False)
    result = explain(bare, "spills")
    assert not result.frames[result.function or 0].debug


@pytest.mark.parametrize("step", range(8))
def test_damaged_debug_information_is_told_in_one_line(step: int, tmp_path: Path) -> None:
    data = bytearray((OBJECTS / "x86_64-O2.o").read_bytes())
    clean = analyse([OBJECTS / "x86_64-O2.o"]).program.images[0]
    section = next(one for one in clean.sections if one.name == ".debug_info")
    for at in range(section.offset + 12 + 97 * step, section.offset + section.size, 701):
        data[at] ^= 0x5A
    path = tmp_path / "shapes.o"
    path.write_bytes(bytes(data))
    analysis = analyse([path], resolve=lambda code: False)
    for name in ("mixed", "inlined_many", "spills"):
        try:
            result = explain(analysis, name)
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:  # what was hit is not of that function
            assert sum(result.frames[result.function or 0].bytes.values()) > 0


# ---------------------------------------------------------------- a kernel


@pytest.mark.kernel
def test_large_frames_of_debian_s_kernel(amd64_recorded_vmlinux: Path) -> None:
    """do_select and tcp_bpf_sendmsg of 6.1.0-56: 624 of 912, and 712 of 824 bytes are one variable."""
    analysis = analyse([amd64_recorded_vmlinux], resolve=lambda code: False)
    expected = {
        "do_select": (912, "table", "struct poll_wqueues", 624, 8, "fs/select.c"),
        "tcp_bpf_sendmsg": (824, "tmp", "struct sk_msg", 712, 0, "net/ipv4/tcp_bpf.c"),
    }
    for name, (size, variable, text, most, lost, file) in expected.items():
        document = valid(explain_json(analysis, explain(analysis, name)))
        (frame,) = document["frames"]
        assert (frame["frame"], frame["accounted"], frame["source"]["file"]) == (size, size, file)
        (part,) = [one for one in frame["parts"] if one["name"] == variable]
        assert (part["type"], part["end"] - part["begin"], part["owners"]) == (text, most, [])
        assert frame["bytes"]["saved register"] == 48 and frame["bytes"]["protector"] == 8
        assert frame["bytes"].get("alignment", 0) == lost
        (advice,) = [one for one in document["advice"] if one["name"] == variable]
        assert advice["bytes"] == advice["falls"] == most
        assert document["chain"][0]["source"]["file"] == file
        for before, after in itertools.pairwise(document["chain"]):
            assert after["total"] == before["total"] + after["depth"]

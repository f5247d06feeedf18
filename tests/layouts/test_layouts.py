"""Layouts: what the presets promise, and what a wrong file says."""

# ruff: noqa: E501 - tables of cases, one case a line

import copy
import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stackfit.image.model import InputError, Machine
from stackfit.layouts import (
    CONTEXT_KINDS,
    INTERRUPT_CONTEXTS,
    INTERRUPTED,
    Layout,
    Stack,
    default_layout,
    load_layout,
    preset_names,
)
from stackfit.layouts.loader import NUMBERS, PRESETS

X86_PRESETS = {
    "linux-2.6-4k",
    "linux-2.6-8k",
    "linux-i386",
    "linux-i386-4k",
    "linux-i386-shared",
    "linux-x86_64",
    "linux-x86_64-4k",
    "linux-x86_64-8k",
    "linux-x86_64-dynamic",
}

SMALL = """
name = "small"
[stack.process]
per = "process"
size = 4096
allocation = "contiguous"
reserve_base = 52
reserve_top = 8
runs = ["syscall", "exception"]
nests = { exception = 1 }
[stack.hardirq]
per = "cpu"
size = 4096
allocation = "static"
runs = ["hardirq"]
[[interrupt]]
kind = "device"
from_kernel = "hardirq"
from_user = "process"
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "layout.toml"
    path.write_text(text)
    return path


def refusal(directory: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        load_layout(write(directory, text))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(directory / "layout.toml"))
    return message.removeprefix(f"{directory / 'layout.toml'}: ")


def to_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{to_toml(k)} = {to_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def document(data: dict[str, Any]) -> str:
    return "".join(f"{to_toml(key)} = {to_toml(value)}\n" for key, value in data.items())


# ---- presets


def test_presets_are_there() -> None:
    assert set(preset_names()) >= X86_PRESETS
    assert list(preset_names()) == sorted(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_preset_loads_under_its_name(name: str) -> None:
    layout = load_layout(name)
    assert layout.name == name
    assert layout.description
    assert layout.source
    if name.startswith("linux"):
        assert {"syscall", "exception", "kthread", "idle", "boot"} <= set(layout.stack("process").runs)


@pytest.mark.parametrize("name", preset_names())
def test_every_number_of_a_preset_has_a_source(name: str) -> None:
    layout = load_layout(name)
    for stack in layout.stacks:
        stated = {"size"} | {f"nests.{kind}" for kind in stack.nests}
        stated |= {key for key in NUMBERS if getattr(stack, key)}
        assert stated <= set(stack.sources), stack.name
    assert all(line.source for line in layout.interrupts)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_places_every_interrupt_it_can_take(name: str) -> None:
    """A missing line would fall back silently to the interrupted stack."""
    kinds = {line.kind for line in load_layout(name).interrupts}
    if name in ("linux-arm", "linux-arm64", "linux-riscv64"):  # no vectors of x86 there
        assert kinds >= {"device", "softirq", "exception", "double-fault"}
    elif name.startswith("linux"):
        assert set(INTERRUPT_CONTEXTS) - kinds <= {"isr", "vmm-communication", "vmm-communication-fallback"}
    else:
        assert kinds == {"isr"}


def test_the_articles_two_layouts() -> None:
    old, new = load_layout("linux-2.6-8k"), load_layout("linux-2.6-4k")
    assert old.machine is new.machine is Machine.I386
    assert (old.stack("process").size, old.stack("process").order) == (8192, 1)
    assert (new.stack("process").size, new.stack("process").order) == (4096, 0)
    assert old.stack("process").usable == 8192 - 52 - 8
    assert old.target("device", user=False) == INTERRUPTED
    assert old.target("softirq", user=False) == INTERRUPTED
    assert new.target("device", user=False) == "hardirq"
    assert new.target("softirq", user=False) == "softirq"
    assert new.target("system-vector", user=False) == INTERRUPTED
    assert all(new.stack(name).size == 4096 for name in ("hardirq", "softirq"))


def test_i386_of_today() -> None:
    layout = load_layout("linux-i386")
    assert layout.stack("process").usable == 8192 - 4 - 8
    assert layout.target("device", user=False) == "hardirq"
    assert layout.target("device", user=True) == "process"
    assert layout.target("system-vector", user=False) == INTERRUPTED
    assert layout.target("nmi", user=False) == INTERRUPTED
    assert layout.target("softirq", user=True) == "softirq"
    assert layout.stack("hardirq").nests["hardirq"] == 0
    assert layout.stack("double-fault").usable == 3992
    assert layout.stack("entry").entry
    assert layout.starts("entry") == ()


def test_x86_64_of_today() -> None:
    layout = load_layout("linux-x86_64")
    process, irq = layout.stack("process"), layout.stack("irq")
    assert (process.size, process.allocation, process.order) == (16384, "vmalloc", None)
    assert (irq.size, irq.usable) == (16384, 16384 - 8)
    assert layout.home("softirq") is irq
    assert layout.target("softirq", user=True) == "process"
    assert layout.target("simple-vector", user=False) == INTERRUPTED
    assert layout.target("nmi", user=False) == "nmi"
    assert layout.target("nmi", user=True) == "process"
    assert layout.stack("nmi").size == 8192
    assert set(layout.starts("irq")) == {"hardirq", "softirq"}
    assert "hardirq" in layout.starts("process")


def test_variants_differ_in_the_process_stack_only() -> None:
    today = load_layout("linux-x86_64")
    for name, size in (("linux-x86_64-8k", 8192), ("linux-x86_64-4k", 4096), ("linux-x86_64-dynamic", 16384)):
        variant = load_layout(name)
        assert variant.stack("process").size == size
        assert variant.stack("process").sources["size"] != "" and variant.interrupts == today.interrupts
        assert variant.stack("process").nests == today.stack("process").nests
        assert [s for s in variant.stacks if s.name != "process"] == [
            s for s in today.stacks if s.name != "process"
        ]
    dynamic = load_layout("linux-x86_64-dynamic").stack("process")
    assert (dynamic.mapped, dynamic.size, dynamic.reserve_per_cpu) == (4096, 16384, 12288)


def test_default_layout_fits_the_machine() -> None:
    for machine in Machine:
        assert load_layout(default_layout(machine)).machine in (machine, None)


# ---- the model


@pytest.mark.parametrize(
    ("size", "order"), [(1024, 0), (4096, 0), (4100, 1), (8192, 1), (12288, 2), (16384, 2), (32768, 3)]
)
def test_order_is_the_smallest_block_that_holds_the_stack(size: int, order: int) -> None:
    assert Stack("s", "process", size, "contiguous").order == order
    assert Stack("s", "process", size, "vmalloc").order is None


def test_an_interrupt_without_a_line_stays_where_it_hits(tmp_path: Path) -> None:
    layout = load_layout(write(tmp_path, SMALL))
    assert layout.target("nmi", user=False) == INTERRUPTED
    assert layout.target("nmi", user=True) == "process"
    assert layout.interrupt("nmi") is None
    assert layout.starts("process") == ("syscall", "exception", "hardirq")
    with pytest.raises(KeyError):
        layout.stack("absent")


# ---- extends


def test_extends_takes_the_rest_from_the_preset(tmp_path: Path) -> None:
    layout = load_layout(
        write(
            tmp_path,
            'name = "mine"\nextends = "linux-x86_64"\n[stack.process]\nsize = 32768\nnests = { exception = 2 }\n'
            '[[interrupt]]\nkind = "simple-vector"\nfrom_kernel = "irq"\nfrom_user = "process"\n',
        )
    )
    process = layout.stack("process")
    assert (process.size, process.allocation, process.nests) == (
        32768,
        "vmalloc",
        {"exception": 2, "hardirq": 2},
    )
    assert "size" not in process.sources and "nests.exception" not in process.sources
    assert process.sources["nests.hardirq"]
    assert layout.target("simple-vector", user=False) == "irq"
    assert layout.target("device", user=False) == "irq"
    assert len(layout.interrupts) == len(load_layout("linux-x86_64").interrupts)


def test_extends_refuses_what_is_no_preset(tmp_path: Path) -> None:
    assert "did you mean 'linux-x86_64'?" in refusal(tmp_path, 'name = "m"\nextends = "linux-x8664"\n')
    text = 'name = "m"\nextends = "linux-x86_64-8k"\n'
    assert refusal(tmp_path, text) == "extends: 'linux-x86_64-8k' itself extends another layout"


# ---- wrong files: each says file, key and cause in one line


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "small"\n', "", "name: missing (a text is required)"),
        ('"small"', '""', "name: must not be empty"),
        ('"small"', '"Sm all"', "name: 'Sm all' is not a name (a-z first, then a-z 0-9 _ . -, at most 64)"),
        ('"small"', "7", "name: must be a text"),
        ("reserve_top = 8", "reserve_tpo = 8", "stack.process.reserve_tpo: unknown key; did you mean 'reserve_top'?"),
        ("[stack.hardirq]", "[stak.hardirq]", "stak: unknown key; did you mean 'stack'?"),
        ("size = 4096\nallocation = \"static\"", "size = 0\nallocation = \"static\"", "0 is not between 1 and"),
        ("size = 4096\nallocation = \"static\"", "size = -8\nallocation = \"static\"", "-8 is not between 1 and"),
        ("size = 4096\nallocation = \"static\"", "size = true\nallocation = \"static\"", "must be a whole number"),
        ("size = 4096\nallocation = \"static\"", "size = 4097\nallocation = \"static\"", "stack.hardirq.size: 4097 is not a multiple of the 4-byte word"),
        ("reserve_top = 8", "reserve_top = 7", "stack.process.reserve_top: 7 is not a multiple of the 4-byte word"),
        ("reserve_top = 8", "reserve_top = -8", "-8 is not between 0 and"),
        ("reserve_base = 52", "reserve_base = 4088", "the reserves (4088 + 8 bytes) leave nothing of 4096"),
        ('per = "cpu"', 'per = "core"', "stack.hardirq.per: 'core' is none of process, cpu, system"),
        ('"static"', '"vmaloc"', "did you mean 'vmalloc'?"),
        ('"static"', '"dynamic"', "stack.hardirq.mapped: missing (a whole number is required)"),
        ('"static"', '"static"\nmapped = 4096', "stack.hardirq.mapped: only a dynamic stack has it, and the allocation is static"),
        ('"static"', '"dynamic"\nmapped = 100\nreserve_per_cpu = 0', "stack.hardirq.mapped: 100 is not a multiple of the 4096-byte page"),
        ('["hardirq"]', '["hardirk"]', "stack.hardirq.runs: 'hardirk' is no context kind"),
        ('["hardirq"]', '["hardirq", "hardirq"]', "stack.hardirq.runs: 'hardirq' is there 2 times"),
        ('["hardirq"]', '["hardirq", "syscall"]', "stack.hardirq.runs: 'syscall' already runs on 'process'"),
        ('["hardirq"]', '"hardirq"', "stack.hardirq.runs: must be a list of texts"),
        ("exception = 1", "excepton = 1", "stack.process.nests.excepton: 'excepton' is no context kind"),
        ("exception = 1", "exception = -1", "stack.process.nests.exception: -1 is not between 0 and 1000"),
        ("exception = 1", "exception = 1.5", "stack.process.nests.exception: must be a whole number"),
        ('from_kernel = "hardirq"', 'from_kernel = "hardirqs"', "interrupt #1.from_kernel: 'hardirqs' is none of process, hardirq, interrupted; did you mean 'hardirq'?"),
        ('from_user = "process"\n', "", "interrupt #1.from_user: missing"),
        ('kind = "device"', 'kind = "devices"', "did you mean 'device'?"),
        ("[[interrupt]]", "[interrupt]", "interrupt: must be written as [[interrupt]]"),
        ("[stack.hardirq]", "[stack.interrupted]", "stack.interrupted: the name is reserved"),
        ("[stack.hardirq]", '[stack."a b"]', "stack.a b: 'a b' is not a name"),
        ("[[interrupt]]", '[stack.idle]\nper = "cpu"\nsize = 64\nallocation = "static"\n[[interrupt]]', "stack.idle: nothing runs on it"),
        ("[stack.hardirq]", '[stack.process.source]\nmapped = "x"\n[stack.hardirq]', "stack.process.source.mapped: a source for a number that the stack does not state"),
        ("[stack.hardirq]", '[stack.process.source]\nsiz = "x"\n[stack.hardirq]', "stack.process.source.siz: unknown key; did you mean 'size'?"),
    ],
)  # fmt: skip
def test_wrong_value(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert SMALL.count(old) >= 1
    assert message in refusal(tmp_path, SMALL.replace(old, new, 1))


def test_interrupt_twice(tmp_path: Path) -> None:
    again = '[[interrupt]]\nkind = "device"\nfrom_kernel = "process"\nfrom_user = "process"\n'
    assert refusal(tmp_path, SMALL + again) == "interrupt #2.kind: 'device' is already interrupt #1"


def test_x86_64_words_are_eight_bytes(tmp_path: Path) -> None:
    text = SMALL.replace('name = "small"', 'name = "small"\nmachine = "x86_64"')
    assert "reserve_base: 52 is not a multiple of the 8-byte word" in refusal(tmp_path, text)


def test_no_stack(tmp_path: Path) -> None:
    assert "at least one [stack.NAME]" in refusal(tmp_path, 'name = "n"\n')
    assert refusal(tmp_path, 'name = "n"\nstack = 3\n') == "stack: must be a table"
    assert refusal(tmp_path, 'name = "n"\n[stack]\nprocess = 3\n') == "stack.process: must be a table"


def test_no_toml(tmp_path: Path) -> None:
    assert "not TOML" in refusal(tmp_path, "name = \n")
    assert "not TOML" in refusal(tmp_path, "x = " + "[" * 100_000)
    assert "not TOML" in refusal(tmp_path, "x = " + "9" * 100_000)
    assert "larger than the 1 MiB" in refusal(tmp_path, "#" * ((1 << 20) + 1))
    (tmp_path / "layout.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(InputError, match="at offset 0x8: not UTF-8 text"):
        load_layout(tmp_path / "layout.toml")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_layout(tmp_path / "absent.toml")
    with pytest.raises(InputError, match="not a regular file"):
        load_layout(tmp_path)
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(InputError, match="not a regular file"):
        load_layout(tmp_path / "pipe.toml")
    with pytest.raises(
        InputError, match=r"neither a file nor a layout preset .* did you mean 'linux-i386'\?"
    ):
        load_layout("linux-i368")
    for text in ("a\0b", "a\nb", "x" * 5000, "a\0b.toml", ""):
        with pytest.raises(InputError) as caught:
            load_layout(text)
        assert "\n" not in str(caught.value) and "\0" not in str(caught.value)


def test_a_name_in_the_directory_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    assert load_layout("mine").name == "small"


# ---- any dictionary: a layout that keeps its promises, or one line

TEXTS = st.one_of(
    st.sampled_from(
        [
            *CONTEXT_KINDS,
            *INTERRUPT_CONTEXTS,
            "process",
            "cpu",
            "contiguous",
            "dynamic",
            "irq",
            "i386",
            INTERRUPTED,
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
VALUES = st.recursive(
    st.one_of(
        st.booleans(), st.integers(-5, 2**40), st.sampled_from([0, 4, 8, 4096, 16384]), st.floats(0, 9), TEXTS
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(st.sampled_from([*NUMBERS, "runs", "nests", "source", "per", "kind"]), TEXTS),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


def mutate(data: Any, draw: Any) -> None:
    """Replace, drop or add one value somewhere in the tree."""
    holder = data
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = draw(st.sampled_from(keys)) if keys else None
        if key is not None and isinstance(holder[key], dict | list) and draw(st.booleans()):
            holder = holder[key]
            continue
        break
    action = draw(st.sampled_from(["replace", "drop", "add"]))
    if action == "replace" and key is not None:
        holder[key] = draw(VALUES)
    elif action == "drop" and key is not None:
        del holder[key]
    elif isinstance(holder, dict):
        holder[draw(TEXTS)] = draw(VALUES)
    else:
        holder.append(draw(VALUES))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_change_is_a_layout_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(X86_PRESETS)))
    tree = copy.deepcopy(tomllib.loads((PRESETS / f"{name}.toml").read_text()))
    for _ in range(data.draw(st.integers(1, 3))):
        mutate(tree, data.draw)
    check(tmp_path_factory, document(tree))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.one_of(st.sampled_from(["name", "stack", "interrupt", "extends"]), TEXTS), VALUES))
def test_any_dictionary_is_a_layout_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any]
) -> None:
    check(tmp_path_factory, document(tree))


def check(factory: pytest.TempPathFactory, text: str) -> None:
    path = write(factory.getbasetemp(), text)
    tomllib.loads(text)  # the writer above is right, so a refusal is the loader's
    try:
        layout: Layout = load_layout(path)
    except InputError as error:
        assert "\n" not in str(error)
        assert "not TOML" not in str(error)
        return
    names = {stack.name for stack in layout.stacks}
    assert names
    for stack in layout.stacks:
        assert 0 < stack.usable <= stack.size
        assert set(stack.runs) | set(stack.entry) | set(stack.nests) <= set(CONTEXT_KINDS)
        assert (stack.mapped is not None) == (stack.allocation == "dynamic")
        assert layout.starts(stack.name) or stack.entry
    for line in layout.interrupts:
        assert {line.from_kernel, line.from_user} <= names | {INTERRUPTED}


# ---- the reference


def test_the_documents_examples_load(tmp_path: Path) -> None:
    document = Path(__file__).parents[2] / "docs" / "layouts.md"
    examples = [part.split("```")[0] for part in document.read_text().split("```toml\n")[1:]]
    layouts = [load_layout(write(tmp_path, example)) for example in examples]
    assert [layout.name for layout in layouts] == ["board-4k", "half"]
    assert layouts[0].stack("process").usable == 4084
    assert layouts[0].target("nmi", user=False) == INTERRUPTED


def test_the_document_names_every_preset_and_kind() -> None:
    text = (Path(__file__).parents[2] / "docs" / "layouts.md").read_text()
    for word in (*INTERRUPT_CONTEXTS, *CONTEXT_KINDS, *NUMBERS):
        assert f"`{word}`" in text
    for name in preset_names():
        assert f"`{name}`" in text or f"`{name.removeprefix('linux-x86_64')}`" in text


def test_two_priorities_of_one_handler_are_refused(tmp_path: Path) -> None:
    def text(second: int) -> str:
        rows = "".join(f'[[isr]]\nname = "SysTick"\npriority = {one}\n' for one in (1, second))
        return f'name = "mine"\nextends = "cortex-m"\n{rows}'

    assert refusal(tmp_path, text(2)) == "isr #2.priority: 'SysTick' already has priority 1"
    assert load_layout(write(tmp_path, text(1))).handlers[0].priority == 1

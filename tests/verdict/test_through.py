"""The worst chain through a module or function, on the sample kernel and its stripped module."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackfit.analysis import Analysis, analyse
from stackfit.image.model import InputError

SAMPLE = Path(__file__).resolve().parents[2] / "fixtures" / "sample" / "bin" / "x86_64"


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyse([SAMPLE / "vmlinux"], [SAMPLE / "vendor_blob.ko"])


def names(analysis: Analysis, functions: tuple[int, ...]) -> list[str]:
    return [analysis.code.functions.names[function] for function in functions]


def test_a_module_that_is_called_through_pointers_only_says_so_and_gives_what_is_left(
    analysis: Analysis,
) -> None:
    result = analysis.through("vendor_blob")
    assert result.callers == 0
    assert result.own.upper == result.own.found == sum(link.depth for link in result.own.chain)
    assert result.own_frames == 528  # the packet buffer's function (fixtures/sample/expected.toml)
    for one in result.stacks:
        assert (one.need, one.context, one.path) == (None, None, ())
        verdict = next(need for need in analysis.verdicts[0].stacks if need.stack.name == one.stack.name)
        nested = sum(part.total for part in verdict.parts if "nested" in part.name)
        assert (
            one.room
            == one.stack.size - one.stack.reserve_base - one.stack.reserve_top - nested - result.own.upper
        )


def test_a_function_on_the_worst_chain_needs_what_the_stack_needs(analysis: Analysis) -> None:
    process = analysis.verdicts[0].stacks[0]
    assert process.chain is not None
    for link in process.chain.chain:
        name = analysis.code.functions.names[link.function]
        if len(analysis.code.functions.named(name)) == 1:
            one = analysis.through(name).stacks[0]
            assert one.need == process.direct, name
            assert name in names(analysis, one.path)


def test_the_path_leads_from_the_entry_to_the_function(analysis: Analysis) -> None:
    (one,) = [one for one in analysis.through("vfs_write").stacks if one.stack.name == "process"]
    assert one.context is not None and (one.context.kind, one.context.name) == ("syscall", "write")
    assert names(analysis, one.path) == [
        "do_syscall_64", "x64_sys_call", "__x64_sys_write", "ksys_write", "vfs_write",
    ]  # fmt: skip
    assert one.need is not None and one.need == one.found


def test_no_chain_leads_to_a_function_that_only_pointers_reach(analysis: Analysis) -> None:
    result = analysis.through("ram_write")
    assert result.own.upper >= 608  # the chain to the disk
    assert {one.need for one in result.stacks} == {None}


def test_a_name_that_is_not_there_is_refused_with_those_near(analysis: Analysis) -> None:
    with pytest.raises(InputError, match=r"no module or function vendor_blub \(near: vendor_blob"):
        analysis.through("vendor_blub")

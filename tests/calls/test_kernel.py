"""Candidates of indirect calls on Debian's amd64 kernel: how many sites have some, and whether a running
kernel called anything else."""

from __future__ import annotations

import csv
import lzma
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stackfit.analysis import Analysis, analyse
from stackfit.calls.model import CallKind, Reason, Rung
from stackfit.calls.paravirt import Hypervisor
from stackfit.image.model import InputError

RECORDINGS = Path(__file__).resolve().parents[2] / "fixtures" / "recordings" / "calledges-amd64"
# Rungs that tell a place by its type, or better.
TYPED = (Rung.CONSTANT, Rung.GLOBAL, Rung.FIELD, Rung.CONTAINER, Rung.PARAMETER, Rung.LIST, Rung.SIGNATURE)


@pytest.fixture(scope="module")
def kernel(amd64_kernel: Any) -> Analysis:
    return analyse([amd64_kernel.vmlinuz])


@pytest.fixture(scope="module", params=["without debug information", "with debug information"])
def recorded(request: pytest.FixtureRequest, amd64_recorded_kernel: Any) -> Analysis:
    debug = request.param == "with debug information" and request.getfixturevalue("amd64_recorded_vmlinux")
    return analyse(
        [amd64_recorded_kernel.vmlinuz], modules=[amd64_recorded_kernel.modules], debug=debug or None
    )


def own_sites(analysis: Analysis) -> np.ndarray[Any, Any]:
    """Indirect sites but those of paravirt operations, tracepoints and thunks."""
    calls, names = analysis.calls, analysis.code.functions.names
    sites = np.flatnonzero(
        np.isin(calls.kind, (CallKind.INDIRECT, CallKind.INDIRECT_TAIL)) & (calls.rung != Rung.PARAVIRT)
    )
    other = ("__traceiter_", "__x86_indirect_thunk")
    return np.array([site for site in sites if not names[calls.function[site]].startswith(other)])


def candidates(analysis: Analysis, function: str) -> set[str]:
    """What the indirect sites of a function may call."""
    calls, functions = analysis.calls, analysis.code.functions
    (index,) = functions.named(function)
    found = set[str]()
    for site in own_sites(analysis).tolist():
        if calls.function[site] == index and calls.candidates[site] >= 0:
            found.update(functions.names[one] for one in calls.candidate_sets[calls.candidates[site]])
    return found


@pytest.mark.kernel
def test_most_sites_have_a_type_and_few_candidates_without_debug_information(kernel: Analysis) -> None:
    sites = own_sites(kernel)
    rung = kernel.calls.rung[sites]
    named = (Rung.CONSTANT, Rung.GLOBAL, Rung.FIELD, Rung.PARAMETER, Rung.LIST)
    assert np.isin(rung, TYPED).mean() >= 0.72
    assert np.isin(rung, named).mean() >= 0.60
    sets = kernel.calls.candidates[sites[np.isin(rung, named)]]
    sizes = [len(kernel.calls.candidate_sets[index]) for index in sets[sets >= 0].tolist()]
    assert np.median(sizes) <= 4
    assert np.mean(sizes) <= 10  # functions that go where nothing is known add to it


@pytest.mark.kernel
@pytest.mark.parametrize(("arch", "share", "most"), [("amd64", 0.86, 10), ("i386", 0.85, 12)])
def test_nearly_all_sites_have_a_place_with_debug_information(
    arch: str, share: float, most: int, request: pytest.FixtureRequest
) -> None:
    files = request.getfixturevalue(f"{arch}_kernel")
    analysis = analyse([files.vmlinuz], debug=request.getfixturevalue(f"{arch}_vmlinux"))
    sites = own_sites(analysis)
    rung = analysis.calls.rung[sites]
    named = (Rung.CONSTANT, Rung.GLOBAL, Rung.FIELD, Rung.PARAMETER, Rung.LIST)
    assert np.isin(rung, TYPED).mean() >= 0.90
    assert np.isin(rung, named).mean() >= share
    sets = analysis.calls.candidates[sites[np.isin(rung, named)]]
    sizes = [len(analysis.calls.candidate_sets[index]) for index in sets[sets >= 0].tolist()]
    assert np.median(sizes) <= 5 and np.mean(sizes) <= most
    assert {"shmem_rmdir", "bad_inode_rmdir"} <= candidates(analysis, "vfs_rmdir")
    assert {"delayed_work_timer_fn", "process_timeout"} <= candidates(analysis, "call_timer_fn")
    assert len(candidates(analysis, "security_file_open")) <= 8


@pytest.mark.kernel
def test_no_site_is_without_candidates_and_without_a_reason(kernel: Analysis) -> None:
    calls = kernel.calls
    silent = (calls.candidates < 0) & (calls.reason == Reason.NONE) & (calls.assumption < 0)
    assert not silent.any()
    assert not any(len(members) == 0 for members in calls.candidate_sets)


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("function", "some"),
    [
        ("vfs_rmdir", {"ext4_rmdir", "shmem_rmdir"}),  # a field, filled by constant structs
        ("security_file_open", {"apparmor_file_open", "selinux_file_open"}),  # a list of hooks
        (
            "__handle_irq_event_percpu",
            {"serial8250_interrupt", "acpi_irq"},
        ),  # a field, filled by request_irq()
        ("call_timer_fn", {"delayed_work_timer_fn", "process_timeout"}),  # a parameter
        ("dev_attr_show", {"uevent_show"}),  # container_of() an attribute
    ],
)
def test_well_known_calls_have_their_callees(kernel: Analysis, function: str, some: set[str]) -> None:
    assert some <= candidates(kernel, function)


@pytest.mark.kernel
def test_hooks_are_told_apart_by_their_list(kernel: Analysis) -> None:
    found = candidates(kernel, "security_file_open")
    assert len(found) <= 8
    assert {name for name in found if not name.endswith("_file_open")} == set()


def places(analysis: Analysis, texts: Iterable[str]) -> dict[str, int]:
    """Link addresses of places in a recording: `0x…`, or `MODULE:SECTION+0x…`."""
    sections = {
        (str(image.module).replace("-", "_"), section.name): section.address
        for image in analysis.program.images[1:]
        for section in image.sections
        if section.allocated
    }
    found = {}
    for text in texts:
        if text.startswith("0x"):
            found[text] = int(text, 16)
        else:
            module, _, rest = text.partition(":")
            section, _, offset = rest.rpartition("+")
            found[text] = sections[module.replace("-", "_"), section] + int(offset, 16)
    return found


@pytest.mark.kernel
@pytest.mark.parametrize("workload", ["development", "judgement"])
def test_a_running_kernel_called_nothing_else(recorded: Analysis, workload: str) -> None:
    """Recorded call edges: at sites that are not open the callee is a candidate, or behind its tail jumps."""
    calls, functions = recorded.calls, recorded.code.functions
    with lzma.open(RECORDINGS / f"{workload}.csv.xz", "rt") as file:
        pairs = [(row["return_address"], row["callee"]) for row in csv.DictReader(file)]
    at = places(recorded, {text for pair in pairs for text in pair})
    sites = defaultdict[int, list[int]](list)
    for site in np.flatnonzero(calls.return_address).tolist():
        sites[int(calls.return_address[site])].append(site)
    onward, leaks = defaultdict[int, set[int]](set), set[int]()
    for site in np.flatnonzero(calls.tail).tolist():
        if calls.candidates[site] >= 0:
            onward[int(calls.function[site])].update(calls.candidate_sets[calls.candidates[site]])
        if calls.reason[site]:
            leaks.add(int(calls.function[site]))

    def reached(site: int) -> tuple[set[int], bool]:
        """Functions that are entered with the site's return address; whether others may be too."""
        index = int(calls.candidates[site])
        work = list(calls.candidate_sets[index]) if index >= 0 else []
        seen, leak = set(work), bool(calls.reason[site])
        while work:
            function = work.pop()
            leak |= function in leaks
            new = onward[function] - seen
            seen |= new
            work.extend(new)
        return seen, leak

    hit, missed, opened = (
        defaultdict[str, int](int),
        defaultdict[str, list[str]](list),
        defaultdict[str, int](int),
    )
    for return_address, callee in pairs:
        # A patched paravirt call is a byte shorter than the one in the image.
        here = sites.get(at[return_address]) or sites.get(at[return_address] + 1)
        assert here is not None, return_address
        function = functions.at(at[callee])
        indirect = any(calls.kind[site] == CallKind.INDIRECT for site in here)
        kind = "indirect" if indirect else "direct"
        found = [reached(site) for site in here]
        if any(function in seen for seen, _ in found):
            hit[kind] += 1
        elif any(leak for _, leak in found):
            opened[kind] += 1
        else:
            missed[kind].append(f"{return_address} → {functions.names[function]}")
    print(workload, recorded.debug is not None, dict(hit), dict(opened), dict(missed))
    for kind, share in (("direct", 0.995), ("indirect", 0.999)):
        assert hit[kind] / (hit[kind] + len(missed[kind])) >= share, missed[kind][:20]
    # Not known without debug information: no more than measured.
    most = 0.29 if recorded.debug is None else 0.10
    assert opened["indirect"] / (hit["indirect"] + opened["indirect"]) <= most


ENTRY = 'reason = "a test"\nsource = "fs/namei.c:vfs_rmdir"\n'


@pytest.mark.kernel
def test_candidates_of_a_field_replace_those_found(amd64_kernel: Any, tmp_path: Path) -> None:
    given = tmp_path / "given.toml"
    given.write_text(
        'name = "given"\n[[candidates]]\nfield = "struct inode_operations.rmdir"\n'
        f'functions = ["ext4_rmdir"]\n{ENTRY}'
        '[[candidates]]\nfunction = "vfs_rmdir"\nfunctions = ["shmem_rmdir"]\n' + ENTRY
    )
    analysis = analyse([amd64_kernel.vmlinuz], assumptions=[given])
    assert candidates(analysis, "vfs_rmdir") & {"ext4_rmdir", "shmem_rmdir"} == {"ext4_rmdir"}


@pytest.mark.kernel
def test_a_field_that_no_call_goes_through_is_an_error_that_suggests_one(
    amd64_kernel: Any, tmp_path: Path
) -> None:
    given = tmp_path / "given.toml"
    given.write_text(
        'name = "given"\n[[candidates]]\nfield = "struct inode_operations.rmdirr"\n'
        f'functions = ["ext4_rmdir"]\n{ENTRY}'
    )
    with pytest.raises(InputError, match=r"no field .*rmdirr \(near: struct inode_operations\.rmdir"):
        analyse([amd64_kernel.vmlinuz], assumptions=[given])


@pytest.mark.kernel
def test_code_that_is_in_no_image_is_assumed_by_names_that_can_be_left_out(
    kernel: Analysis, amd64_kernel: Any
) -> None:
    names = ("tracing-off", "no-probes", "bpf-verified")
    bare = analyse([amd64_kernel.vmlinuz], without=names)
    calls, functions = kernel.calls, kernel.code.functions
    told = {
        name: np.flatnonzero([number in numbers for number in calls.assumption.tolist()])
        for name in names
        if (numbers := {n for n, text in enumerate(calls.assumptions) if text.startswith(f"{name}: ")})
    }
    assert set(told) == set(names)
    for sites in told.values():
        assert not calls.open[sites].any() and (calls.rung[sites] == Rung.ANNOTATION).all()
    iterators = [index for index, name in enumerate(functions.names) if name.startswith("__traceiter_")]
    assert set(calls.function[told["tracing-off"]].tolist()) == set(iterators)
    assert (calls.candidates[told["tracing-off"]] == -1).all()
    assert bare.calls.open[np.isin(bare.calls.function, iterators)].any() and not bare.calls.assumptions
    # A program's own bytes count in the frame of its caller, and above the helpers that it calls.
    caller = functions.named("bpf_dispatcher_nop_func")[0]
    (site,) = np.flatnonzero((calls.function == caller) & (calls.charge > 0)).tolist()
    below = int(calls.depth[site] + calls.charge[site])
    assert kernel.applied.limits.frame[caller] >= below > bare.applied.limits.frame[caller]
    helper = functions.named("bpf_map_lookup_elem")
    edges = kernel.edges
    of_site = np.flatnonzero(edges.site == site)
    assert set(helper) & set(edges.callee[of_site].tolist())
    word = kernel.code.machine.word if calls.tail[site] else 0
    assert set(edges.weight[of_site].tolist()) == {below - word}
    process = kernel.verdicts[0].stacks[0]
    assert {text.split(": ")[0] for text in process.assumed} >= set(names)
    assert process.open.total < bare.verdicts[0].stacks[0].open.total


@pytest.mark.kernel
def test_a_guest_calls_what_its_hypervisor_puts_into_pv_ops(kernel: Analysis, amd64_kernel: Any) -> None:
    guest = analyse([amd64_kernel.vmlinuz], hypervisor=Hypervisor.ANY)

    def reached(analysis: Analysis) -> set[str]:
        calls, names = analysis.calls, analysis.code.functions.names
        sets = np.unique(calls.candidates[calls.rung == Rung.PARAVIRT])
        return {names[one] for number in sets[sets >= 0].tolist() for one in calls.candidate_sets[number]}

    native, any_guest = reached(kernel), reached(guest)
    assert native < any_guest and not {name for name in native if name.startswith(("kvm_", "xen_", "hv_"))}
    # Stored by name, in a table that is copied, behind a void pointer of such a table.
    assert {"kvm_flush_tlb_multi", "hyperv_flush_tlb_multi", "xen_read_msr"} <= any_guest
    assert any(name.startswith("__raw_callee_save_xen_") for name in any_guest)
    sites = guest.calls.rung == Rung.PARAVIRT
    assert sites.sum() == (kernel.calls.rung == Rung.PARAVIRT).sum() and not guest.calls.open[sites].any()
    assert any(text.startswith("hypervisor: ") for text in guest.verdicts[0].stacks[0].assumed)

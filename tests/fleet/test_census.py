"""A census of many hosts: sums that hold whatever a file leaves out, files that are refused, and who reads
them."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from statistics import median_low
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jsonschema
import numpy as np
import pytest

from stackfit.cli.main import main
from stackfit.fleet import estimate
from stackfit.fleet.census import grown_bytes
from stackfit.fleet.hosts import HostRows
from stackfit.layouts import load_layout
from stackfit.measure.census import LIMITS, census_rows, csv_bytes, parquet_bytes
from stackfit.measure.model import Mark

pytestmark = pytest.mark.slow  # nothing here is about the hot modules: once is enough

pyarrow = pytest.importorskip("pyarrow", reason="the extra fleet is not installed")
pytest.importorskip("fsspec", reason="the extra fleet is not installed")
pytest.importorskip("scipy", reason="the extra fleet is not installed")

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "schemas" / "stackfit.fleet-census-1.json"
KIB = 1024


def marks_of(seed: int, size: int = 16 * KIB) -> list[Mark]:
    """A host: some tasks, two CPUs."""
    chance = random.Random(seed)
    marks = [
        Mark("process", f"{name} ({pid})", min(depth, size - 8), size, kind, name)
        for pid in range(chance.randint(5, 40))
        for depth in [int(chance.lognormvariate(7.6, 0.6))]
        for name, kind in [chance.choice([("bash", "user"), ("nginx", "user"), ("kswapd0", "kthread")])]
    ]
    irq = "irq" if size == 16 * KIB else "hardirq"
    return marks + [Mark(irq, f"CPU {cpu}", chance.randint(400, 3000), size, "cpu") for cpu in range(2)]


def host(seed: int, size: int = 16 * KIB) -> bytes:
    machine = "x86_64" if size == 16 * KIB else "i386"
    rows = census_rows(marks_of(seed, size), machine, f"linux-{machine}", f"6.1.0-{seed % 2}", "ab")
    return parquet_bytes(rows) if seed % 3 else csv_bytes(rows)


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    """Forty hosts, eight of them i386; and a file that is no census."""
    directory = tmp_path / "hosts"
    (directory / "more").mkdir(parents=True)
    for seed in range(40):
        name = f"host{seed:02}.{'parquet' if seed % 3 else 'csv'}"
        place = directory / "more" if seed > 30 else directory
        (place / name).write_bytes(host(seed, 8 * KIB if seed % 5 == 0 else 16 * KIB))
    (directory / "notes.txt").write_text("not a census", encoding="ascii")
    return directory


def valid(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(document)
    return dict(document)


def census(*words: str, to: Path, status: int = 0) -> dict[str, Any]:
    assert main(["fleet", "census", *words, "--workers", "0", "--json", str(to)]) == status
    return valid(to)


def test_sums_are_those_of_the_marks(hosts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = census(str(hosts), to=tmp_path / "out.json")
    out, err = capsys.readouterr()
    assert not err and "40 hosts" in out and "0 of 8: at most" in out
    marks = {seed: marks_of(seed, 8 * KIB if seed % 5 == 0 else 16 * KIB) for seed in range(40)}
    tasks = {seed: [one for one in found if one.stack == "process"] for seed, found in marks.items()}
    large = [one for seed, found in tasks.items() if seed % 5 for one in found]
    (every,) = [one for one in document["kernels"] if one["machine"] == "x86_64" and one["release"] is None]
    assert every["hosts"] == 32 and every["tasks"] == len(large)
    for limit, row in zip(LIMITS, every["at_most"], strict=True):
        count = sum(one.bytes <= limit for one in large)
        assert row["bytes"] == limit and row["tasks"] == [count, count]
        if count < len(large):
            assert row["share_interval"][0] < count / len(large) < row["share_interval"][1]
        else:
            assert row["share_interval"] is None, "that all were so does not say that all will be"
    saving = {one["layout"]: one for one in document["savings"]}
    eight = saving["linux-x86_64-8k"]
    assert eight["saved"] == [8 * KIB * len(large)] * 2 and eight["per_cpu"] == 0
    assert eight["saved_interval"][0] < eight["saved"][0] < eight["saved_interval"][1]
    limit = 8 * KIB - 8
    assert eight["deeper"][0] <= sum(one.bytes > limit for one in large) <= eight["deeper"][1]
    deep = sum(any(one.bytes > limit for one in found) for seed, found in tasks.items() if seed % 5)
    assert eight["deeper_hosts"]["seen"] == deep and eight["deeper_hosts"]["of"] == 32
    grown = sum(max(-(-one.bytes // 4096), 1) * 4096 for one in large)
    assert saving["linux-x86_64-dynamic"]["then"][0] <= grown <= saving["linux-x86_64-dynamic"]["then"][1]
    assert saving["linux-2.6-4k"]["hosts"] == 8 and saving["linux-x86_64"]["saved"] == [0, 0]
    of_cpus = [
        sum(stack.size for stack in load_layout(name).stacks if stack.per == "cpu")
        for name in ("linux-i386", "linux-2.6-4k")
    ]
    assert saving["linux-2.6-4k"]["per_cpu"] == 8 * 2 * (of_cpus[0] - of_cpus[1]), "8 hosts of 2 CPUs"
    greatest = [row["greatest"] for row in document["tasks"]]
    assert greatest == sorted(greatest, reverse=True)
    assert greatest[0] == max(one.bytes for found in marks.values() for one in found)
    room = [row["headroom"] for row in document["closest"]]
    assert room == sorted(room) and room[0] == min(row["headroom"] for row in document["tasks"])
    assert {row["name"] for row in document["tasks"]} == {"bash", "nginx", "kswapd#", ""}
    assert sum(row["stacks"] for row in document["tasks"]) == sum(map(len, marks.values()))
    for chance in document["chances"]:
        assert chance["hosts"]["seen"] == 0 and chance["hosts"]["high"] > 0, "not seen is not zero"


def test_files_of_before_give_limits(hosts: Path, tmp_path: Path) -> None:
    exact = census(str(hosts), to=tmp_path / "exact.json")
    parquet = pytest.importorskip("pyarrow.parquet")
    for path in hosts.rglob("*.parquet"):
        table = parquet.read_table(path)
        names = [name for name in table.column_names if "at_most" not in name]
        parquet.write_table(table.select(names), path)
    wide = census(str(hosts), to=tmp_path / "wide.json")
    assert [row["stacks"] for row in wide["tasks"]] == [row["stacks"] for row in exact["tasks"]]
    for before, after in zip(exact["kernels"], wide["kernels"], strict=True):
        for known, limits in zip(before["at_most"], after["at_most"], strict=True):
            assert limits["tasks"][0] <= known["tasks"][0] <= limits["tasks"][1]
    assert wide["kernels"] != exact["kernels"]


@hypothesis.given(st.lists(st.lists(st.integers(0, 16384), min_size=1, max_size=9), min_size=1, max_size=5))
def test_limits_hold_the_truth(rows: list[list[int]]) -> None:
    numbers = [np.array([of(row) for row in rows]) for of in (len, max, median_low)]
    keys = tuple(("l", "process", 16384, "user", str(at)) for at in range(len(rows)))
    counts = np.array([[sum(mark <= limit for mark in row) for limit in LIMITS] for row in rows])
    for known in (None, counts):
        found = HostRows("h", "", ("", "", "x86_64"), keys, *numbers, known)
        for limit in (0, 1, 4044, 4096, 8184, 9000, 16384):
            low, high = found.at_most(limit)
            truth = [sum(mark <= limit for mark in row) for row in rows]
            assert (low <= truth).all() and (truth <= high).all()
            if known is not None and limit in LIMITS:
                assert low.tolist() == high.tolist() == truth
        low, high = grown_bytes(found, 4096, 16384)
        taken = [sum(max(-(-mark // 4096), 1) * 4096 for mark in row) for row in rows]
        assert (low <= taken).all() and (taken <= high).all()


def columns(**changed: Any) -> Any:
    """A table like that of one host, with some columns changed, added or (None) left out."""
    table = pyarrow.table(
        {
            "release": ["6.1"], "build_id": [""], "machine": ["x86_64"], "layout": ["linux-x86_64"],
            "stack": ["process"], "size": [16384], "kind": ["user"], "name": ["a"], "stacks": [3],
            "greatest": [900], "median": [500],
        }
    )  # fmt: skip
    for name, values in changed.items():
        at = table.column_names.index(name) if name in table.column_names else None
        if values is None:
            table = table.remove_column(at)
        elif at is None:
            table = table.append_column(name, pyarrow.array(values))
        else:
            table = table.set_column(at, name, pyarrow.array(values))
    return table


BAD = {
    "truncated": (host(1)[:700], "damaged"),
    "text": (b"no census at all", "not Parquet at offset 0x0"),
    "empty": (b"", "the file is empty"),
    "missing": (columns(kind=None, stack=None), "no column stack, kind"),
    "floats": (columns(size=[16384.0]), "column size: double, not whole numbers"),
    "nan": (columns(greatest=[float("nan")]), "column greatest: double"),
    "null": (columns(name=pyarrow.array([None], pyarrow.string())), "row 1: name: nothing there"),
    "number": (columns(name=[7]), "column name: int64, not text"),
    "bytes": (
        columns(name=pyarrow.array([b"\xff"], pyarrow.binary()).view(pyarrow.utf8())),
        "column name: not UTF-8 text",
    ),
    "unsigned": (
        columns(greatest=pyarrow.array([2**64 - 1], pyarrow.uint64())),
        "row 1: greatest is above the stack's size",
    ),
    "negative": (columns(stacks=[-1]), "row 1: stacks is not between"),
    "deeper": (columns(greatest=[20000]), "row 1: greatest is above the stack's size"),
    "median": (columns(median=[901]), "row 1: median is not between 0 and greatest"),
    "machine": (columns(machine=["vax"]), "row 1: machine is none of"),
    "kind": (columns(kind=["\x1b[2J"]), "row 1: kind is none of"),
    "counts": (
        columns(at_most_4096=[2], at_most_8192=[3], at_most_16384=[3]),
        "row 1: at_most_4096 contradicts",
    ),
    "twice": (pyarrow.concat_tables([columns()] * 2), "the same task twice"),
    "kernels": (pyarrow.concat_tables([columns(), columns(release=["6.2"])]), "rows of 2 kernels"),
}


def test_a_bad_file_is_said_and_left_out(
    hosts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = census(str(hosts), to=tmp_path / "good.json")
    parquet = pytest.importorskip("pyarrow.parquet")
    for name, (content, _) in BAD.items():
        path = hosts / f"{name}.parquet"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            parquet.write_table(content, path)
    capsys.readouterr()
    found = census(str(hosts), to=tmp_path / "found.json", status=3)
    err = capsys.readouterr().err
    assert err.count("\n") == err.count("stackfit: left out: ") == len(BAD) and "\x1b" not in err
    said = {one["file"]: one["cause"] for one in found["skipped"]}
    for name, (_, cause) in BAD.items():
        assert cause in said[f"{name}.parquet"], name
    assert {**found, "skipped": []} == good


def test_places_without_a_host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.csv").write_bytes(b"\xff\xfe")
    out = tmp_path / "out.json"
    for place, cause in {
        "empty": "no census files there (*.parquet, *.csv)",
        "none": "neither a file nor a directory",
        "*.parquet": "no census files there",
        "bad.csv": "neither Parquet nor UTF-8 text (and none of 1 files can be used)",
    }.items():
        assert main(["fleet", "census", str(tmp_path / place), "--json", str(out)]) == 2
        err = capsys.readouterr().err
        assert cause in err or cause.replace(" (", " at offset 0x0 (") in err
        assert err.count("\n") == 1 and not out.exists()
    assert main(["fleet", "census", "nosuch://host/path"]) == 2
    assert main(["fleet", "census", str(tmp_path), "--layout", "cortex-m"]) == 2
    err = capsys.readouterr().err
    assert "nosuch" in err and "no stack process" in err


def test_a_host_without_stacks(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet_bytes([]))
    (tmp_path / "b.csv").write_bytes(csv_bytes([]))
    found = census(str(tmp_path), to=tmp_path / "out.json")
    assert found["hosts"] == 2 and found["tasks"] == found["kernels"] == found["savings"] == []


def test_names_of_others_cannot_write_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marks = [Mark("process", "x", 900, 16384, "user", "\x1b]0;owned\x07\n[red]x")]
    rows = census_rows(marks, "x86_64", "\x1b[31mmine", "\x1b[2J", "")
    (tmp_path / "\x1b[1mhost.csv").write_bytes(csv_bytes(rows))
    found = census(str(tmp_path), to=tmp_path / "out.json")
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\x07" not in out and "\\x1b]0;owned\\x07\\n[red]x" in out
    assert found["unknown_layouts"] == ["\x1b[31mmine"] and found["tasks"][0]["limit"] == 16384
    assert {one["per_cpu"] for one in found["savings"]} == {None}


def test_any_file_system_and_any_process_gives_the_same(hosts: Path, tmp_path: Path, cluster: Any) -> None:
    fsspec = pytest.importorskip("fsspec")
    here = tmp_path / "here.json"
    base = census(str(hosts), to=here)
    memory = fsspec.filesystem("memory")
    for path in hosts.rglob("*.*"):
        memory.pipe(f"/fleet/{path.relative_to(hosts)}", path.read_bytes())
    try:
        found = census("memory://fleet", to=tmp_path / "memory.json")
    finally:
        memory.rm("/fleet", recursive=True)
    assert {**found, "places": []} == {**base, "places": []}
    there = tmp_path / "there.json"
    command = ["fleet", "census", str(hosts), "--json", str(there)]
    assert main([*command, "--scheduler", cluster.scheduler_address]) == 0
    assert there.read_bytes() == here.read_bytes()
    command[2] = hosts.as_uri()
    assert main([*command, "--scheduler", cluster.scheduler_address]) == 0
    assert {**valid(there), "places": []} == {**base, "places": []}


def test_local_workers_of_which_one_is_killed(
    hosts: Path,
    tmp_path: Path,
    killer: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`--workers 2`, and a process of them killed while it has work: the same bytes, and silence."""
    cluster = pytest.importorskip("stackfit.fleet.cluster")
    here, there = tmp_path / "here.json", tmp_path / "there.json"
    census(str(hosts), to=here)
    killed = []

    @contextlib.contextmanager
    def watched(workers: int) -> Iterator[Any]:
        with local_cluster(workers) as found:
            hand = killer(found)
            hand.start()
            yield found
            hand.join(1)
            killed.append(hand.killed)
            addresses = {one.address for one in found.scheduler.workers.values()}
            assert all(address.startswith("tls://127.0.0.1:") for address in addresses)

    local_cluster = cluster.local_cluster
    monkeypatch.setattr(cluster, "local_cluster", watched)
    capsys.readouterr()
    assert main(["fleet", "census", str(hosts), "--json", str(there), "--workers", "2"]) == 0
    assert killed[0] is not None
    assert there.read_bytes() == here.read_bytes()
    assert capsys.readouterr().err == ""


def test_chance_is_never_zero_for_what_was_not_seen() -> None:
    none = estimate.chance_of(0, 100)
    assert none is not None and none.low == 0
    assert none.high == pytest.approx(3 / 100, rel=0.02), "the rule of three"
    some = estimate.chance_of(1, 10)
    assert some is not None and (round(some.low, 4), round(some.high, 3)) == (0.0025, 0.445)
    every = estimate.chance_of(10, 10)
    assert every is not None and every.high == 1 and every.low == pytest.approx(0.05 ** (1 / 10))
    assert estimate.chance_of(0, 0) is None


def test_intervals_are_seeded_and_wider_for_few_hosts() -> None:
    values = np.array([[10], [20], [40], [80]], np.int64)
    sums = estimate.bootstrap_sums(values, 7)
    assert (sums == estimate.bootstrap_sums(values, 7)).all()
    assert (sums != estimate.bootstrap_sums(values, 8)).any()
    found = estimate.interval(sums[:, 0], sums[:, 0], 4)
    plain = np.quantile(sums[:, 0], [0.025, 0.975])
    assert found is not None and found[0] < plain[0] and found[1] > plain[1]
    assert estimate.interval(sums[:, 0], sums[:, 0], 1) is None

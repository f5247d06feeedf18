"""A host's marks by task name and kind, as a file."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path

import jsonschema
import pytest

from stackfit.cli.main import main
from stackfit.measure.census import census_rows, csv_bytes, parquet_bytes
from stackfit.measure.files import marks_traces_json, pack
from stackfit.measure.model import Mark

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "schemas" / "stackfit.census-1.json"


def thread(name: str, pid: int, size: int, kind: str = "kthread") -> Mark:
    return Mark("process", f"{name} ({pid})", size, 16384, kind, name, pid << 14)


MARKS = (
    thread("kworker/0:1-events", 7, 900),
    thread("kworker/1:2+mm_percpu_wq", 8, 1100),
    thread("kworker/0:1H", 9, 2000),
    thread("ksoftirqd/11", 10, 700),
    thread("jbd2/vda-8", 11, 800),
    thread("ipv6_addrconf", 12, 730),
    thread("kswapd0", 13, 820),
    thread("secret-letter", 99, 3000, "user"),
    thread("bash", 98, 2800, "user"),
    Mark("process", "0xffffc90000000000", 1500, 16384, "ended"),
    Mark("irq", "CPU 3", 2900, 16384, "cpu"),
    Mark("irq", "CPU 4", 2500, 16384, "cpu"),
)


def test_threads_of_one_name_are_one_row() -> None:
    rows = census_rows(MARKS, "x86_64", "linux-x86_64", "6.1.0", "ab")
    found = {(row.stack, row.kind, row.name): (row.stacks, row.greatest, row.median) for row in rows}
    assert found == {
        ("irq", "cpu", ""): (2, 2900, 2500),
        ("process", "ended", ""): (1, 1500, 1500),
        ("process", "kthread", "ipv6_addrconf"): (1, 730, 730),
        ("process", "kthread", "jbd2/vda-#"): (1, 800, 800),
        ("process", "kthread", "ksoftirqd/#"): (1, 700, 700),
        ("process", "kthread", "kswapd#"): (1, 820, 820),
        ("process", "kthread", "kworker/#:#"): (2, 1100, 900),
        ("process", "kthread", "kworker/#:#H"): (1, 2000, 2000),
        ("process", "user", "bash"): (1, 2800, 2800),
        ("process", "user", "secret-letter"): (1, 3000, 3000),
    }
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    for row in rows:
        jsonschema.Draft202012Validator(schema).validate(asdict(row))


def test_no_numbers_addresses_or_work_of_a_process_are_in_the_file() -> None:
    text = csv_bytes(census_rows(MARKS, "x86_64", "linux-x86_64")).decode()
    assert "99" not in text and "0xffff" not in text and "events" not in text and "CPU" not in text
    assert "secret-letter" not in csv_bytes(census_rows(MARKS, "x86_64", "l", user_names=False)).decode()


def test_parquet_has_the_rows_of_the_csv(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = census_rows(MARKS, "x86_64", "linux-x86_64", "6.1.0", "ab")
    table = parquet.read_table(io.BytesIO(parquet_bytes(rows)))
    assert table.to_pylist() == [asdict(row) for row in rows]
    assert parquet.read_table(io.BytesIO(parquet_bytes([]))).num_rows == 0


def test_census_of_a_traces_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    traces, out = tmp_path / "host.traces", tmp_path / "host.csv"
    traces.write_bytes(pack(marks_traces_json("x86_64", MARKS, "6.1.0", "ab")))
    assert main(["measure", "census", str(traces), "--output", str(out)]) == 0
    rows = list(csv.DictReader(out.open()))
    assert {row["layout"] for row in rows} == {"linux-x86_64"} and {row["release"] for row in rows} == {
        "6.1.0"
    }
    assert len(rows) == 10
    traces.write_bytes(pack(marks_traces_json("x86_64", ())))
    assert main(["measure", "census", str(traces), "--output", str(tmp_path / "none.csv")]) == 2
    assert "no marks in it" in capsys.readouterr().err
    assert not (tmp_path / "none.csv").exists()


def test_a_name_is_no_formula_in_a_spreadsheet() -> None:
    """A task names itself; Parquet has the name as it is."""
    (row,) = census_rows([thread("=cmd|' /C x'!A", 5, 100, "user")], "x86_64", "l")
    (_, read) = csv.reader(io.StringIO(csv_bytes([row]).decode()))
    assert read[7] == "'=cmd|' /C x'!A" and row.name == "=cmd|' /C x'!A"

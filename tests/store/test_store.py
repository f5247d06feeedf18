"""A database: what is in it is what check, frames and calls print; plain SQL reads it; damage is one line."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stackfit.analysis import Analysis, analyse
from stackfit.cli.main import main
from stackfit.image.model import InputError
from stackfit.report.json import calls_json, check_json, frames_json
from stackfit.store.read import is_database, read_database, snapshot
from stackfit.store.write import write_database

SAMPLE = Path(__file__).resolve().parents[2] / "fixtures" / "sample" / "bin"
KERNEL = SAMPLE / "x86_64" / "vmlinux"
LAYOUTS = {"x86_64": ["linux-x86_64", "linux-x86_64-4k"], "i386": ["linux-2.6-8k", "linux-2.6-4k"]}


@pytest.fixture(scope="module", params=sorted(LAYOUTS))
def analysis(request: pytest.FixtureRequest) -> Analysis:
    machine = request.param
    return analyse([SAMPLE / machine / "vmlinux"], [SAMPLE / machine / "vendor_blob.ko"], LAYOUTS[machine])


@pytest.fixture(scope="module")
def database(analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "analysis.db"
    write_database(analysis, path)
    return path


def query(path: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def address(value: int | None) -> int | None:
    """As the JSON has it: SQLite's integers have a sign."""
    return None if value is None else value % (1 << 64)


def test_references_lead_somewhere(database: Path) -> None:
    assert query(database, "PRAGMA foreign_key_check") == []
    assert query(database, "PRAGMA integrity_check") == [("ok",)]


def test_functions_are_those_of_frames(analysis: Analysis, database: Path) -> None:
    rows = query(
        database,
        "SELECT name, module, address, size, frame, compiler_frame, dynamic, reached, unreached, recursive"
        " FROM functions JOIN images USING (image) WHERE reached IS NOT NULL ORDER BY function",
    )
    wanted = frames_json(analysis)["functions"]
    assert [(row[0], row[1], address(row[2]), *row[3:9], bool(row[9])) for row in rows] == [
        (
            one["name"], one["module"], one["address"], one["size"], one["frame"], one["compiler_frame"],
            one["dynamic"], one["reached"], one["unreached"], one["recursive"],
        )
        for one in wanted
    ]  # fmt: skip


def test_sites_are_those_of_calls(analysis: Analysis, database: Path) -> None:
    document = calls_json(analysis)
    rows = query(
        database,
        "SELECT f.name, s.address, s.return_address, s.depth, s.kind, s.rung, s.evidence,"
        " s.reason IS NOT NULL FROM sites s JOIN functions f USING (function) ORDER BY site",
    )
    assert [(row[0], address(row[1]), address(row[2]), *row[3:7], bool(row[7])) for row in rows] == [
        (
            one["function"], one["address"], one["return_address"], one["depth"], one["kind"], one["rung"],
            one["evidence"], one["open"],
        )
        for one in document["sites"]
    ]  # fmt: skip
    edges = query(database, "SELECT count(*) FROM edges")[0][0]
    sets = document["candidate_sets"]
    assert edges == sum(
        len(sets[one["candidates"]]) for one in document["sites"] if one["candidates"] is not None
    )
    opened = query(database, "SELECT count(*) FROM open_sites")[0][0]
    assert opened == sum(one["open"] for one in document["sites"])


def test_stacks_and_contexts_are_those_of_check(analysis: Analysis, database: Path) -> None:
    document = check_json(analysis)
    rows = query(
        database,
        "SELECT l.name, s.name, s.size, s.direct, s.found, s.bound, s.verdict, s.open, s.chain"
        " FROM stacks s JOIN layouts l USING (layout) ORDER BY stack",
    )
    stacks = [(layout["name"], stack) for layout in document["layouts"] for stack in layout["stacks"]]
    assert [row[:8] for row in rows] == [
        (
            layout, one["name"], one["size"], one["need"]["direct"], one["found"], one["need"]["bound"],
            one["verdict"], sum(item["count"] for item in one["open"]),
        )
        for layout, one in stacks
    ]  # fmt: skip
    for row, (_, stack) in zip(rows, stacks, strict=True):
        chain = query(
            database,
            "SELECT name, depth, total, kind, evidence FROM chain_frames"
            f" WHERE chain = {-1 if row[8] is None else row[8]} ORDER BY position",
        )
        assert chain == [
            (one["function"], one["depth"], one["total"], one["kind"], one["evidence"])
            for one in stack["chain"]
        ]
    contexts = query(database, "SELECT kind, name, direct, found, bound FROM contexts ORDER BY context")
    assert contexts == [
        (one["kind"], one["name"], one["direct"], one["found"], one["bound"]) for one in document["contexts"]
    ]


def test_a_database_says_what_an_analysis_in_memory_says(analysis: Analysis, database: Path) -> None:
    assert is_database(database)
    assert read_database(database) == snapshot(analysis, str(database))


def test_the_same_analysis_gives_the_same_bytes(tmp_path: Path) -> None:
    files = [tmp_path / "first.db", tmp_path / "second.db"]
    for file in files:
        assert main(["check", str(KERNEL), "--db", str(file)]) == 0
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_examples_of_the_documentation_run(database: Path) -> None:
    text = (SAMPLE.parents[2] / "docs" / "store.md").read_text(encoding="utf-8")
    statements = [part.split("\n```")[0] for part in text.split("```sql\n")[1:]]
    assert len(statements) >= 3
    for statement in statements:
        query(database, statement.rstrip().rstrip(";"))
    if shutil.which("sqlite3"):
        command = ["sqlite3", str(database), statements[0]]
        assert subprocess.run(command, capture_output=True, check=True).stdout


def test_every_column_is_documented(database: Path) -> None:
    text = (SAMPLE.parents[2] / "docs" / "store.md").read_text(encoding="utf-8")
    for (table,) in query(database, "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"):
        assert f"`{table}`" in text, table
        for _, column, *_ in query(database, f"PRAGMA table_info({table})"):
            assert f"`{column}`" in text, (table, column)


def test_an_older_database_stays_when_a_new_one_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "analysis.db"
    target.write_text("old", encoding="utf-8")
    assert main(["check", str(KERNEL), "--layout", "nowhere", "--db", str(target)]) == 2
    assert target.read_text(encoding="utf-8") == "old"
    assert main(["check", str(KERNEL), "--db", str(tmp_path / "none" / "x.db")]) == 2
    assert main(["check", str(KERNEL), "--db", str(tmp_path)]) == 2
    assert "not a regular file" in capsys.readouterr().err
    assert main(["check", str(KERNEL), "--db", "-"]) == 2
    assert "--db -" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["analysis.db"]


def test_files_that_are_no_database_of_stackfit(database: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.db"
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.commit()
    with pytest.raises(InputError, match="none that stackfit wrote"):
        read_database(foreign)
    for statement, cause in (
        ("PRAGMA user_version = 2", "version 2"),
        ("DROP TABLE chain_frames", "no table chain_frames"),
        ("UPDATE functions SET frame = 'deep'", "did not write"),
        ("DELETE FROM images", "names no image"),
        ("ALTER TABLE sites DROP COLUMN reason", "cannot be read"),
    ):
        changed = tmp_path / "changed.db"
        shutil.copyfile(database, changed)
        with closing(sqlite3.connect(changed)) as connection:
            connection.executescript(f"DROP VIEW open_sites; {statement}")
            connection.commit()
        with pytest.raises(InputError, match=cause):
            read_database(changed)


def test_damaged_databases_are_refused_or_read(database: Path, tmp_path: Path) -> None:
    whole = database.read_bytes()
    damaged = tmp_path / "damaged.db"
    for share in (0.02, 0.3, 0.7, 0.99):
        damaged.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError, match=r"damaged\.db"):
            read_database(damaged)
    for place in range(100, len(whole), len(whole) // 40):
        damaged.write_bytes(
            whole[:place] + bytes(byte ^ 0xA5 for byte in whole[place : place + 40]) + whole[place + 40 :]
        )
        try:
            read_database(damaged)
        except InputError as error:
            assert "damaged.db" in str(error)


def test_names_from_binaries_are_kept_as_they_are(tmp_path: Path) -> None:
    data = KERNEL.read_bytes()
    path, target = tmp_path / "vmlinux", tmp_path / "x.db"
    path.write_bytes(data.replace(b"\0alloca_open\0", b"\0'\x1b[31m;\xff\"--\0"))
    assert main(["check", str(path), "--db", str(target)]) == 0
    names = [name for (name,) in query(target, "SELECT name FROM functions")]
    assert "'\x1b[31m;\xff\"--" in names
    assert json.dumps(names)

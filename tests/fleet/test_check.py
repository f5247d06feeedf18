"""`check` of many images: each report as `check` writes it, one table, and nothing done twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from stackfit.cli.main import main
from stackfit.fleet import check as fleet_check
from stackfit.fleet.images import find_images
from stackfit.image.model import InputError

pytestmark = pytest.mark.slow  # nothing here is about the hot modules: once is enough

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE = REPOSITORY / "fixtures" / "sample" / "bin"
FIRMWARE = REPOSITORY / "fixtures" / "firmware" / "rtos-riscv32.elf"
SCHEMA = REPOSITORY / "docs" / "schemas" / "stackfit.fleet-check-1.json"


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """Two kernels as distributions put them, with a module each; a firmware; a list of all three."""
    for machine, release in (("x86_64", "6.1.0-sample-amd64"), ("i386", "6.1.0-sample-686")):
        root = tmp_path / "root" / machine
        modules = root / "lib" / "modules" / release / "kernel"
        modules.mkdir(parents=True)
        (root / "boot").mkdir()
        shutil.copy(SAMPLE / machine / "vmlinux", root / "boot" / f"vmlinux-{release}")
        shutil.copy(SAMPLE / machine / "vendor_blob.ko", modules)
    (tmp_path / "fleet.toml").write_text(
        f"""
        [[image]]
        name = "amd64"
        file = "root/x86_64/boot/vmlinux-6.1.0-sample-amd64"
        modules = ["root/x86_64/lib/modules"]
        [[image]]
        file = "root/i386/boot/vmlinux-6.1.0-sample-686"
        layouts = ["linux-2.6-8k", "linux-2.6-4k"]
        [[image]]
        name = "../meter"
        file = "{FIRMWARE}"
        """,
        encoding="utf-8",
    )
    return tmp_path


def valid(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(document)
    return dict(document)


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_reports_are_those_of_check(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, single = fleet / "table.json", fleet / "single.json"
    words = ["--workers", "0", "--no-cache", "--json", str(table), "--output", str(fleet / "out")]
    assert main(["fleet", "check", str(fleet / "fleet.toml"), *words]) == 0
    out, err = capsys.readouterr()
    assert not err and "3 images" in out and "Contexts, each as if" in out
    document = valid(table)
    assert [one["name"] for one in document["images"]] == ["amd64", "vmlinux-6.1.0-sample-686", "../meter"]
    reports = files(fleet / "out")
    assert [one["report"] for one in document["images"]] == [
        "amd64.json", "vmlinux-6.1.0-sample-686.json", "_._meter.json"
    ]  # fmt: skip
    assert set(reports) == {one["report"] for one in document["images"]}
    image = str(fleet / "root/x86_64/boot/vmlinux-6.1.0-sample-amd64")
    alone = [
        "check",
        image,
        "--modules",
        str(fleet / "root/x86_64/lib/modules"),
        "--fail-on",
        "",
        "--no-config",
    ]
    assert main([*alone, "--json", str(single)]) == 0
    assert reports["amd64.json"] == single.read_bytes()
    for one in document["images"]:
        report = json.loads(reports[one["report"]])
        mine = [row for row in document["stacks"] if row["image"] == one["name"]]
        assert {row["layout"] for row in mine} == {layout["name"] for layout in report["layouts"]}
        for layout in report["layouts"]:
            for stack in layout["stacks"]:
                rows = [
                    row for row in mine if (row["layout"], row["stack"]) == (layout["name"], stack["name"])
                ]
                for row in rows:
                    assert (row["verdict"], row["direct"]) == (stack["verdict"], stack["need"]["direct"])
                    assert row["bound"] == stack["need"]["bound"]


def test_contexts_add_up_to_their_stacks(fleet: Path) -> None:
    """The worst context needs what its stack needs, and no context has a worse verdict than its stack."""
    table = fleet / "table.json"
    command = ["fleet", "check", str(fleet / "fleet.toml"), "--workers", "0", "--no-cache"]
    assert main([*command, "--json", str(table)]) == 0
    document = valid(table)
    order = ["fits", "fits-if", "unknown", "may-exceed", "exceeds"]
    seen = 0
    for stack in document["stacks"]:
        same = ("image", "layout", "stack")
        mine = [row for row in document["contexts"] if all(row[key] == stack[key] for key in same)]
        known = [row["direct"] for row in mine if row["direct"] is not None]
        if stack["direct"] is None or not mine:
            continue
        seen += 1
        assert max(known) == stack["direct"], stack
        assert max(row["open"] for row in mine) <= stack["open"]
        assert max(order.index(row["verdict"]) for row in mine) <= order.index(stack["verdict"])
        if stack["bound"] is not None:
            assert max(row["bound"] for row in mine) == stack["bound"]
        for row in mine:
            assert (row["evidence"] == "open") == bool(row["open"] or row["bound"] is None)
    assert seen >= 8


def test_what_has_not_changed_is_analysed_once(
    fleet: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []
    analyse = fleet_check.analyse

    def counted(images: list[str], *rest: Any, **more: Any) -> Any:
        done.append(Path(images[0]).name)
        return analyse(images, *rest, **more)

    monkeypatch.setattr(fleet_check, "analyse", counted)
    words = ["--workers", "0", "--cache", str(fleet / "cache")]

    def check(place: Path, to: str) -> dict[str, bytes]:
        table = fleet / f"{to}.json"
        command = ["fleet", "check", str(place), *words, "--output", str(fleet / to), "--json", str(table)]
        assert main(command) == 0
        return {**files(fleet / to), "table": table.read_bytes()}

    first = check(fleet / "fleet.toml", "first")
    assert len(done) == 3
    assert check(fleet / "fleet.toml", "second") == first and len(done) == 3
    assert "3 unchanged" in capsys.readouterr().out
    # Elsewhere it is the same; its paths are those of today.
    shutil.move(fleet / "root", fleet / "moved")
    text = (fleet / "fleet.toml").read_text(encoding="utf-8").replace('"root/', '"moved/')
    (fleet / "fleet.toml").write_text(text, encoding="utf-8")
    moved = check(fleet / "fleet.toml", "third")
    assert len(done) == 3
    old, new = (json.loads(found["amd64.json"]) for found in (first, moved))
    assert new["image"].pop("path") == old["image"].pop("path").replace("/root/", "/moved/")
    assert new["modules"][0].pop("path") == old["modules"][0].pop("path").replace("/root/", "/moved/")
    assert new == old
    # One byte of a module, or another option, is another question.
    module = next((fleet / "moved" / "x86_64").rglob("*.ko"))
    module.write_bytes(module.read_bytes() + b"\0")
    check(fleet / "fleet.toml", "fourth")
    assert len(done) == 4
    words += ["--hops", "1"]
    check(fleet / "fleet.toml", "fifth")
    assert len(done) == 7


def test_names_that_files_give_are_those_of_today(tmp_path: Path) -> None:
    """A module without .modinfo is called as its file is, assumptions without a name too."""
    blob = SAMPLE / "x86_64" / "vendor_blob.ko"
    cut = '[[cut]]\nfunction = "no_such_function"\nreason = "not there"\nsource = "no.c"\ncharge = 0\n'

    def check(module: str, assumed: str, *words: str) -> dict[str, Any]:
        place = tmp_path / module / "modules"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{module}.ko").write_bytes(
            blob.read_bytes().replace(b"name=vendor_blob\0", b"mane=vendor_blob\0")
        )
        (tmp_path / f"{assumed}.toml").write_text(cut, encoding="utf-8")
        image = {"name": "k", "file": str(SAMPLE / "x86_64" / "vmlinux"), "modules": [str(place)]}
        (tmp_path / "list.json").write_text(json.dumps({"image": [image]}), encoding="utf-8")
        given = ["--assume", str(tmp_path / f"{assumed}.toml"), "--output", str(tmp_path / "out")]
        assert main(["fleet", "check", str(tmp_path / "list.json"), *given, "--workers", "0", *words]) == 0
        return dict(json.loads((tmp_path / "out" / "k.json").read_bytes()))

    kept = ["--cache", str(tmp_path / "cache")]
    first = check("first", "ours", *kept)
    assert first["modules"][0]["name"] == "first"
    for names in (("second", "ours"), ("first", "theirs")):
        assert check(*names, *kept) == check(*names, "--no-cache")


def test_what_changes_while_it_is_read_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "vmlinux"
    old, new = (SAMPLE / "x86_64" / "vmlinux").read_bytes(), FIRMWARE.read_bytes()
    image.write_bytes(old)
    make_key = fleet_check._key
    words = ["fleet", "check", str(image), "--cache", str(tmp_path / "cache"), "--workers", "0"]

    def replaced(*arguments: Any) -> str:
        key = make_key(*arguments)
        image.write_bytes(new)
        return key

    monkeypatch.setattr(fleet_check, "_key", replaced)
    main(words)
    monkeypatch.undo()
    image.write_bytes(old)
    capsys.readouterr()
    assert main(words) == 0
    assert "x86_64" in capsys.readouterr().out.split("Stacks")[0]


def test_bad_images_and_modules_are_said_and_left_out(
    fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boot = fleet / "root" / "x86_64" / "boot"
    (boot / "vmlinuz-broken").write_bytes((SAMPLE / "x86_64" / "vmlinux").read_bytes()[:5000])
    (boot / "vmlinuz-\x1b[31m").write_text("not a kernel", encoding="ascii")
    module = next((fleet / "root" / "i386").rglob("*.ko"))
    (module.parent / "cut.ko").write_bytes(module.read_bytes()[:300])
    table = fleet / "table.json"
    words = ["--workers", "0", "--no-cache", "--json", str(table)]
    assert main(["fleet", "check", str(fleet / "root"), *words]) == 3
    err = capsys.readouterr().err
    assert err.count("stackfit: left out: ") == err.count("\n") == 3 and "\x1b" not in err
    document = valid(table)
    assert {Path(one["path"]).name for one in document["skipped"]} == {"vmlinuz-broken", "vmlinuz-\x1b[31m"}
    found = {one["machine"]: one for one in document["images"]}
    assert found["x86_64"]["modules"] == found["i386"]["modules"] == 1
    assert [Path(one["path"]).name for one in found["i386"]["bad_modules"]] == ["cut.ko"]
    assert main(["fleet", "check", str(boot / "vmlinuz-broken"), "--workers", "0", "--no-cache"]) == 2
    assert "none of 1 images can be checked" in capsys.readouterr().err


def test_layouts_go_to_the_machines_that_they_are_for(fleet: Path) -> None:
    table = fleet / "table.json"
    layouts = ["--layout", "linux-x86_64-8k", "--layout", "linux-2.6-4k"]
    words = ["--workers", "0", "--no-cache", "--json", str(table)]
    assert main(["fleet", "check", str(fleet / "root"), *layouts, *words]) == 0
    rows = valid(table)["stacks"]
    assert {(Path(row["image"]).name[-3:], row["layout"]) for row in rows} == {
        ("d64", "linux-x86_64-8k"), ("686", "linux-2.6-4k")
    }  # fmt: skip
    assert main(["fleet", "check", str(fleet / "root"), *layouts[:2], *words, "--fail-on", "unknown"]) == 3
    assert main(["fleet", "check", str(SAMPLE / "i386/vmlinux"), *words, "--fail-on", "unknown"]) == 1
    assert main(["fleet", "check", str(fleet / "root"), "--layout", "linux-9", *words]) == 2


def test_a_killed_worker_loses_nothing(fleet: Path, cluster: Any, killer: Any) -> None:
    words = ["fleet", "check", str(fleet / "fleet.toml"), "--no-cache", "--output"]
    here, there = fleet / "here", fleet / "there"
    assert main([*words, str(here), "--json", str(fleet / "here.json"), "--workers", "0"]) == 0
    hand = killer(cluster)
    hand.start()
    words += [str(there), "--json", str(fleet / "there.json"), "--scheduler", cluster.scheduler_address]
    assert main(words) == 0
    hand.join(1)
    assert hand.killed is not None
    assert files(there) == files(here)
    assert (fleet / "there.json").read_bytes() == (fleet / "here.json").read_bytes()


def test_lists_are_read_strictly(tmp_path: Path) -> None:
    def refused(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError) as error:
            find_images([str(path)])
        return error.value.cause

    assert "missing" in refused("a.toml", "[[image]]\nname = 'x'\n")
    assert "no [[image]]" in refused("b.toml", "")
    assert "did you mean 'modules'" in refused("c.toml", "[[image]]\nfile = 'x'\nmodule = ['y']\n")
    assert "not JSON" in refused("d.json", "{")
    assert "not a list of images" in refused("e.json", "[]")
    assert "two images" in refused("f.json", '{"image": [{"file": "x"}, {"file": "y/x"}]}')
    (tmp_path / "empty").mkdir()
    for place in ("empty", "nothing", "none*"):
        with pytest.raises(InputError):
            find_images([str(tmp_path / place)])
    path = tmp_path / "g.json"
    path.write_text('{"image": [{"file": "k", "debug": "d", "layouts": ["cortex-m", "own.toml"]}]}')
    (one,) = find_images([str(path)])
    assert (one.name, one.image, one.debug) == ("k", str(tmp_path / "k"), str(tmp_path / "d"))
    assert one.layouts == ("cortex-m", str(tmp_path / "own.toml"))


def test_a_directory_is_searched_for_kernels_and_their_modules(fleet: Path) -> None:
    root = fleet / "root" / "x86_64"
    own = root / "usr" / "lib" / "modules" / "6.2"
    own.mkdir(parents=True)
    shutil.copy(SAMPLE / "x86_64" / "vmlinux", own / "vmlinuz")
    shutil.copy(SAMPLE / "x86_64" / "vendor_blob.ko", own)
    debug = root / "usr" / "lib" / "debug" / "boot"
    debug.mkdir(parents=True)
    shutil.copy(SAMPLE / "x86_64" / "vmlinux", debug / "vmlinux-6.1.0-sample-amd64")
    (root / "boot" / "vmlinuz.old").touch()
    (root / "loop").symlink_to(root)
    (root / "vmlinuz").symlink_to(own / "vmlinuz")
    found = find_images([str(root)])
    assert [(Path(one.image).relative_to(root).as_posix(), len(one.modules)) for one in found] == [
        ("boot/vmlinux-6.1.0-sample-amd64", 1), ("usr/lib/modules/6.2/vmlinuz", 1)
    ]  # fmt: skip

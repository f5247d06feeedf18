"""Commands that answer from the cache: the same bytes, and only while all that they rest on is unchanged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import stackfit.analysis
from stackfit.cli.main import main

SAMPLE = Path(__file__).resolve().parents[2] / "fixtures" / "sample" / "bin" / "x86_64"
LAYOUT = """name = "small"
[stack.process]
per = "process"
size = {size}
allocation = "static"
runs = ["syscall"]
"""


class Bench:
    """A kernel, a module and the cache in a directory; counts the analyses that are made."""

    def __init__(
        self, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.place, self.capsys, self.analyses = place, capsys, 0
        shutil.copy(SAMPLE / "vmlinux", place / "vmlinux")
        (place / "modules").mkdir()
        shutil.copy(SAMPLE / "vendor_blob.ko", place / "modules")
        monkeypatch.chdir(place)
        monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        real = stackfit.analysis.analyse

        def counted(*words: object, **more: object) -> object:
            self.analyses += 1
            return real(*words, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(stackfit.analysis, "analyse", counted)

    def run(self, *words: str) -> tuple[int, str, str]:
        status = main([*words])
        printed = self.capsys.readouterr()
        return status, printed.out, printed.err

    def fresh(self, *words: str) -> bool:
        """Whether running the command makes an analysis."""
        before = self.analyses
        self.run(*words)
        return self.analyses > before


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, capsys, monkeypatch)


CHECK = ("check", "vmlinux", "--modules", "modules")


@pytest.mark.parametrize(
    "words",
    [
        (*CHECK, "--layout", "linux-x86_64-4k", "--fail-on", "may-exceed,unknown"),
        (*CHECK, "--json", "-"),
        ("frames", "vmlinux", "--json", "-"),
        ("calls", "vmlinux", "tree_depth"),
        ("contexts", "vmlinux"),
        ("explain", "vmlinux", "tree_depth"),
    ],
)
def test_the_second_answer_is_the_first_without_an_analysis(words: tuple[str, ...], bench: Bench) -> None:
    first = bench.run(*words)
    assert first[1] != ""
    assert bench.analyses == 1
    assert bench.run(*words) == first
    assert bench.analyses == 1
    assert bench.run(*words, "--no-cache") == first
    assert bench.analyses == 2


def test_files_come_back_byte_for_byte(bench: Bench) -> None:
    names = ("json", "sarif", "folded", "markdown", "db")
    written = []
    for place in ("one", "two"):
        (bench.place / place).mkdir()
        bench.run(*CHECK, *(word for name in names for word in (f"--{name}", f"{place}/{name}")))
        written.append([(bench.place / place / name).read_bytes() for name in names])
    assert written[0] == written[1]
    assert all(written[0])
    assert bench.analyses == 1


def test_whatever_it_rests_on_makes_another_answer(bench: Bench) -> None:
    layout, assumed = bench.place / "small.toml", bench.place / "assumed.toml"
    layout.write_text(LAYOUT.format(size=8192))
    assumed.write_text("")
    words = (*CHECK, "--layout", "small.toml", "--assume", "assumed.toml")
    assert bench.fresh(*words)
    assert not bench.fresh(*words)

    layout.write_text(LAYOUT.format(size=4096))
    assert bench.fresh(*words)
    assumed.write_text("# reviewed")
    assert bench.fresh(*words)
    assert bench.fresh(*words, "--hops", "1")
    assert bench.fresh(*words, "--through", "vendor_blob")
    (bench.place / "stackfit.toml").write_text('fail-on = ["unknown"]')
    assert bench.fresh(*words)
    with (bench.place / "modules" / "vendor_blob.ko").open("ab") as file:
        file.write(b"\0")
    assert bench.fresh(*words)
    with (bench.place / "vmlinux").open("ab") as file:
        file.write(b"\0")
    assert bench.fresh(*words)
    shutil.copy(bench.place / "vmlinux", bench.place / "renamed")  # its name is printed
    assert bench.fresh(*(word.replace("vmlinux", "renamed") for word in words))
    assert not bench.fresh(*words)


def test_a_damaged_answer_is_made_again(bench: Bench) -> None:
    first = bench.run(*CHECK)
    (answer,) = (bench.place / "cache").rglob("*.answer")
    content = bytearray(answer.read_bytes())
    content[-1] ^= 1
    answer.write_bytes(content)
    assert bench.run(*CHECK) == first
    assert bench.analyses == 2
    assert bench.run(*CHECK) == first
    assert bench.analyses == 2


def test_an_error_is_no_answer(bench: Bench) -> None:
    (bench.place / "bad.ko").write_bytes(b"\x7fELF nothing else")
    words = ("check", "vmlinux", "--modules", "bad.ko")
    assert bench.run(*words)[0] == 2
    assert bench.run(*words)[0] == 2
    assert list((bench.place / "cache").rglob("*.answer")) == []


def test_a_directory_of_ones_own_and_what_is_in_it(bench: Bench) -> None:
    assert bench.fresh(*CHECK, "--cache", "mine")
    assert not bench.fresh(*CHECK, "--cache", "mine")
    assert not (bench.place / "cache").exists()
    assert "mine: 1 answers" in bench.run("cache", "--cache", "mine")[1]
    assert "1 answers removed" in bench.run("cache", "--cache", "mine", "--clear")[1]
    assert bench.fresh(*CHECK, "--cache", "mine")
    status, _, error = bench.run(*CHECK, "--cache", "vmlinux")
    assert status == 2 and error.startswith("stackfit: error: vmlinux: ")


def test_nothing_is_kept_where_nothing_can_be(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    first = bench.run(*CHECK)
    assert bench.run(*CHECK) == first
    assert bench.analyses == 2


def test_one_file_under_two_names_has_what_is_written_last(bench: Bench) -> None:
    """Its content is that of one output alone, whichever: no answer is kept of both."""
    words = (*CHECK, "--db", "out", "--json", "./out")
    bench.run(*words)
    first = (bench.place / "out").read_bytes()
    assert first.startswith(b"{")
    bench.run(*words)
    assert (bench.place / "out").read_bytes() == first


def test_a_module_that_comes_meanwhile_is_not_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the modules are listed again, but after the key was made."""
    real, new = stackfit.analysis.analyse, bench.place / "modules" / "a_second.ko"
    content = (SAMPLE / "vendor_blob.ko").read_bytes().replace(b"name=vendor_blob\0", b"name=second_one\0\0")

    def late(*words: object, **more: object) -> object:
        new.write_bytes(content)
        return real(*words, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(stackfit.analysis, "analyse", late)
        bench.run(*CHECK, "--json", "-")
    new.unlink()
    assert bench.run(*CHECK, "--json", "-") == bench.run(*CHECK, "--json", "-", "--no-cache")

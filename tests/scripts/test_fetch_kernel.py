"""fetch_kernel.py against a package archive of our own: the real apt and dpkg-deb, no network."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "fetch_kernel.py"

pytestmark = pytest.mark.skipif(
    not (shutil.which("apt-get") and shutil.which("dpkg-deb")), reason="needs apt and dpkg-deb"
)


class Archive:
    """A flat package archive in `directory`, and apt configured to know no other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pool = directory / "pool"
        self.pool.mkdir()
        self.config = directory / "apt.conf"
        (directory / "sources.list").write_text(f"deb [trusted=yes] file:{self.pool} ./\n")
        # Without the sandbox user: it may not enter the directories of a test run by root.
        self.config.write_text(
            f'Dir::Etc::sourcelist "{directory}/sources.list";\n'
            'Dir::Etc::sourceparts "-";\nAPT::Sandbox::User "root";\n'
        )
        self.index: list[str] = []

    def add(
        self, package: str, version: str, files: dict[str, str], arch: str = "amd64", depends: str = ""
    ) -> Path:
        tree = self.directory / "tree"
        for name, text in files.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(text)
        (tree / "DEBIAN").mkdir(parents=True)
        control = (
            f"Package: {package}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: n <n@localhost>\n"
        )
        if depends:
            control += f"Depends: {depends}\n"
        control += "Description: test\n"
        (tree / "DEBIAN" / "control").write_text(control)
        deb = self.pool / f"{package}_{version}_{arch}.deb"
        command = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(deb)]
        subprocess.run(command, check=True, capture_output=True)
        shutil.rmtree(tree)
        data = deb.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        self.index.append(f"{control}Filename: ./{deb.name}\nSize: {len(data)}\nSHA256: {digest}\n")
        self.publish()
        return deb

    def publish(self) -> None:
        (self.pool / "Packages.gz").write_bytes(gzip.compress("\n".join(self.index).encode()))

    def kernel(self, release: str, version: str, arch: str = "amd64") -> Path:
        return self.add(
            f"linux-image-{release}-unsigned",
            version,
            {f"boot/vmlinuz-{release}": version, f"lib/modules/{release}/kernel/a.ko": "a"},
            arch,
        )


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    (tmp_path / "archive").mkdir()
    return Archive(tmp_path / "archive")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def command(cache: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(SCRIPT), "--cache", str(cache), *arguments]


def call(archive: Archive, cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "APT_CONFIG": str(archive.config)}
    return subprocess.run(command(cache, *arguments), env=environment, capture_output=True, text=True)


def fetched(archive: Archive, cache: Path, *arguments: str) -> dict[str, str]:
    done = call(archive, cache, *arguments)
    assert done.returncode == 0, done.stderr
    result: dict[str, str] = json.loads(done.stdout)
    return result


def refused(archive: Archive, cache: Path, *arguments: str) -> str:
    """The last line on standard error of a call that must fail as documented."""
    done = call(archive, cache, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_newest_is_by_number_not_by_letter(archive: Archive, cache: Path) -> None:
    for release, version in (("6.1.0-9-cloud-amd64", "6.1.9-1"), ("6.1.0-10-cloud-amd64", "6.1.10-1")):
        archive.kernel(release, version)
    archive.kernel("6.1.0-99-amd64", "6.1.99-1")  # not a cloud kernel
    kernel = fetched(archive, cache)
    assert kernel["package"] == "linux-image-6.1.0-10-cloud-amd64-unsigned"
    assert kernel["version"] == "6.1.10-1"
    assert kernel["release"] == "6.1.0-10-cloud-amd64"
    assert Path(kernel["vmlinuz"]).read_text() == "6.1.10-1"
    assert (Path(kernel["modules"]) / "kernel" / "a.ko").is_file()
    assert kernel["vmlinux"] is None
    assert kernel["headers"] is None


def test_other_architecture_needs_no_setup(archive: Archive, cache: Path) -> None:
    archive.kernel("6.1.0-10-cloud-amd64", "6.1.10-1")
    archive.kernel("6.1.0-10-686", "6.1.10-1", arch="i386")
    archive.kernel("6.1.0-10-686-pae", "6.1.10-1", arch="i386")
    assert fetched(archive, cache, "--arch", "i386")["release"] == "6.1.0-10-686"


def test_second_call_needs_no_archive(archive: Archive, cache: Path) -> None:
    archive.kernel("6.1.0-10-cloud-amd64", "6.1.10-1")
    first = fetched(archive, cache)
    shutil.rmtree(archive.pool)
    again = call(archive, cache)
    assert json.loads(again.stdout) == first
    assert again.stderr == ""


def test_refresh_finds_a_newer_kernel_and_later_calls_keep_it(archive: Archive, cache: Path) -> None:
    archive.kernel("6.1.0-10-cloud-amd64", "6.1.10-1")
    fetched(archive, cache)
    archive.kernel("6.1.0-11-cloud-amd64", "6.1.11-1")
    assert fetched(archive, cache)["release"] == "6.1.0-10-cloud-amd64"
    assert fetched(archive, cache, "--refresh")["release"] == "6.1.0-11-cloud-amd64"
    assert fetched(archive, cache)["release"] == "6.1.0-11-cloud-amd64"


def test_debug_keeps_vmlinux_and_nothing_else(archive: Archive, cache: Path) -> None:
    release = "6.1.0-10-cloud-amd64"
    archive.kernel(release, "6.1.10-1")
    files = {
        f"usr/lib/debug/boot/vmlinux-{release}": "symbols",
        f"usr/lib/debug/lib/modules/{release}/kernel/a.ko": "big",
    }
    archive.add(f"linux-image-{release}-dbg", "6.1.10-1", files)
    kernel = fetched(archive, cache, "--debug")
    assert Path(kernel["vmlinux"]).read_text() == "symbols"
    names = {
        path.name for path in cache.rglob("*") if path.is_file() and "dbg" in str(path.relative_to(cache))
    }
    assert names == {f"vmlinux-{release}"}
    assert not list(cache.rglob("*.deb"))


def test_debug_symbols_of_another_version_are_refused(archive: Archive, cache: Path) -> None:
    release = "6.1.0-10-cloud-amd64"
    archive.kernel(release, "6.1.10-1")
    archive.add(f"linux-image-{release}-dbg", "6.1.10-2", {f"usr/lib/debug/boot/vmlinux-{release}": "other"})
    assert "6.1.10-1" in refused(archive, cache, "--debug")
    assert fetched(archive, cache)["vmlinux"] is None


def test_headers_come_with_what_they_depend_on(archive: Archive, cache: Path) -> None:
    release = "6.1.0-10-cloud-amd64"
    archive.kernel(release, "6.1.10-1")
    archive.add(
        "linux-headers-6.1.0-10-common", "6.1.10-1", {"usr/src/linux-headers-6.1.0-10-common/Makefile": ""}
    )
    archive.add("linux-kbuild-6.1", "6.1.10-1", {"usr/lib/linux-kbuild-6.1/scripts/Kbuild": ""})
    archive.add(
        f"linux-headers-{release}",
        "6.1.10-1",
        {f"usr/src/linux-headers-{release}/.config": "CONFIG_X=y"},
        depends="linux-headers-6.1.0-10-common (= 6.1.10-1), linux-kbuild-6.1 (>= 6.1.10-1), libc6",
    )
    headers = Path(fetched(archive, cache, "--headers")["headers"])
    assert (headers / ".config").is_file()
    assert (headers.parent / "linux-headers-6.1.0-10-common" / "Makefile").is_file()
    assert (headers.parent.parent / "lib" / "linux-kbuild-6.1" / "scripts" / "Kbuild").is_file()


def test_two_at_once_fetch_once(archive: Archive, cache: Path) -> None:
    archive.kernel("6.1.0-10-cloud-amd64", "6.1.10-1")
    environment = {**os.environ, "APT_CONFIG": str(archive.config)}
    both = [
        subprocess.Popen(
            command(cache), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [child.communicate() for child in both]
    assert [child.returncode for child in both] == [0, 0]
    assert outputs[0][0] == outputs[1][0]
    assert sum(err.count("fetching linux-image") for _, err in outputs) == 1


def test_damaged_record_is_as_good_as_none(archive: Archive, cache: Path) -> None:
    archive.kernel("6.1.0-10-cloud-amd64", "6.1.10-1")
    first = fetched(archive, cache)
    for damage in ("", "{", "[]", '{"amd64 x": 3}', "\udcff"):
        (cache / "resolved.json").write_text(damage, errors="surrogateescape")
        assert fetched(archive, cache) == first


def test_what_a_killed_process_left_is_removed(archive: Archive, cache: Path) -> None:
    archive.kernel("6.1.0-10-cloud-amd64", "6.1.10-1")
    (cache / "tmp.left" / "root").mkdir(parents=True)
    fetched(archive, cache)
    assert not list(cache.glob("tmp.*"))


def test_altered_package_is_refused_and_leaves_nothing(archive: Archive, cache: Path) -> None:
    deb = archive.kernel("6.1.0-10-cloud-amd64", "6.1.10-1")
    data = bytearray(deb.read_bytes())
    data[-600] ^= 1
    deb.write_bytes(data)
    assert "linux-image-6.1.0-10-cloud-amd64-unsigned" in refused(archive, cache)
    assert not list(cache.glob("linux-*"))
    assert not list(cache.glob("tmp.*"))


def test_a_package_that_the_archive_has_dropped_is_passed_over(archive: Archive, cache: Path) -> None:
    archive.kernel("6.1.0-10-cloud-amd64", "6.1.10-1")
    archive.kernel("6.1.0-11-cloud-amd64", "6.1.11-1").unlink()
    assert fetched(archive, cache)["release"] == "6.1.0-10-cloud-amd64"
    assert "6.1.0-11" in refused(archive, cache, "--package", r"linux-image-6\.1\.0-11-.*")


def test_another_release_comes_from_the_same_sources(archive: Archive, tmp_path: Path) -> None:
    own = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    if not own:
        pytest.skip("the system's release has no code name")
    parts = tmp_path / "parts"
    parts.mkdir()
    (archive.directory / "sources.list").write_text(
        f"# deb file:{own} {own} main\n"
        f"deb [trusted=yes] file:/srv/{own} {own}-updates main\ndeb file:/x y z\n"
    )
    (parts / "a.sources").write_text(
        f"Types: deb\nURIs: file:/srv/a\n# {own}\nSuites: {own} {own}-security\nComponents: main\n\n"
        "Types: deb\nURIs: file:/srv/b\nSuites: other\n"
    )
    (parts / "b.list").write_text("deb file:/srv/c other main\n")
    archive.config.write_text(
        f'Dir::Etc::sourcelist "{archive.directory}/sources.list";\nDir::Etc::sourceparts "{parts}";\n'
    )
    code = "import json, fetch_kernel; print(json.dumps(fetch_kernel.sources_of('trixie')))"
    environment = {**os.environ, "APT_CONFIG": str(archive.config), "PYTHONPATH": str(SCRIPT.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert json.loads(done.stdout) == {
        "sources.list": f"deb [trusted=yes] file:/srv/{own} trixie-updates main\n",
        "a.sources": "Types: deb\nURIs: file:/srv/a\nSuites: trixie trixie-security\nComponents: main\n",
    }


def test_sources_that_name_no_release_give_none_of_another(archive: Archive, cache: Path) -> None:
    assert "to ask it for trixie" in refused(archive, cache, "--release", "trixie")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--package", "linux-image-9.*"], "no amd64 package matches linux-image-9.*"),
        (["--package", "("], "not a regular expression"),
        (["--package", "not-a-kernel"], "not a kernel package"),
    ],
)
def test_errors_are_one_line(archive: Archive, cache: Path, arguments: list[str], words: str) -> None:
    archive.kernel("6.1.0-10-cloud-amd64", "6.1.10-1")
    archive.add("not-a-kernel", "1", {"usr/share/x": "x"})
    assert words in refused(archive, cache, *arguments)


def test_unreachable_archive_is_named(archive: Archive, cache: Path) -> None:
    shutil.rmtree(archive.pool)
    assert "no package index" in refused(archive, cache)


def test_cache_that_cannot_be_written_is_named(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refused(archive, tmp_path / "file" / "cache")

#!/usr/bin/env python3
"""Fetches a Debian kernel package into a cache directory and unpacks it there; installs nothing.

Packages come from the package sources the system is set up with, through apt and dpkg-deb alone. The state
apt needs for that (index files, an empty dpkg status) is private to the cache, so no `apt-get update` has to
have run, other architectures work without `dpkg --add-architecture`, and a plain user may call it. With
`--release` the same sources are asked for another Debian release than the one that runs here.

Standard output is one JSON object, paths absolute, `null` where not asked for or not in the package:

    {"package", "version", "release", "vmlinuz", "modules", "vmlinux", "headers"}

A second call with the same arguments answers from the cache and needs no network. Layout of the cache:

    resolved.json        what each (architecture, release, regular expression) last resolved to
    PACKAGE_VERSION_ARCH the unpacked package; of a -dbg package only the vmlinux
    apt-ARCH[-RELEASE]   apt's private state
    lock                 held while something is being fetched

Errors are one line on standard error and exit status 2.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["ARCHITECTURES", "RELEASES", "FetchError", "Kernel", "default_cache", "fetch", "fetch_tree"]

ARCHITECTURES = {
    "amd64": r"linux-image-6\.1\..*-cloud-amd64-unsigned",
    "i386": r"linux-image-6\.1\..*-686-unsigned",
    "arm64": r"linux-image-6\.1\..*-cloud-arm64-unsigned",
    "armhf": r"linux-image-6\.1\.[0-9.-]*-armmp",
    "riscv64": r"linux-image-[67]\..*-riscv64",
}

# Debian releases by code name, and the series of their kernels as in package names.
RELEASES = {"bullseye": "5.10", "bookworm": "6.1", "trixie": "6.12"}

INDEX_MAX_AGE = 3600.0  # seconds before a package index is fetched again
COMMAND_TIMEOUT = 1800.0  # seconds for one apt or dpkg-deb command
UPDATE_TIMEOUT = 600.0  # seconds for the index files

# What apt says when it cannot reach a source at all, as opposed to a source that answers something useless.
OFFLINE = re.compile(
    r"Temporary failure resolving|Could not resolve|Could not connect|Unable to connect"
    r"|Cannot initiate the connection|Network is unreachable|Connection timed out|Connection failed"
)
# What it says where the index lists a file that its archive has dropped: as of releases past their end.
GONE = re.compile(r"Failed to fetch .* (404|File not found)")


class FetchError(Exception):
    """Nothing could be fetched: one line.

    `offline`: no package source could be reached. `unlisted`: the sources were reached and do not have it.
    `gone`: they list it, and its file is no longer there.
    """

    def __init__(
        self, cause: str, *, offline: bool = False, unlisted: bool = False, gone: bool = False
    ) -> None:
        super().__init__(cause)
        self.offline = offline
        self.unlisted = unlisted
        self.gone = gone


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package; `release` is what `uname -r` would print."""

    package: str
    version: str
    release: str
    vmlinuz: str
    modules: str | None
    vmlinux: str | None = None
    headers: str | None = None


@dataclass(frozen=True)
class Package:
    """A package in the index; `size` is the archive's, in bytes."""

    name: str
    version: str
    size: int
    depends: tuple[str, ...]


def default_cache() -> Path:
    """$STACKFIT_CACHE, else .cache/kernels in the repository."""
    named = os.environ.get("STACKFIT_CACHE")
    return Path(named) if named else Path(__file__).resolve().parent.parent / ".cache" / "kernels"


def note(text: str) -> None:
    print(f"fetch_kernel: {text}", file=sys.stderr, flush=True)


def search_path() -> str:
    """PATH with the system's directories at its end: apt starts helpers such as gpgv by name."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin", "/sbin", "/bin"]).lstrip(":")


def tool(name: str) -> str:
    path = shutil.which(name, path=search_path())
    if path is None:
        raise FetchError(
            f"{name} not found: Debian packages can be fetched on Debian and its derivatives only"
        )
    return path


def run(
    command: list[str], timeout: float = COMMAND_TIMEOUT, cwd: Path | None = None
) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command that may fail."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, "PATH": search_path(), "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise FetchError(f"{Path(command[0]).name}: no answer in {timeout:.0f} s", offline=True) from None
    return done.returncode, done.stdout, done.stderr


def complaint(output: str) -> str:
    """The first error line of apt's or dpkg-deb's output, else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for prefix in ("E:", "dpkg-deb: error:", "W: Failed", "Err:"):
        for line in lines:
            if line.startswith(prefix):
                return line
    return lines[-1] if lines else "no message"


def codename() -> str:
    """The code name of the release that runs here, from os-release(5); "" when it has none."""
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    except OSError:
        return ""


def sources_of(release: str) -> dict[str, str]:
    """apt source files (name: text) for another release: the system's own, as far as they name its code name.

    Both formats of sources.list(5). Raises FetchError if none does.
    """
    _, out, _ = run(
        [tool("apt-config"), "shell", "list", "Dir::Etc::sourcelist/f", "parts", "Dir::Etc::sourceparts/d"]
    )
    named = dict(re.findall(r"^(\w+)='(.*)'$", out, re.MULTILINE))
    files = [Path(named.get("list", "")), *sorted(Path(named["parts"]).glob("*"))] if "parts" in named else []
    own = codename()
    found: dict[str, str] = {}
    for file in files:
        if not own or file.suffix not in (".list", ".sources") or not file.is_file():
            continue
        text = file.read_text(errors="replace")
        stanzas = re.split(r"\n\s*\n", text) if file.suffix == ".sources" else text.splitlines()
        kept = []
        for stanza in stanzas:
            lines = [line for line in stanza.splitlines() if not line.lstrip().startswith("#")]
            there, times = re.subn(rf"(?<=\s){re.escape(own)}(?=[\s/-]|$)", release, "\n".join(lines))
            if times:
                kept.append(there)
        if kept:
            found[file.name] = ("\n\n" if file.suffix == ".sources" else "\n").join(kept) + "\n"
    if not found:
        raise FetchError(f"no package source of the system names its own release, to ask it for {release}")
    return found


class Index:
    """The package index of one architecture, in apt's private state below `cache`.

    `release`: of that Debian release, from the same sources; None: as the system is set up.
    """

    def __init__(self, cache: Path, arch: str, release: str | None = None) -> None:
        self.arch = arch
        self.release = release
        self.state = cache / (f"apt-{arch}-{release}" if release else f"apt-{arch}")
        self.updated = False
        self.said = ""  # what the last update complained about

    def command(self, name: str, *arguments: str) -> list[str]:
        options = {
            "APT::Architecture": self.arch,
            "APT::Architectures": self.arch,
            "Dir::State": str(self.state),
            "Dir::State::Lists": str(self.state / "lists"),
            # Without a status file of its own, a kernel installed here would hide the ones to download.
            "Dir::State::status": str(self.state / "status"),
            "Dir::Cache": str(self.state / "cache"),
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "Acquire::Languages": "none",
            "Acquire::GzipIndexes": "true",
            "Acquire::Retries": "2",
            "Acquire::http::Timeout": "30",
            "Acquire::https::Timeout": "30",
        }
        if self.release:
            options["Dir::Etc::sourcelist"] = "/dev/null"
            options["Dir::Etc::sourceparts"] = str(self.state / "sources")
        return [tool(name), *(f"-o{key}={value}" for key, value in options.items()), *arguments]

    def _lists(self) -> list[Path]:
        return list((self.state / "lists").glob("*_Packages*"))

    def update(self) -> None:
        """Fetches the index files. One source that fails does not spoil the others; all failing does."""
        for part in ("lists/partial", "cache/archives/partial"):
            (self.state / part).mkdir(parents=True, exist_ok=True)
        (self.state / "status").touch()
        if self.release:
            (self.state / "sources").mkdir(exist_ok=True)
            for name, text in sources_of(self.release).items():
                (self.state / "sources" / name).write_text(text)
        note(f"fetching the {self.arch} package index{f' of {self.release}' if self.release else ''}")
        status, out, err = run(self.command("apt-get", "update"), UPDATE_TIMEOUT)
        self.updated = True
        # apt exits 0 when sources could not be reached and 100 when one of many is out of step.
        failed = status != 0 or "Failed to fetch" in err
        self.said = complaint(err + out) if failed else ""
        if not self._lists():
            offline = bool(OFFLINE.search(out + err))
            cause = self.said or f"the package sources have no {self.arch} index"
            raise FetchError(f"no package index: {cause}", offline=offline)
        if self.said:
            note(f"the index may be incomplete: {self.said}")
        if not OFFLINE.search(out + err):
            (self.state / "updated").write_text("")

    def fresh(self) -> bool:
        try:
            age = time.time() - (self.state / "updated").stat().st_mtime
        except OSError:
            return False
        return 0 <= age < INDEX_MAX_AGE and bool(self._lists())

    def show(self, name: str) -> list[Package]:
        """All versions of a package, the candidate first; empty if the index has none."""
        _, out, _ = run(self.command("apt-cache", "show", name))
        found = []
        for paragraph in out.split("\n\n"):
            fields = dict(re.findall(r"^([A-Za-z-]+): *(.*)$", paragraph, re.MULTILINE))
            if fields.get("Package") != name or not {"Version", "Filename"} <= fields.keys():
                continue
            depends = (clause.split()[0] for clause in fields.get("Depends", "").split(",") if clause.split())
            found.append(
                Package(
                    name,
                    fields["Version"],
                    int(fields.get("Size", 0)),
                    tuple(d.split(":")[0] for d in depends),
                )
            )
        return found

    def newest(self, pattern: str, without: Collection[str] = ()) -> Package | None:
        """The newest package whose whole name matches; versions in names are compared number by number.

        Names in `without` are passed over.
        """
        _, out, _ = run(self.command("apt-cache", "pkgnames"))
        names = [name for name in out.split() if re.fullmatch(pattern, name) and name not in without]
        for name in sorted(names, key=natural, reverse=True):
            if found := self.show(name):
                return found[0]
        return None

    def resolve(self, pattern: str, version: str | None = None, without: Collection[str] = ()) -> Package:
        """The newest matching package, or the named version of it; fetches the index as needed."""
        if not self.fresh() and not self.updated:
            self.update()
        while True:
            package = self.newest(pattern, without)
            if package is not None and version is not None:
                package = next((p for p in self.show(package.name) if p.version == version), None)
            if package is not None:
                return package
            if self.updated:
                break
            self.update()
        wanted = pattern + (f" in version {version}" if version else "")
        because = f" ({self.said})" if self.said else ""
        raise FetchError(f"no {self.arch} package matches {wanted}{because}", unlisted=True)

    def download(self, package: Package, directory: Path) -> Path:
        """The package's archive, its checksum verified by apt, in `directory`."""
        note(f"fetching {package.name} {package.version} ({package.size / 1e6:.0f} MB)")
        command = self.command("apt-get", "-q", "download", f"{package.name}={package.version}")
        status, out, err = run(command, cwd=directory)
        if status != 0 and not self.updated:  # the index may be older than the archive behind it
            self.update()
            status, out, err = run(command, cwd=directory)
        archives = sorted(directory.glob("*.deb"))
        if status != 0 or len(archives) != 1:
            offline, gone = bool(OFFLINE.search(out + err)), bool(GONE.search(out + err))
            raise FetchError(f"{package.name}: {complaint(err + out)}", offline=offline, gone=gone)
        return archives[0]


def natural(name: str) -> list[str | int]:
    """Sort key under which 6.1.0-9 comes before 6.1.0-10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def unpack(archive: Path, directory: Path) -> None:
    status, out, err = run([tool("dpkg-deb"), "-x", str(archive), str(directory)])
    if status != 0:
        raise FetchError(f"{archive.name}: {complaint(err + out)}")


def unpack_member(archive: Path, member: str, directory: Path) -> None:
    """Unpacks the files that match `member` (a tar wildcard) without writing any of the others."""
    source = subprocess.Popen(
        [tool("dpkg-deb"), "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        sink = subprocess.run(
            [tool("tar"), "-x", "-C", str(directory), "--no-same-owner", "--wildcards", member],
            stdin=source.stdout,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise FetchError(f"{archive.name}: not unpacked in {COMMAND_TIMEOUT:.0f} s") from None
    finally:
        if source.stdout:
            source.stdout.close()
        if source.poll() is None and sys.exc_info()[0] is not None:
            source.kill()
        failure = source.stderr.read().decode(errors="replace") if source.stderr else ""
        if source.stderr:
            source.stderr.close()
        source.wait()
    if sink.returncode != 0 or source.returncode != 0:
        raise FetchError(f"{archive.name}: {complaint(failure + sink.stderr)}")


class Cache:
    """The cache directory. Everything in it appears by rename, so what is there is whole."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        self.directory.mkdir(parents=True, exist_ok=True)
        with open(self.directory / "lock", "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                note("waiting for another fetch into this cache")
                fcntl.flock(lock, fcntl.LOCK_EX)
            for left in self.directory.glob("tmp.*"):  # of a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            yield

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        directory = Path(tempfile.mkdtemp(prefix="tmp.", dir=self.directory))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def tree(self, package: Package | dict[str, str], arch: str) -> Path:
        name, version = (
            (package["package"], package["version"])
            if isinstance(package, dict)
            else (package.name, package.version)
        )
        return self.directory / f"{name}_{version.replace(':', '%3a')}_{arch}"

    def resolved(self) -> dict[str, dict[str, str]]:
        """What each "ARCH [RELEASE] REGEX" resolved to; a damaged record counts as none."""
        try:
            record = json.loads((self.directory / "resolved.json").read_text())
            return {
                str(key): {"package": str(value["package"]), "version": str(value["version"])}
                for key, value in record.items()
            }
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            return {}

    def remember(self, key: str, package: Package) -> None:
        record = self.resolved()
        record[key] = {"package": package.name, "version": package.version}
        with self.scratch() as scratch:
            (scratch / "resolved.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
            (scratch / "resolved.json").replace(self.directory / "resolved.json")

    def add(self, index: Index, packages: list[Package], tree: Path, member: str | None = None) -> None:
        """Unpacks the packages together into `tree`, or only `member` of them; keeps no archive."""
        if tree.is_dir():
            return
        with self.scratch() as scratch:
            root = scratch / "root"
            root.mkdir(mode=0o755)
            for number, package in enumerate(packages):
                room = scratch / str(number)
                room.mkdir(mode=0o755)
                archive = index.download(package, room)
                if member is None:
                    unpack(archive, root)
                else:
                    unpack_member(archive, member, root)
                archive.unlink()
            root.replace(tree)


def add_newest(cache: Cache, index: Index, pattern: str) -> Package:
    """The newest matching package whose file the archive still has, unpacked in the cache."""
    gone: list[FetchError] = []
    without: set[str] = set()
    while True:
        try:
            package = index.resolve(pattern, without=without)
            cache.add(index, [package], cache.tree(package, index.arch))
        except FetchError as error:
            if error.gone:
                note(f"{error}; looking for an older one")
                gone.append(error)
                without.add(package.name)
                continue
            raise (gone[0] if error.unlisted and gone else error) from None
        return package


def only(directory: Path, *patterns: str) -> Path | None:
    """The first path that matches one of the patterns, in the order given."""
    for pattern in patterns:
        if found := sorted(directory.glob(pattern)):
            return found[0]
    return None


def release_of(package: str) -> str:
    return package.removeprefix("linux-image-").removesuffix("-unsigned")


def describe(cache: Cache, arch: str, entry: dict[str, str], debug: bool, headers: bool) -> Kernel | None:
    """The kernel as far as the cache has what was asked for; None if something is missing."""
    tree = cache.tree(entry, arch)
    vmlinuz = only(tree, "boot/vmlinuz-*", "boot/vmlinux-*")
    if vmlinuz is None:
        return None
    modules = only(tree, "lib/modules/*", "usr/lib/modules/*")
    release = modules.name if modules else release_of(entry["package"])
    vmlinux = header_tree = None
    if debug:
        vmlinux = only(
            cache.tree({**entry, "package": f"linux-image-{release}-dbg"}, arch),
            "usr/lib/debug/boot/vmlinux-*",
        )
    if headers:
        header_tree = only(
            cache.tree({**entry, "package": f"linux-headers-{release}"}, arch),
            f"usr/src/linux-headers-{release}",
        )
    if (debug and vmlinux is None) or (headers and header_tree is None):
        return None
    return Kernel(
        package=entry["package"],
        version=entry["version"],
        release=release,
        vmlinuz=str(vmlinuz),
        modules=str(modules) if modules else None,
        vmlinux=str(vmlinux) if vmlinux else None,
        headers=str(header_tree) if header_tree else None,
    )


def fetch(
    arch: str,
    pattern: str | None = None,
    *,
    release: str | None = None,
    debug: bool = False,
    headers: bool = False,
    refresh: bool = False,
    directory: Path | None = None,
) -> Kernel:
    """The newest kernel package whose whole name matches `pattern`, unpacked in the cache.

    A package that the index lists and the archive has dropped is passed over. release: one of RELEASES,
    instead of what the system's package sources are set up for. debug: also the vmlinux of the -dbg package
    of the same version. headers: also the packages needed to build modules for it, unpacked together.
    refresh: look for a newer package even if one is cached. Raises FetchError; OSError if the cache cannot
    be written.
    """
    if pattern is None:
        pattern = ARCHITECTURES[arch]
        if release:
            pattern = pattern.replace(re.escape("6.1."), re.escape(RELEASES[release] + "."))
    cache = Cache(directory or default_cache())
    key = f"{arch} {release} {pattern}" if release else f"{arch} {pattern}"

    def cached() -> Kernel | None:
        entry = cache.resolved().get(key)
        return describe(cache, arch, entry, debug, headers) if entry else None

    if not refresh and (kernel := cached()):
        return kernel
    with cache.locked():
        if not refresh and (kernel := cached()):  # another process fetched it meanwhile
            return kernel
        index = Index(cache.directory, arch, release)
        if refresh:
            index.update()
        entry = cache.resolved().get(key)
        if entry is None or refresh or describe(cache, arch, entry, False, False) is None:
            package = add_newest(cache, index, pattern)
            entry = {"package": package.name, "version": package.version}
            if describe(cache, arch, entry, False, False) is None:
                shutil.rmtree(cache.tree(entry, arch), ignore_errors=True)
                raise FetchError(f"{package.name}: no boot/vmlinuz in it, so not a kernel package")
            cache.remember(key, package)
        plain = describe(cache, arch, entry, False, False)
        assert plain is not None
        if debug:
            package = index.resolve(re.escape(f"linux-image-{plain.release}-dbg"), plain.version)
            member = "./usr/lib/debug/boot/vmlinux-*"
            cache.add(index, [package], cache.tree(package, arch), member)
        if headers:
            package = index.resolve(re.escape(f"linux-headers-{plain.release}"), plain.version)
            parts = [name for name in package.depends if re.match(r"linux-(headers|kbuild)-", name)]
            packages = [package, *(index.resolve(re.escape(name), plain.version) for name in parts)]
            cache.add(index, packages, cache.tree(package, arch))
        kernel = describe(cache, arch, entry, debug, headers)
        if kernel is None:
            raise FetchError(
                f"{plain.package} {plain.version}: its -dbg or headers package lacks the expected files"
            )
        return kernel


def fetch_tree(arch: str, pattern: str, *, directory: Path | None = None) -> Path:
    """Any package, unpacked in the cache: the directory that holds its files. Raises as `fetch` does."""
    cache = Cache(directory or default_cache())
    key = f"{arch} {pattern}"
    entry = cache.resolved().get(key)
    if entry and cache.tree(entry, arch).is_dir():
        return cache.tree(entry, arch)
    with cache.locked():
        index = Index(cache.directory, arch)
        package = index.resolve(pattern)
        cache.add(index, [package], cache.tree(package, arch))
        cache.remember(key, package)
        return cache.tree(package, arch)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="fetch_kernel.py",
        description="Fetch and unpack (never install) a Debian kernel package; prints JSON.",
    )
    parser.add_argument("--arch", choices=sorted(ARCHITECTURES), default="amd64")
    parser.add_argument(
        "--release", choices=list(RELEASES), help="of this Debian release, not of the one that runs here"
    )
    parser.add_argument("--package", metavar="REGEX", help="whole package name; the newest match is taken")
    parser.add_argument(
        "--debug", action="store_true", help="also the -dbg package's vmlinux (0.3-0.8 GB download)"
    )
    parser.add_argument("--headers", action="store_true", help="also what building modules needs")
    parser.add_argument("--refresh", action="store_true", help="look for a newer package than the cached one")
    parser.add_argument(
        "--cache", metavar="DIR", type=Path, help="default: $STACKFIT_CACHE or .cache/kernels"
    )
    options = parser.parse_args(arguments)
    try:
        if options.package is not None:
            re.compile(options.package)
        kernel = fetch(
            options.arch,
            options.package,
            release=options.release,
            debug=options.debug,
            headers=options.headers,
            refresh=options.refresh,
            directory=options.cache,
        )
    except FetchError as error:
        note(str(error))
        return 2
    except re.error as error:
        note(f"--package {options.package!r}: not a regular expression: {error}")
        return 2
    except OSError as error:
        note(f"{error.filename or options.cache or default_cache()}: {error.strerror or error}")
        return 2
    except KeyboardInterrupt:
        note("interrupted")
        return 2
    print(json.dumps(asdict(kernel), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Which modules of a kernel package the guest loads, each behind those that it depends on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stackfit.image.load import find_modules, load_image
from stackfit.image.model import InputError
from stackfit.pages.procfs import read_bytes, unpacked

__all__ = ["LoadOrder", "load_order", "module_files"]

_MOST_BYTES = 64 << 20  # of one module's file
# What the guest's disks, network and workloads need, where the kernel has it as modules.
BOOT = (
    "virtio_pci", "virtio_blk", "virtio_net", "crc32c_generic", "ext4", "loop", "nvme",
)  # fmt: skip
# … and what is there for its own sake.
STAY = (
    "overlay", "tun", "configfs", "lzo_rle", "zsmalloc", "zram", "af_alg", "algif_hash", "algif_skcipher",
    "vsock", "vsock_loopback", "fat", "vfat", "nls_cp437", "nls_ascii", "bridge", "8021q", "libcrc32c",
    "ip6_udp_tunnel", "sctp", "inet_diag", "tcp_diag", "unix_diag", "netlink_diag", "binfmt_misc", "ipip",
    "fuse",
)  # fmt: skip
CYCLE = ("dummy", "veth", "brd", "null_blk", "tcp_bbr", "macvlan", "ctr")


@dataclass(frozen=True)
class LoadOrder:
    """Modules by when they are loaded, dependencies first; `files` has the unpacked .ko of each."""

    boot: tuple[str, ...]
    stay: tuple[str, ...]
    cycle: tuple[str, ...]
    files: Mapping[str, bytes]

    def text(self) -> str:
        """The guest's list: a word and a name a line."""
        rows = [("boot", name) for name in self.boot]
        rows += [("stay", name) for name in self.stay]
        rows += [("cycle", name) for name in self.cycle]
        return "".join(f"{word} {name}\n" for word, name in rows)


def module_files(places: Iterable[str | Path]) -> dict[str, Path]:
    """Module name → file, of directories and files."""
    found: dict[str, Path] = {}
    for file in find_modules(places):
        found.setdefault(file.name.partition(".ko")[0].replace("-", "_"), file)
    return found


def load_order(files: Mapping[str, Path], more: Iterable[str] = ()) -> LoadOrder:
    """What of the lists above the kernel has as modules; `more`: names to load at boot too.

    A module that is built in, or not there, is left out: the workload that wants it does less. InputError:
    one of `more` is not there.
    """
    wanted = [name.replace("-", "_") for name in more]
    for name in wanted:
        if name not in files:
            raise InputError(name, "no such module among those given")
    data: dict[str, bytes] = {}
    done: set[str] = set()

    def closure(names: Iterable[str]) -> tuple[str, ...]:
        order: list[str] = []

        def visit(name: str) -> None:
            if name in done or name not in files:
                return
            done.add(name)
            for other in _depends(files[name]):
                visit(other)
            path = files[name]
            data[name] = unpacked(str(path), read_bytes(path, _MOST_BYTES))
            order.append(name)

        for name in names:
            visit(name)
        return tuple(order)

    return LoadOrder(closure((*BOOT, *wanted)), closure(STAY), closure(CYCLE), data)


def _depends(path: Path) -> tuple[str, ...]:
    """Modules that one names in its .modinfo; `softdep: pre:` ones first."""
    info = load_image(path).modinfo
    soft = info.get("softdep", "").partition("pre:")[2].partition("post:")[0].split()
    hard = [name for name in info.get("depends", "").split(",") if name]
    return tuple(name.replace("-", "_") for name in (*soft, *hard))

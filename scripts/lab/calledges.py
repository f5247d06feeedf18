#!/usr/bin/env python3
"""Record the calls that a stock Debian amd64 kernel makes: (return address, callee) of every one seen.

Usage: calledges.py [--lab DIR] [--out DIR] [--seconds N] [--no-boot] WORKLOAD...

WORKLOAD: development or judgement. Boots the kernel that `scripts/fetch_kernel.py --arch amd64` gives in
QEMU (TCG) with `nokaslr` and calledges_init.c, which runs the workload under ftrace's `function` tracer and
keeps every distinct pair; writes OUT/WORKLOAD.csv.xz, counts it against the call graph that stackfit makes
of the same files, and prints that. The same recording gives the same file; two runs differ by a few pairs.

The CSV has a heading and two columns, each pair once, rows sorted as text:

    return_address,callee

Both are places in code, in one of two forms:

    0xffffffff81...        in the kernel: a link address, 16 digits
    MODULE:SECTION+0x...   in a module: bytes from the start of that section of its .ko

callee          ftrace's `ip`: the address of the function's call to __fentry__. That is the function's
                entry, or entry + 4 in a kernel whose functions begin with endbr64 (CONFIG_X86_KERNEL_IBT;
                not this one).
return_address  ftrace's `parent_ip`: the word on top of the stack at the callee's entry, which is the
                address behind the call instruction. A function that was reached by tail jumps has the
                return address of the call that entered the first function that jumped.

The guest is told spectre_v2=retpoline,generic: indirect calls stay `call __x86_indirect_thunk_REG` and have
the return addresses of the image. Without, the kernel would patch shorter instructions into their places. It
does so for paravirt calls: `call *pv_ops+N(%rip)` (6 bytes) is `call FUNCTION` (5 bytes), so their return
addresses are one less than the image's. Static calls and alternatives are the running kernel's as well.

A pair with a side in no known section (generated code, a module that did not load) is left out and counted.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import re
import subprocess
import sys
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from build import HERE, newc, run

from stackfit.image.load import load_image

ROOT = HERE.parent.parent
WORKLOADS = ("development", "judgement")
CPUS = 2
OUTPUT = 32 << 20  # bytes of the disk that takes the recording
MODULES = (  # as in calledges_init.c
    "virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci",
    "virtio_blk", "failover", "net_failover", "virtio_net", "loop", "overlay", "tun", "configfs",
    "lzo_rle", "zsmalloc", "zram", "af_alg", "algif_hash", "algif_skcipher", "vsock",
    "vmw_vsock_virtio_transport_common", "vsock_loopback", "fat", "vfat", "nls_cp437", "nls_ascii",
    "llc", "stp", "bridge", "mrp", "garp", "8021q", "libcrc32c", "udp_tunnel", "ip6_udp_tunnel", "sctp",
    "inet_diag", "tcp_diag", "unix_diag", "netlink_diag", "binfmt_misc", "tunnel4", "ip_tunnel", "ipip",
    "fuse", "dummy", "veth", "brd", "null_blk", "tcp_bbr", "macvlan", "ctr",
)  # fmt: skip
FUNCTION_FORMAT = ("unsigned long ip;\toffset:8;\tsize:8", "unsigned long parent_ip;\toffset:16;\tsize:8")


@dataclass
class Recording:
    """What calledges_init.c wrote."""

    facts: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    # (first epoch, last epoch, module, {section: address}); see Places
    loads: list[tuple[int, int, str, dict[str, int]]] = field(default_factory=list)
    pairs: list[tuple[int, int, int]] = field(default_factory=list)  # epoch, return address, callee


def read_recording(text: str) -> Recording:
    if "@@ end of recording\n" not in text:
        raise SystemExit("the recording is cut short")
    recording, name = Recording(), ""
    open_loads: dict[str, int] = {}
    for line in text[: text.index("@@ end of recording\n")].splitlines():
        word, *rest = line.split() or [""]
        if name and line != "@@ end":
            recording.files[name] += line + "\n"
        elif word == "@@":
            name = rest[1] if rest[0] == "file" else ""
            if name:
                recording.files[name] = ""
        elif word == "#":
            recording.facts[rest[0]] = int(rest[1])
        elif word == "L":
            open_loads[rest[1]] = len(recording.loads)
            recording.loads.append((int(rest[0], 16), sys.maxsize, rest[1], {}))
        elif word == "S":
            recording.loads[open_loads[rest[0]]][3][rest[1]] = int(rest[2], 16)
        elif word == "U":
            index = open_loads.pop(rest[1])
            first, _, module, sections = recording.loads[index]
            recording.loads[index] = (first, int(rest[0], 16), module, sections)
        elif word == "P":
            recording.pairs.append((int(rest[0], 16), int(rest[1], 16), int(rest[2], 16)))
    return recording


class Places:
    """Addresses of one epoch as text. A module's .init sections are there while it loads, not longer."""

    def __init__(self, recording: Recording, epoch: int, sizes: dict[str, dict[str, int]]) -> None:
        text = recording.files["/stext"]
        self.kernel = [
            int(re.search(rf"^([0-9a-f]+) \w {name}$", text, re.M)[1], 16)  # type: ignore[index]
            for name in ("_stext", "_etext")
        ]
        ranges = []
        for first, last, module, sections in recording.loads:
            if not first <= epoch <= last:
                continue
            for section, address in sections.items():
                size = sizes[module].get(section, 0)
                if size and (not section.startswith(".init") or first == epoch > 0):
                    ranges.append((address, address + size, f"{module}:{section}"))
        self.ranges = sorted(ranges)
        self.starts = [one[0] for one in self.ranges]

    def name(self, address: int, behind: int) -> str | None:
        """`behind`: 1 for a return address, which may be the end of its section; else 0."""
        if self.kernel[0] <= address - behind < self.kernel[1]:
            return f"{address:#018x}"
        index = bisect_right(self.starts, address - behind) - 1
        if index < 0 or address - behind >= self.ranges[index][1]:
            return None
        return f"{self.ranges[index][2]}+{address - self.ranges[index][0]:#x}"


def code_sizes(files: list[Path]) -> dict[str, dict[str, int]]:
    """Module → executable section → bytes."""
    sizes = {}
    for file in files:
        image = load_image(file)
        sizes[image.module or file.stem] = {s.name: s.size for s in image.sections if s.executable}
    return sizes


def convert(recording: Recording, files: list[Path]) -> tuple[list[tuple[str, str]], Counter[str]]:
    """The pairs, sorted, and what was left out."""
    event = recording.files["/sys/kernel/tracing/events/ftrace/function/format"]
    if not all(line in event for line in FUNCTION_FORMAT):
        raise SystemExit("this kernel's function event has another format")
    sizes = code_sizes(files)
    places: dict[int, Places] = {}
    rows, dropped = set(), Counter[str]()
    for epoch, back, callee in recording.pairs:
        if epoch not in places:
            places[epoch] = Places(recording, epoch, sizes)
        here = places[epoch]
        names = here.name(back, 1), here.name(callee, 0)
        if names[0] is None or names[1] is None:
            dropped["callee" if names[0] else "return address" if names[1] else "both"] += 1
        else:
            rows.add((names[0], names[1]))
    return sorted(rows), dropped


def compare(rows: list[tuple[str, str]], vmlinuz: Path, files: list[Path]) -> Counter[str]:
    """Count the pairs by what stackfit has at their return addresses and callees."""
    import numpy as np

    from stackfit.analysis import analyse
    from stackfit.calls.model import CallKind

    analysis = analyse([vmlinuz], modules=files)
    base = {
        f"{image.module}:{section.name}": section.address
        for image in analysis.program.images[1:]
        for section in image.sections
        if section.executable
    }

    def address(place: str) -> int:
        section, _, offset = place.rpartition("+")
        return base[section] + int(offset, 16) if section else int(place, 16)

    calls, code = analysis.calls, analysis.code
    entries = {int(one): n for n, one in enumerate(code.address[code.first[:-1]])}
    sites: dict[int, list[int]] = {}
    for n in np.flatnonzero(calls.return_address):
        sites.setdefault(int(calls.return_address[n]), []).append(int(n))
    tails: dict[int, list[int]] = {}  # function → its sites that leave by a jump
    for n in np.flatnonzero(calls.tail):
        tails.setdefault(int(calls.function[n]), []).append(int(n))

    def reached(functions: set[int]) -> tuple[set[int], bool]:
        """Functions entered with the same return address, and whether one of them jumps indirectly."""
        found, left, indirect = set(functions), list(functions), False
        while left:
            for n in tails.get(left.pop(), []):
                indirect |= calls.kind[n] == CallKind.INDIRECT_TAIL
                if calls.candidates[n] >= 0:
                    new = set(calls.candidate_sets[calls.candidates[n]]) - found
                    found |= new
                    left += new
        return found, indirect

    counts = Counter[str]()
    for back, callee in rows:
        target = entries.get(address(callee))
        counts["pairs"] += 1
        counts["callee is a function's entry"] += target is not None
        here = sites.get(address(back), [])
        if not here:
            short = sites.get(address(back) + 1)
            counts["patched paravirt site" if short else "return address behind no call site"] += 1
            continue
        kinds = "/".join(sorted({CallKind(calls.kind[n]).label for n in here}))
        sets = [calls.candidate_sets[calls.candidates[n]] for n in here if calls.candidates[n] >= 0]
        known = {one for candidates in sets for one in candidates}
        found, indirect = reached(known)
        if not known:
            kind = "no candidates"
        elif target in known:
            kind = "a candidate"
        elif target in found:
            kind = "reached from a candidate by tail jumps"
        else:
            kind = "maybe by an indirect tail jump of a candidate" if indirect else "not reached"
        counts[f"{kinds} site: {kind}"] += 1
    return counts


def boot(lab: Path, workload: str, kernel: dict[str, str], files: list[Path], seconds: int) -> str:
    """Run the guest; return what it wrote."""
    binary = lab / "build" / "calledges_init"
    flags = ["-O2", "-static", "-s", "-pthread", "-Wall", "-Wextra", "-Wno-unused-result"]
    run("gcc", *flags, "-o", binary, HERE / "calledges_init.c")
    entries = [(name, 0o040755, b"", 0, 0) for name in ("bin", "dev", "proc", "sys", "tmp", "modules")]
    entries.append(("dev/console", 0o020600, b"", 5, 1))
    entries.append(("init", 0o100755, binary.read_bytes(), 0, 0))
    entries.append(("bin/busybox", 0o100755, Path("/bin/busybox").read_bytes(), 0, 0))
    entries += [(f"modules/{load_image(f).module}.ko", 0o100644, f.read_bytes(), 0, 0) for f in files]
    initramfs = lab / "build" / "calledges.gz"
    initramfs.write_bytes(gzip.compress(newc(entries), 1, mtime=0))
    disks = {"output": OUTPUT, "ext4": 256 << 20, "nvme": 256 << 20}
    for name, size in disks.items():
        path = lab / "build" / f"calledges.{name}"
        path.unlink(missing_ok=True)
        with path.open("wb") as file:
            file.truncate(size)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-F", lab / "build" / "calledges.ext4"], check=True)
    log = lab / "runs" / f"calledges-{workload}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    words = (
        f"console=ttyS0 quiet panic=-1 loglevel=4 nokaslr spectre_v2=retpoline,generic workload={workload}"
    )
    subprocess.run(
        [
            "nice", "qemu-system-x86_64", "-accel", "tcg", "-M", "pc", "-cpu", "max,la57=off", "-m", "384",
            "-smp", str(CPUS), "-kernel", kernel["vmlinuz"], "-initrd", initramfs,
            "-append", f"{words} workload={workload} seconds={seconds}",
            "-drive", f"file={lab}/build/calledges.output,format=raw,if=virtio",
            "-drive", f"file={lab}/build/calledges.ext4,format=raw,if=virtio",
            "-drive", f"file={lab}/build/calledges.nvme,format=raw,if=none,id=nvme",
            "-device", "nvme,drive=nvme,serial=calledges",
            "-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile=",
            "-display", "none", "-monitor", "none", "-no-reboot", "-serial", f"file:{log}",
        ],
        check=True,
        timeout=1500,
    )  # fmt: skip
    return (lab / "build" / "calledges.output").read_bytes().split(b"\0")[0].decode()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lab", type=Path, default=Path("build/lab"))
    parser.add_argument("--out", type=Path, default=ROOT / "fixtures/recordings/calledges-amd64")
    parser.add_argument("--seconds", type=int, default=45, help="begin rounds of the workload for so long")
    parser.add_argument("--no-boot", action="store_true", help="convert what was recorded last")
    parser.add_argument("workloads", nargs="+", choices=WORKLOADS, metavar="WORKLOAD")
    arguments = parser.parse_args()
    fetch = [sys.executable, ROOT / "scripts/fetch_kernel.py", "--arch", "amd64"]
    kernel = json.loads(subprocess.run(fetch, check=True, capture_output=True, text=True).stdout)
    by_name = {file.stem.replace("-", "_"): file for file in sorted(Path(kernel["modules"]).rglob("*.ko"))}
    files = [by_name[name] for name in MODULES]
    arguments.lab.joinpath("build").mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for workload in arguments.workloads:
        raw = arguments.lab / "build" / f"calledges-{workload}.txt"
        if not arguments.no_boot:
            raw.write_text(boot(arguments.lab, workload, kernel, files, arguments.seconds))
        recording = read_recording(raw.read_text())
        rows, dropped = convert(recording, files)
        text = "return_address,callee\n" + "".join(f"{back},{callee}\n" for back, callee in rows)
        (arguments.out / f"{workload}.csv.xz").write_bytes(lzma.compress(text.encode(), preset=9))
        print(f"{workload}: {kernel['package']} {kernel['version']}")
        for name, count in recording.facts.items():
            print(f"{count:>12,} {name}")
        for name, count in sorted(dropped.items()):
            print(f"{count:>12,} left out: {name} in no known section")
        for name, count in sorted(compare(rows, Path(kernel["vmlinuz"]), files).items()):
            print(f"{count:>12,} {name}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Record a page trace of a stock Debian i386 kernel (pagetrace_init.c).

Usage: pagetrace.py [--lab DIR] [--kernel DIR] [--symbols VMLINUX] [--no-boot]

--kernel is the unpacked image package (boot/vmlinuz-*, lib/modules/*), --symbols the
vmlinux with symbols that names the callers.  Output in DIR/pagetrace: events.csv.xz
and the snapshots: a recording for `stackfit simulate --replay`.
"""

import argparse
import gzip
import io
import lzma
import re
import struct
import subprocess
import tarfile
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build import CROSS, HERE, newc

PAGE = 4096
RAW_OFFSET = 8 << 20
DISK = 192 << 20
MODULES = (
    "virtio/virtio", "virtio/virtio_ring", "virtio/virtio_pci_legacy_dev",
    "virtio/virtio_pci_modern_dev", "virtio/virtio_pci", "block/virtio_blk",
)  # fmt: skip


@dataclass(frozen=True)
class Field:
    name: str
    offset: int
    size: int
    signed: bool


@dataclass(frozen=True)
class Event:
    name: str
    fields: tuple[Field, ...]


def read_format(text: str) -> tuple[int, Event]:
    """One tracefs `format` file → (id, event without the common fields)."""
    head = re.search(r"^name: (\S+)\nID: (\d+)", text, re.M)
    if head is None:
        raise SystemExit("not a tracefs format file")
    name, number = head[1], int(head[2])
    fields = [
        Field(match[1], int(match[2]), int(match[3]), match[4] == "1")
        for match in re.finditer(
            r"field:[^;]*?(\w+)(?:\[\w*\])?;\s*offset:(\d+);\s*size:(\d+);\s*signed:(\d);", text
        )
        if not match[1].startswith("common_")
    ]
    return number, Event(name, tuple(fields))


def ring_records(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """(time in ns, payload) of every record of consecutive i386 ring-buffer pages."""
    for base in range(0, len(raw), PAGE):
        time, commit = struct.unpack_from("<QI", raw, base)
        size = commit & 0xFFFFF
        if size == 0:
            return
        if commit & (1 << 31):
            raise SystemExit(f"page {base // PAGE}: events were lost")
        position, end = base + 12, base + 12 + size
        while position < end:
            (head,) = struct.unpack_from("<I", raw, position)
            kind, delta = head & 31, head >> 5
            position += 4
            if kind == 29:  # padding
                if delta == 0:
                    break
                time += delta
                position += struct.unpack_from("<I", raw, position)[0]
            elif kind == 30:  # time extend
                time += delta + (struct.unpack_from("<I", raw, position)[0] << 27)
                position += 4
            elif kind == 31:  # absolute time
                time = (time & ~((1 << 59) - 1)) | (
                    delta + (struct.unpack_from("<I", raw, position)[0] << 27)
                )
                position += 4
            else:
                time += delta
                length = kind * 4
                if kind == 0:
                    length = struct.unpack_from("<I", raw, position)[0] - 4
                    position += 4
                yield time, raw[position : position + length]
                position += length


def free_sites(vmlinux: Path) -> list[tuple[str, int]]:
    """Where a block joins the free lists without the drain event: (caller, offset) of the calls.

    __free_one_page itself takes no kprobe (an `inline` function is notrace), so the
    probes sit on the call instructions: page in ax, pfn in dx, order and migratetype
    on top of the stack.
    """
    out = subprocess.run([f"{CROSS}nm", "-n", vmlinux], check=True, capture_output=True, text=True).stdout
    rows = [row for line in out.splitlines() if len(row := line.split()) == 3 and row[1] in "tT"]
    addresses, names = [int(row[0], 16) for row in rows], [row[2] for row in rows]
    around = addresses[names.index("__free_one_page")]
    listing = subprocess.run(
        [f"{CROSS}objdump", "-d", "--no-show-raw-insn", f"--start-address={around}",
         f"--stop-address={around + 0x8000}", vmlinux],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    sites = []
    for site in re.findall(r"^([0-9a-f]+):\s+call\s+[0-9a-f]+ <__free_one_page>", listing, re.M):
        index = bisect_right(addresses, int(site, 16)) - 1
        if names[index] != "free_pcppages_bulk":  # has the event
            sites.append((names[index], int(site, 16) - addresses[index]))
    return sites


def probes(sites: list[tuple[str, int]]) -> str:
    lines = [
        f"p:free_{n} {name}+{offset} page=%ax:u32 pfn=%dx:u32 order=$stack0:u32 migratetype=$stack1:s32"
        for n, (name, offset) in enumerate(sites)
    ]
    lines.append("p:isolate_free_page __isolate_free_page page=%ax:u32 order=%dx:u32")
    lines.append("r:isolate_free_page_done __isolate_free_page pages=$retval:s32")
    return "\n".join(lines) + "\n"


def decode(raw: bytes, events: dict[int, Event]) -> Iterator[tuple[int, int, str, dict[str, Any]]]:
    """(time, pid, event, fields) of every record."""
    for time, payload in ring_records(raw):
        kind, _, _, pid = struct.unpack_from("<HBBi", payload)
        event = events[kind]
        if event.name == "print":
            text = payload[event.fields[-1].offset :].split(b"\0")[0].decode().strip()
            yield time, pid, "print", {"text": text}
            continue
        values = {}
        for field in event.fields:
            if field.name not in ("__probe_ip", "__probe_func", "__probe_ret_ip"):
                content = payload[field.offset : field.offset + field.size]
                values[field.name] = int.from_bytes(content, "little", signed=field.signed)
        yield time, pid, event.name, values


def convert(disk: Path, out: Path, vmlinux: Path) -> None:
    """Take the archive and the trace off the guest's disk; write events.csv.xz and snapshots."""
    data = disk.read_bytes()
    events: dict[int, Event] = {}
    with tarfile.open(fileobj=io.BytesIO(data[:RAW_OFFSET])) as archive:
        for member in archive.getmembers():
            file = archive.extractfile(member)
            content = file.read() if file else b""
            if member.name.startswith("formats/"):
                number, event = read_format(content.decode())
                events[number] = event
            elif member.name.startswith("kpageflags-"):
                (out / f"{member.name}.gz").write_bytes(gzip.compress(content, mtime=0))
            else:
                (out / member.name).write_bytes(content)
    sites = [name.split(".")[0] for name, _ in free_sites(vmlinux)]
    page_size = 40  # sizeof(struct page) of this kernel; checked against every (page, pfn) pair
    rows = list(decode(data[RAW_OFFSET:], events))
    bases = {
        (v["page"] - v["pfn"] * page_size) & 0xFFFFFFFF for _, _, _, v in rows if {"page", "pfn"} <= v.keys()
    }
    if len(bases) != 1:
        raise SystemExit(f"page and pfn disagree: {len(bases)} values of mem_map")
    mem_map = bases.pop()
    waiting: tuple[int, int, dict[str, int]] | None = None
    with lzma.open(out / "events.csv.xz", "wt", preset=9) as csv:
        for time, pid, name, values in rows:
            tail = ""
            if "text" in values:
                csv.write(f"{time},{pid},{name},{values['text']}\n")
                continue
            if name == "isolate_free_page":
                waiting = (time, pid, {"pfn": (values.pop("page") - mem_map) // page_size} | values)
                continue
            if name == "isolate_free_page_done":
                if waiting is None:
                    raise SystemExit("a return of __isolate_free_page without its entry")
                time, pid, entry = waiting
                name, values, waiting = "isolate_free_page", entry | {"isolated": values["pages"]}, None
            elif name.startswith("free_"):
                tail = f",caller={sites[int(name.removeprefix('free_'))]}"
                name = "free_one_page"
                del values["page"]
            csv.write(f"{time},{pid},{name},{','.join(f'{k}={v}' for k, v in values.items())}{tail}\n")


def boot(lab: Path, kernel: Path, vmlinux: Path) -> Path:
    """Run the guest; return its disk."""
    binary = lab / "build" / "pagetrace_init"
    subprocess.run(
        [
            "nice",
            f"{CROSS}gcc",
            "-Os",
            "-Wall",
            "-Wextra",
            "-static",
            "-s",
            "-o",
            binary,
            HERE / "pagetrace_init.c",
        ],
        check=True,
    )
    drivers = next((kernel / "lib" / "modules").iterdir()) / "kernel" / "drivers"
    entries = [(name, 0o040755, b"", 0, 0) for name in ("dev", "proc", "sys", "tmp", "modules")]
    entries.append(("dev/console", 0o020600, b"", 5, 1))
    entries.append(("init", 0o100755, binary.read_bytes(), 0, 0))
    entries.append(("probes", 0o100644, probes(free_sites(vmlinux)).encode(), 0, 0))
    entries += [
        (f"modules/{Path(m).name}.ko", 0o100644, (drivers / f"{m}.ko").read_bytes(), 0, 0) for m in MODULES
    ]
    initramfs = lab / "build" / "pagetrace.gz"
    initramfs.write_bytes(gzip.compress(newc(entries), mtime=0))
    disk = lab / "build" / "pagetrace.disk"
    disk.unlink(missing_ok=True)
    with disk.open("wb") as file:
        file.truncate(DISK)
    image = next((kernel / "boot").glob("vmlinuz-*"))
    log = lab / "runs" / "pagetrace.log"
    subprocess.run(
        [
            "nice", "qemu-system-i386", "-accel", "tcg", "-M", "pc", "-m", "128", "-smp", "1",
            "-kernel", image, "-initrd", initramfs,
            "-append", "console=ttyS0 quiet panic=-1 loglevel=4 nokaslr",
            "-drive", f"file={disk},format=raw,if=virtio", "-display", "none", "-monitor", "none",
            "-no-reboot", "-nic", "none", "-serial", f"file:{log}",
        ],
        check=True,
        timeout=1200,
    )  # fmt: skip
    return disk


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lab", type=Path, default=Path("build/lab"))
    parser.add_argument(
        "--kernel", type=Path, default=Path("build/lab/kernel"), help="unpacked kernel package"
    )
    parser.add_argument("--symbols", type=Path, required=True)
    parser.add_argument("--no-boot", action="store_true")
    arguments = parser.parse_args()
    out = arguments.lab / "pagetrace"
    out.mkdir(parents=True, exist_ok=True)
    disk = arguments.lab / "build" / "pagetrace.disk"
    if not arguments.no_boot:
        disk = boot(arguments.lab, arguments.kernel, arguments.symbols)
    convert(disk, out, arguments.symbols)
    print(f"recorded; to compare: stackfit simulate --replay {out}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Run the process experiment in QEMU (software emulation) and summarise its logs.

Usage: run.py [--lab DIR] [--summary-only] [CASE...]     (no CASE: all of them)

A case is VARIANT-MEMORY-STATE-KIND[-FREE], e.g. A-32-anon-process or, with the free
memory before the first step brought down to FREE kB, A-32-fresh-process-23648.
Each leaves runs/CASE.log (the serial line); summary.tsv has one row a case.
"""

import argparse
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

# The counts measured earlier with another init on the same kernel version.
EARLIER = {
    "A-32-fresh-process": 683,
    "B-32-fresh-process": 774,
    "A-32-anon-process": 41,
    "B-32-anon-process": 387,
    "A-32-ramfs-process": 134,
    "B-32-ramfs-process": 359,
    "A-32-ramfs-thread": 148,
    "B-32-ramfs-thread": 1507,
}
CASES = [
    *EARLIER,
    "A-32-fresh-thread",
    "B-32-fresh-thread",
    "A-32-anon-thread",
    "B-32-anon-thread",
    *(f"{v}-48-fresh-{k}" for k in ("process", "thread") for v in "AB"),
    *(f"{v}-64-{s}-{k}" for s in ("fresh", "anon") for k in ("process", "thread") for v in "AB"),
]
PROCESSOR = "pentium3"
TIMEOUT = 900  # seconds of wall clock for one case


@dataclass(frozen=True)
class Outcome:
    """What one log says; sizes in kB, free blocks by order 0, 1, 2…"""

    case: str
    processes: int
    stopped_by: str
    order: int
    gfp: str
    caller: str
    free_before: int
    buddy_before: str
    free_after: int
    buddy_after: str


def boot(lab: Path, case: str, extra: str = "") -> Path:
    """Run one case; return its log."""
    variant, memory, state, kind, *ballast = case.split("-")
    image = variant + ("-trace" if "trace=" in extra else "")
    words = f"state={state} kind={kind}" + (f" ballast={ballast[0]}" if ballast else "")
    append = f"console=ttyS0,115200 panic=-1 norandmaps loglevel=7 {words} {extra}"
    log = lab / "runs" / f"{case}{'-trace' if 'trace=' in extra else ''}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        "nice", "qemu-system-i386", "-accel", "tcg", "-M", "pc", "-cpu", PROCESSOR, "-m", memory,
        "-kernel", str(lab / "build" / f"bzImage-{image}"),
        "-initrd", str(lab / "build" / "initramfs.gz"), "-append", append,
        "-display", "none", "-monitor", "none", "-no-reboot", "-nic", "none",
        "-serial", f"file:{log}",
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=TIMEOUT)
    return log


def sections(text: str) -> dict[tuple[str, int, str], str]:
    """The files init printed, by (mark, children made, path)."""
    found = {}
    for mark, made, path, body in re.findall(r"@@ (\w+) (\d+) (/\S+)\n(.*?)@@ end\n", text, re.S):
        lines = [line for line in body.splitlines() if not re.match(r"\[ *\d+\.\d+\]", line)]
        found[mark, int(made), path] = "\n".join(lines) + "\n"
    return found


def read_log(path: Path) -> str:
    return path.read_text(errors="replace").replace("\r\n", "\n")


def meminfo(text: str) -> dict[str, int]:
    return {m[0]: int(m[1]) for m in re.findall(r"^(\S+): +(\d+)", text, re.M)}


def normal_zone(text: str) -> list[int]:
    match = re.search(r"zone +Normal +([\d ]+)", text)
    return [int(word) for word in match[1].split()] if match else []


def kernel_lines(text: str) -> str:
    """The log without time stamps."""
    return re.sub(r"^\[ *\d+\.\d+\] ?", "", text, flags=re.M)


def outcome(case: str, path: Path) -> Outcome:
    text = read_log(path)
    shown = sections(text)
    before = meminfo(shown.get(("before", 0, "/proc/meminfo"), ""))
    buddy = normal_zone(shown.get(("before", 0, "/proc/buddyinfo"), ""))
    kernel = kernel_lines(text)
    oom = re.search(r"invoked oom-killer: gfp_mask=(\S+), order=(-?\d+)", kernel)
    failed = re.search(r"@@ error (\d+)", text)
    made = max([n for mark, n, _ in shown if mark in ("made", "failed")], default=0)
    processes, order, gfp, caller, stopped = made, -1, "", "", "nothing"
    free_after, buddy_after = -1, ""
    if oom:
        stopped, gfp, order = "oom", oom[1].strip(",").split("(")[-1].rstrip(")"), int(oom[2])
        tasks = re.findall(r"^\[ *(\d+)\] +\d+ +\d+ .* init$", kernel[oom.start() :], re.M)
        processes = len(tasks) - 1  # init itself
        trace = re.findall(r"^ ([\w.]+)\+0x", kernel[oom.start() :], re.M)
        plain = {"dump_stack", "dump_header", "out_of_memory", "copy_process"}
        caller = next((f for f in trace if f.startswith(("copy_process", "handle_mm", "do_fault"))), "")
        caller = caller or next((f for f in trace if f not in plain), "")
        tail = kernel[oom.start() :]
        blocks = re.search(r"^Normal: (.*) = (\d+)kB", tail, re.M)
        if blocks:
            free_after = int(blocks[2])
            buddy_after = " ".join(re.findall(r"(\d+)\*\d+kB", blocks[1]))
    elif failed:
        stopped = f"errno {failed[1]}"
        after = meminfo(shown.get(("failed", made, "/proc/meminfo"), ""))
        free_after = after.get("MemFree", -1)
    return Outcome(
        case, processes, stopped, order, gfp, caller, before.get("MemFree", -1),
        " ".join(map(str, buddy)), free_after, buddy_after,
    )  # fmt: skip


def summarise(lab: Path) -> None:
    columns = list(Outcome.__dataclass_fields__)
    rows = ["\t".join([*columns, "earlier"])]
    for path in sorted((lab / "runs").glob("*.log")):
        if path.stem.endswith("trace"):
            continue
        result = outcome(path.stem, path)
        values = [str(getattr(result, name)) for name in columns]
        rows.append("\t".join([*values, str(EARLIER.get("-".join(path.stem.split("-")[:4]), ""))]))
    (lab / "summary.tsv").write_text("\n".join(rows) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lab", type=Path, default=Path("build/lab"))
    parser.add_argument("--summary-only", action="store_true")
    parser.add_argument("--extra", default="", help="more kernel command line words")
    parser.add_argument("cases", nargs="*", metavar="CASE")
    arguments = parser.parse_args()
    if not arguments.summary_only:
        for case in arguments.cases or CASES:
            log = boot(arguments.lab, case, arguments.extra)
            if "trace=" not in arguments.extra:
                result = outcome(case, log)
                print(
                    case,
                    result.processes,
                    result.stopped_by,
                    "order",
                    result.order,
                    result.caller,
                    flush=True,
                )
    summarise(arguments.lab)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Record the calls that a stock Debian amd64 kernel makes: (return address, callee) of every one seen.

Usage: calledges.py [--out DIR] [--seconds N] [--keep DIR] WORKLOAD...

WORKLOAD: development or judgement, the groups of `stackfit lab workloads`. Boots the kernel that
`scripts/fetch_kernel.py --arch amd64` gives in QEMU with stackfit's own guest, which runs the workload under
ftrace's `function` tracer and keeps every distinct pair; writes OUT/WORKLOAD.csv.xz, and prints how the pairs
stand in the call graph that stackfit makes of the same files. Two runs differ by a few pairs.

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
import json
import lzma
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from stackfit.analysis import analyse
from stackfit.lab.qemu import MachineOptions
from stackfit.lab.run import STEPS, record

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "fixtures/recordings/calledges-amd64")
    parser.add_argument("--seconds", type=int, default=45, help="begin rounds of the workload for so long")
    parser.add_argument("--keep", type=Path, help="leave console and raw output there")
    parser.add_argument("workloads", nargs="+", choices=sorted(STEPS), metavar="WORKLOAD")
    arguments = parser.parse_args()
    fetch = [sys.executable, ROOT / "scripts/fetch_kernel.py", "--arch", "amd64"]
    kernel = json.loads(subprocess.run(fetch, check=True, capture_output=True, text=True).stdout)
    vmlinuz, modules = Path(kernel["vmlinuz"]), [kernel["modules"]]
    analysis = analyse([vmlinuz], modules)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for workload in arguments.workloads:
        recording = record(
            vmlinuz,
            modules,
            [workload],
            MachineOptions(timeout=1500),
            stacks=False,
            edges=True,
            seconds=arguments.seconds,
            keep=arguments.keep,
            told=lambda text: print(text, file=sys.stderr),
        )
        rows = sorted(f"{back},{callee}\n" for back, _, callee, _ in recording.pairs)
        text = "return_address,callee\n" + "".join(rows)
        (arguments.out / f"{workload}.csv.xz").write_bytes(lzma.compress(text.encode(), preset=9))
        print(f"{workload}: {kernel['package']} {kernel['version']}, {len(rows):,} pairs")
        for reason, count in recording.left_out.items():
            print(f"{count:>12,} left out: {reason}")
        for seen, count in replace(analysis, recordings=(recording,)).exercised.counts.items():
            print(f"{count:>12,} {seen.label}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Holds frames of objects against gcc's -fstack-usage, for each cross compiler there is.

    compare_frames.py                                a thousand generated functions at -O0, -O2 and -Os
    compare_frames.py --flags "-Iinclude" FILE.c…    real sources; what does not compile is left out

Prints a line for each target and level: rows of gcc, static ones that name one function, how many are equal;
then every one that is not. The exit status is 1 where one differs that EXCEPTIONS does not explain.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from stackfit.analysis import Analysis, analyse
from stackfit.frames.arguments import may_store_arguments
from stackfit.frames.model import OPEN_FRAME
from stackfit.frames.usage import UsageDifference
from stackfit.image.model import Machine

TARGETS = {
    "cortex-m0": "arm-none-eabi-gcc -mcpu=cortex-m0 -mthumb",
    "cortex-m3": "arm-none-eabi-gcc -mcpu=cortex-m3 -mthumb",
    "cortex-m4f": "arm-none-eabi-gcc -mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16",
    "cortex-a7": "arm-none-eabi-gcc -mcpu=cortex-a7 -marm -mfloat-abi=hard -mfpu=neon-vfpv4",
    "rv32imac": "riscv64-unknown-elf-gcc -march=rv32imac -mabi=ilp32",
    "rv32imac-save": "riscv64-unknown-elf-gcc -march=rv32imac -mabi=ilp32 -msave-restore",
    "rv64gc": "riscv64-unknown-elf-gcc -march=rv64gc -mabi=lp64d -mcmodel=medany",
    "aarch64": "aarch64-linux-gnu-gcc",
}
LEVELS = ("-O0", "-O2", "-Os")
EXCEPTIONS = (
    "Arm: a function without calls that fills all it allocates with argument registers: they may be variable"
    " arguments, which gcc does not count (frames/arguments.py)",
    "RISC-V -msave-restore: gcc counts the save of a function that tail-calls without it",
)
COMMON = ("-ffreestanding", "-fno-stack-protector", "-w", "-fstack-usage")


def explained(analysis: Analysis, one: UsageDifference) -> bool:
    """Whether a difference is one of EXCEPTIONS."""
    if analysis.program.machine is Machine.ARM:
        return one.frame - one.row.bytes == may_store_arguments(analysis.code, one.function) > 0
    return one.frame == 0 and one.row.bytes == 16


def compared(directory: Path, target: str, level: str, sources: list[Path], flags: list[str]) -> bool:
    """Compile, print, and tell whether all that is left is explained."""
    objects = []
    for number, source in enumerate(sources):
        made = directory / f"{number}-{source.stem}.o"
        command = [*shlex.split(TARGETS[target]), level, *COMMON, *flags, "-c", str(source), "-o", str(made)]
        if subprocess.run(command, capture_output=True).returncode == 0:
            objects.append(made)
    if not objects:
        print(f"{target} {level}: nothing compiles")
        return False
    archive = directory / "all.a"
    subprocess.run(["ar", "rc", str(archive), *map(str, objects)], check=True)
    analysis = analyse([archive], witnesses=[directory])
    usage = analysis.stated[0].usage
    static = usage.kinds[0]
    other = [one for one in usage.differences if one.row.kind == "static"]
    bad = [one for one in other if not explained(analysis, one)]
    print(
        f"{target} {level}: {len(objects)} objects, {sum(one.rows for one in usage.kinds)} rows,"
        f" {static.compared + static.open} static of one function: {static.equal} equal,"
        f" {len(other) - len(bad)} explained, {len(bad)} not, {static.open} open",
        flush=True,
    )
    for one in other:
        name = analysis.code.functions.names[one.function]
        print(f"  {name}: gcc {one.row.bytes}, here {one.frame}{'' if one in bad else ' (explained)'}")
    for function, row in usage.pairs:
        if row.kind == "static" and int(analysis.frames.summary[function]) & OPEN_FRAME:
            print(f"  {row.function}: gcc {row.bytes}, open here")
    return not bad and not static.open


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sources", nargs="*", type=Path, metavar="FILE.c")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--levels", nargs="+", default=list(LEVELS), metavar="O2", help="without the dash")
    parser.add_argument("--functions", type=int, default=500, help="pairs of functions to generate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--flags", type=shlex.split, default=[], help="further flags of the compilers")
    options = parser.parse_args(arguments)
    good = True
    for target in options.targets:
        if shutil.which(shlex.split(TARGETS[target])[0]) is None:
            print(f"{target}: no compiler")
            continue
        for level in options.levels:
            with tempfile.TemporaryDirectory() as name:
                sources = options.sources or [generated(Path(name), options.functions, options.seed)]
                level = level if level.startswith("-") else f"-{level}"
                good &= compared(Path(name), target, level, sources, options.flags)
    print("exceptions:", *(f"\n  {text}" for text in EXCEPTIONS))
    return 0 if good else 1


def generated(directory: Path, functions: int, seed: int) -> Path:
    path = directory / "functions.c"
    script = Path(__file__).with_name("generate_c.py")
    command = [sys.executable, str(script), str(functions), str(seed)]
    path.write_text(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return path


if __name__ == "__main__":
    sys.exit(main())

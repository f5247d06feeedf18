"""Compiles small functions for tests with the gcc at hand; skips where there is none."""

from __future__ import annotations

import functools
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from stackfit.image.elf import read_elf
from stackfit.image.model import Image, Machine

FLAGS = ("-ffreestanding", "-fno-pic", "-fno-stack-protector", "-fcf-protection=none", "-fno-asynchronous-unwind-tables")
MACHINES = {64: Machine.X86_64, 32: Machine.I386}


@functools.cache
def has_gcc(bits: int) -> bool:
    """Whether gcc is here and compiles for that mode."""
    if shutil.which("gcc") is None:
        return False
    command = ["gcc", f"-m{bits}", "-x", "c", "-c", "-o", "/dev/null", "-"]
    return subprocess.run(command, input=b"int f;", capture_output=True).returncode == 0


def compile_object(directory: Path, source: str, bits: int, *options: str, suffix: str = ".c") -> Path:
    """A relocatable object made of C (or, with suffix .s, assembly) source."""
    if not has_gcc(bits):
        pytest.skip(f"no gcc for -m{bits}")
    path = directory / f"code{bits}{suffix}"
    path.write_text(source)
    output = path.with_suffix(".o")
    command = ["gcc", f"-m{bits}", *FLAGS, *options, "-w", "-c", str(path), "-o", str(output)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=directory)
    assert result.returncode == 0, result.stderr
    return output


def compiled(directory: Path, source: str, bits: int, *options: str, suffix: str = ".c") -> Image:
    path = compile_object(directory, source, bits, *options, suffix=suffix)
    return read_elf(path.name, path.read_bytes())


def generated_function(seed: int) -> str:
    """A C function of random shape: arrays, calls with many arguments, loops, switches, wide arithmetic."""
    rng = random.Random(seed)
    name = f"f{seed}"
    arguments = rng.randint(0, 8)
    parameters = ", ".join(f"{rng.choice(['int', 'long', 'char *', 'long long'])} a{i}" for i in range(arguments))
    use = " + ".join([f"(long)a{i}" for i in range(arguments)] or ["1"])
    lines = [f"{rng.choice(['int', 'long', 'long long'])} {name}({parameters or 'void'}) {{", f"    long x = {use};"]
    count = rng.randint(0, 3)
    for i in range(count):
        kind = rng.choice(["char", "int", "long", "struct big"])
        lines.append(f"    {kind} b{i}[{rng.choice([1, 2, 5, 16, 40, 100])}];")
        lines.append(f"    touch(b{i}, sizeof b{i});")
    for _ in range(rng.randint(1, 6)):
        shape = rng.randrange(7)
        many = ", ".join(str(rng.randint(0, 99)) if rng.random() < 0.5 else "x" for _ in range(rng.randint(0, 11)))
        if shape == 0:
            lines.append(f"    x += many({many});")
        elif shape == 1:
            lines.append(f"    if (x > {rng.randint(0, 9)}) x = helper(x, {rng.randint(0, 99)});")
        elif shape == 2:
            lines.append(f"    for (int i = 0; i < x; i++) x ^= helper(i, x) * {rng.randint(1, 99)};")
        elif shape == 3:
            lines.append(f"    if (unlikely(x == {rng.randint(0, 9)})) {{ cold(x); x = many({many}); }}")
        elif shape == 4:
            cases = "".join(f" case {i}: x = helper{rng.choice(['', '2'])}({i}, x); break;" for i in range(rng.randint(3, 8)))
            lines.append(f"    switch (x) {{{cases} default: x++; }}")
        elif shape == 5:
            lines.append(f"    if (x & {1 << rng.randint(0, 6)}) return helper(x, 3);")
        else:
            lines.append("    { struct big s = make(x); x += s.v[x & 3]; }")
    lines += ["    return x;", "}"]
    prologue = (
        "struct big { long v[4]; };\n"
        "#define unlikely(c) __builtin_expect(!!(c), 0)\n"
        "extern void touch(void *, long); extern long helper(long, long); extern long helper2(long, long);\n"
        "extern long many(); extern struct big make(long); extern void cold(long) __attribute__((cold));\n"
        if seed == 0
        else ""
    )
    return prologue + "\n".join(lines)

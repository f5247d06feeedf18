"""Compiles small functions for tests with the gcc at hand; skips where there is none."""

from __future__ import annotations

import functools
import random
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from stackfit.frames.analyse import analyse_frames
from stackfit.frames.model import Frames, SiteKind, StackKind, Summary
from stackfit.image.elf import read_elf
from stackfit.image.link import link
from stackfit.image.model import Image
from stackfit.image.pointers import code_pointers
from stackfit.image.tables import read_tables
from stackfit.isa.code import Code, decode_program
from stackfit.isa.effects import Operation

FLAGS = (
    "-std=gnu17",  # functions declared without parameters take any
    "-ffreestanding",
    "-fno-pic",
    "-fno-stack-protector",
    "-fcf-protection=none",
    "-fno-asynchronous-unwind-tables",
)


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
    parameters = ", ".join(
        f"{rng.choice(['int', 'long', 'char *', 'long long'])} a{i}" for i in range(arguments)
    )
    use = " + ".join([f"(long)a{i}" for i in range(arguments)] or ["1"])
    lines = [
        f"{rng.choice(['int', 'long', 'long long'])} {name}({parameters or 'void'}) {{",
        f"    long x = {use};",
    ]
    count = rng.randint(0, 3)
    for i in range(count):
        kind = rng.choice(["char", "int", "long", "struct big"])
        lines.append(f"    {kind} b{i}[{rng.choice([1, 2, 5, 16, 40, 100])}];")
        lines.append(f"    touch(b{i}, sizeof b{i});")
    for _ in range(rng.randint(1, 6)):
        shape = rng.randrange(7)
        many = ", ".join(
            str(rng.randint(0, 99)) if rng.random() < 0.5 else "x" for _ in range(rng.randint(0, 11))
        )
        if shape == 0:
            lines.append(f"    x += many({many});")
        elif shape == 1:
            lines.append(f"    if (x > {rng.randint(0, 9)}) x = helper(x, {rng.randint(0, 99)});")
        elif shape == 2:
            lines.append(f"    for (int i = 0; i < x; i++) x ^= helper(i, x) * {rng.randint(1, 99)};")
        elif shape == 3:
            lines.append(f"    if (unlikely(x == {rng.randint(0, 9)})) {{ cold(x); x = many({many}); }}")
        elif shape == 4:
            cases = "".join(
                f" case {i}: x = helper{rng.choice(['', '2'])}({i}, x); break;"
                for i in range(rng.randint(3, 8))
            )
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
        "extern long many(); extern void cold(long) __attribute__((cold));\n"
        "__attribute__((noinline)) struct big make(long x)"
        " { struct big s = {{x, helper(x, x)}}; return s; }\n"
        if seed == 0
        else ""
    )
    return prologue + "\n".join(lines)


@dataclass(frozen=True)
class Analysed:
    """A compiled object's functions, by name."""

    code: Code
    frames: Frames
    undefined: dict[int, str]  # row of a direct branch to a symbol that the object does not define → its name

    def index(self, name: str) -> int:
        (found,) = self.code.functions.named(name)
        return found

    def frame(self, name: str) -> int:
        return int(self.frames.frame[self.index(name)])

    def compiler_frame(self, name: str) -> int:
        return int(self.frames.compiler_frame[self.index(name)])

    def summary(self, name: str) -> Summary:
        return Summary(int(self.frames.summary[self.index(name)]))

    def returns(self, name: str) -> bool:
        return not bool(self.frames.no_return[self.index(name)])

    def sites(self, name: str) -> list[tuple[str | None, int, SiteKind, StackKind]]:
        """(callee or None, depth, kind, stack) of every place where control leaves the function."""
        frames, undefined = self.frames, self.undefined
        return [
            (
                self.code.functions.names[callee] if callee >= 0 else undefined.get(row),
                int(frames.site_depth[site]),
                SiteKind(frames.site_kind[site]),
                StackKind(frames.site_stack[site]),
            )
            for site in np.flatnonzero(frames.site_function == self.index(name)).tolist()
            for row, callee in [(int(frames.site_row[site]), int(frames.site_callee[site]))]
        ]

    def under(self, name: str) -> list[int]:
        """At sites on another stack: depth on the function's own stack at the switch."""
        return self.frames.site_under[self.frames.site_function == self.index(name)].tolist()

    def reached(self, name: str) -> int:
        return int(self.frames.reached[self.index(name)])


def analyse(directory: Path, source: str, bits: int, *options: str, suffix: str = ".c") -> Analysed:
    """Compile, link by itself, decode and track."""
    program = link([compiled(directory, source, bits, *options, suffix=suffix)])
    code = decode_program(program)
    frames = analyse_frames(code, read_tables(program), code_pointers(program))
    direct = np.flatnonzero(
        np.isin(code.instructions.operation, (Operation.CALL, Operation.JUMP, Operation.JUMP_CONDITIONAL))
    )
    undefined = {
        row: program.undefined[target]
        for row in direct.tolist()
        if (target := int(code.instructions.immediate[row]) & 0xFFFF_FFFF_FFFF_FFFF) in program.undefined
    }
    return Analysed(code, frames, undefined)

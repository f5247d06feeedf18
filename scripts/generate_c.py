#!/usr/bin/env python3
"""Writes C functions of many shapes, to hold frames against what the compiler says of them (-fstack-usage).

    generate_c.py COUNT SEED > functions.c

The same arguments give the same text. Every shape that changes how a frame is made is among them: arguments
in registers and on the stack, structures by value and returned, arrays from bytes to a quarter of a megabyte,
variable arguments, aligned objects, arrays of variable length, switches, early returns, tail calls, calls
through pointers, 64-bit and floating-point arithmetic.
"""

from __future__ import annotations

import random
import sys

TYPES = (
    "int",
    "unsigned char",
    "short",
    "long long",
    "double",
    "float",
    "char *",
    "struct pair",
    "struct block",
)
SIZES = (1, 3, 4, 8, 15, 16, 31, 64, 100, 127, 128, 129, 252, 256, 500, 508, 512, 1000, 1024, 2000,
         2032, 2036, 2040, 2044, 2048, 2052, 4064, 4080, 4088, 4092, 4096, 4100, 5000, 8192, 20000, 32760,
         32768, 65536, 70000, 262144)  # fmt: skip
HEAD = """\
typedef __builtin_va_list va_list;
struct pair { int a, b; };
struct block { long long w[5]; };
extern int sink(void *, ...);
extern int leaf(int);
extern long long wide(long long, int);
extern double real(double, double);
extern struct block fill(int, struct pair);
extern int (*hooks[8])(int, int);
extern volatile int port;
"""


def function(number: int, rng: random.Random) -> str:
    """One function, named f<number>, that may call those with smaller numbers."""
    kinds = [rng.choice(TYPES) for _ in range(rng.choice((0, 1, 2, 3, 4, 5, 6, 8, 10, 12)))]
    variadic = rng.random() < 0.07
    if variadic and not kinds:
        kinds = ["int"]
    result = rng.choice(("int", "int", "long long", "double", "void", "struct pair", "struct block"))
    arguments = ", ".join(f"{kind} a{index}" for index, kind in enumerate(kinds)) or "void"
    body: list[str] = ["int n = port, s = 0;", "long long w = n;", "double d = n;"]
    for index, kind in enumerate(kinds):
        if kind == "struct pair":
            body.append(f"n += a{index}.b;")
        elif kind == "struct block":
            body.append(f"w += a{index}.w[n & 3];")
        elif kind == "char *":
            body.append(f"if (a{index}) n += *a{index};")
        else:
            body.append(f"n += (int)a{index};")
    if variadic:
        body.append(f"va_list ap; __builtin_va_start(ap, a{len(kinds) - 1});")
        body.append(
            "n += __builtin_va_arg(ap, int); d += __builtin_va_arg(ap, double); __builtin_va_end(ap);"
        )
    for step in range(rng.randrange(7)):
        body.append(statement(step, rng))
    if number and rng.random() < 0.4:
        body.append(f"s += g{rng.randrange(number)}(n, s, w, d, n, s, w);")
    end = {"void": "port = n + s;", "struct pair": "struct pair r = {n, s}; return r;",
           "struct block": "struct block r = {{n, s, w}}; return r;"}  # fmt: skip
    if result == "int" and rng.random() < 0.2:
        body.append("port = (int)w; return leaf(n + s);")
    elif result == "int" and rng.random() < 0.1:
        body.append("return hooks[n & 7](n, s);")
    else:
        body.append(end.get(result, "return n + s + (int)w + (int)d;"))
    text = "\n    ".join(body)
    dots = ", ..." if variadic else ""
    call = f"int g{number}(int a, int b, long long c, double d, int e, int f, long long g)"
    return (
        f"{result} f{number}({arguments}{dots}) {{\n    {text}\n}}\n"
        f"{call} {{\n    int s = a - b;\n    {statement(90, rng, simple=True)}\n"
        f"    return s + e * f + (int)(c / (g | 1)) + (int)d;\n}}\n"
    )


def statement(step: int, rng: random.Random, simple: bool = False) -> str:
    """One statement; names that it declares end in its number."""
    n, w, d = ("a", "c", "d") if simple else ("n", "w", "d")
    choice = rng.randrange(14 if not simple else 9)
    size = rng.choice(SIZES)
    if choice == 0:
        return f"{{ char b{step}[{size}]; s += sink(b{step}, {n}); }}"
    if choice == 1:
        return (
            f"{{ int b{step}[{max(size // 4, 1)}]; sink(b{step}, {w}, {d}, {n}, {n}, s); s ^= b{step}[0]; }}"
        )
    if choice == 2:
        cases = " ".join(
            f"case {key}: s += leaf({key * 7}); break;" for key in range(rng.choice((5, 12, 40)))
        )
        return f"switch ({n}) {{ {cases} default: s--; }}"
    if choice == 3:
        return f"for (int i = 0; i < {n}; i++) s += leaf(i) * s;"
    if choice == 4:
        return f"if ({n} > 5) s += (int)({w} / 3 + {w} % ({n} | 1)); else port = s;"
    if choice == 5:
        return f"s += (int)real({d}, {d} * 2.5);"
    if choice == 6:
        return f"{{ struct pair p{step} = {{ {n}, s }}; s += (int)fill({n}, p{step}).w[1]; }}"
    if choice == 7:
        return f"s += hooks[{n} & 7]({n}, s);"
    if choice == 8:
        return f"s += (int)wide({w}, {n});"
    if choice == 9:
        return "if (n == 77) { port = 1; n = leaf(n); if (!n) n = leaf(3); }"
    if choice == 10 and rng.random() < 0.4:
        return f"{{ char v{step}[n & 0xff]; s += sink(v{step}); }}"
    if choice == 11 and rng.random() < 0.4:
        return f"{{ _Alignas({rng.choice((16, 32, 64))}) char b{step}[{size}]; s += sink(b{step}); }}"
    if choice == 12:
        table = f"static const int t{step}[4] = {{1, 5, 9, 2}};"
        return f"{{ {table} for (int i = 0; i < 4; i++) s += t{step}[(i + n) & 3]; }}"
    if choice == 13:
        return f"do {{ s += leaf(s); if (s == {step}) break; }} while (s < n);"
    return "n += s;"


def main() -> int:
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    rng = random.Random(seed)
    print(HEAD + "\n".join(function(number, rng) for number in range(count)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

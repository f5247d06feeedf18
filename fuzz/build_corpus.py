"""Builds fuzz/corpus from the fixtures and what the tests build: `python -m fuzz.build_corpus`.

Small files only: what is changed in a large one hits nothing, mostly. `*.stored.xz` is kept packed, and read
unpacked.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import lzma
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

_ROOT = Path(__file__).resolve().parents[1]
_FIXTURES, _TESTS = _ROOT / "fixtures", _ROOT / "tests"
_PACKAGE = _ROOT / "src" / "stackfit"
_CORPUS = Path(__file__).parent / "corpus"
_SMALL = 24 << 10


def _test_module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, _TESTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _put(target: str, name: str, data: bytes) -> None:
    directory = _CORPUS / target
    directory.mkdir(parents=True, exist_ok=True)
    if len(data) > _SMALL:
        name, data = f"{name}.stored.xz", lzma.compress(data, preset=9)
    (directory / name).write_bytes(data)


def _stripped(path: Path, *options: str) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out"
        subprocess.run(["objcopy", *options, path, out], check=True)
        return out.read_bytes()


def _images() -> None:
    sample, firmware = _FIXTURES / "sample" / "bin", _FIXTURES / "firmware"
    for machine in ("x86_64", "i386"):
        kernel, module = (sample / machine / one for one in ("vmlinux", "vendor_blob.ko"))
        for target in ("elf", "vmlinuz", "tables", "code", "check", "lists", "explain"):
            _put(target, f"vmlinux-{machine}", kernel.read_bytes())
        for target in ("elf", "tables", "code", "check", "lists"):
            _put(target, f"module-{machine}", module.read_bytes())
    for path in sorted(firmware.glob("*.elf")):
        for target in ("elf", "code", "check", "lists"):
            _put(target, path.stem, path.read_bytes())
    for path in sorted((_FIXTURES / "kcfi" / "bin").iterdir()):
        for target in ("check", "cfi", "code"):
            _put(target, f"kcfi-{path.name}", path.read_bytes())
    for path in sorted((_FIXTURES / "anatomy" / "bin").glob("*.o")):
        data = path.read_bytes()
        for target in ("dwarf", "source", "cfi"):
            _put(target, f"anatomy-{path.stem}", data)
        if "protected" in path.stem:
            _put("explain", f"anatomy-{path.stem}", data)
    objects = _debug_objects()
    for name, data in objects.items():
        for target in ("dwarf", "source", "cfi"):
            _put(target, name, data)
    compressed = _stripped(_FIXTURES / "anatomy/bin/x86_64-O2.o", "--compress-debug-sections=zlib")
    _put("elf", "compressed-sections", compressed)
    _put("dwarf", "compressed-sections", compressed)


_SOURCE = """
struct node; struct ops { int (*open)(struct node *, const char *, ...); };
struct node { unsigned flag : 3; const struct ops *ops; union { long a; void *b; }; char tail[]; };
extern int use(struct node *, int, const char *);
static int opened(struct node *n, const char *how, ...) { return use(n, 1, how); }
const struct ops my_ops = { .open = opened };
int walk(void *any, int times) {
    struct node *n = any; char buffer[64];
    for (int i = 0; i < times; i++) { if (n->ops) n->ops->open(n, buffer); n = n->b; }
    return use(any, times, buffer);
}
int main(void) { return walk(0, 3); }
"""


def _debug_objects() -> dict[str, bytes]:
    """Debug information of every version of DWARF, linked by nobody."""
    found = {}
    for version in (2, 3, 4, 5):
        for bits in (64, 32):
            with tempfile.TemporaryDirectory() as directory:
                out = Path(directory) / "out.o"
                command = [
                    "gcc",
                    f"-m{bits}",
                    f"-ffile-prefix-map={directory}=/src",
                    f"-gdwarf-{version}",
                    "-O2",
                    "-ffreestanding",
                    "-fno-pic",
                    "-x",
                    "c",
                ]
                subprocess.run(
                    [*command, "-c", "-o", out, "-"], input=_SOURCE.encode(), check=True, cwd=directory
                )
                found[f"dwarf{version}-{bits}"] = out.read_bytes()
    return found


def _kallsyms() -> None:
    elves, tests = _test_module("elves"), _test_module("image/test_kallsyms")
    chosen = (
        "4.19 relative",
        "4.19 i386",
        "5.10 absolute",
        "6.1 per-CPU",
        "6.2 i386",
        "6.4 per-CPU",
        "6.12 relative",
    )
    for name in chosen:
        era = tests.ERAS[name]
        wide = era.machine.word == 8
        image = tests.image_with(tests.rodata(tests.symbols_for(era, 300), era, 64), era)
        parts = [
            elves.Part(
                one.name, one.data.tobytes() if one.name == ".rodata" else b"",
                elves.PROGBITS if one.name == ".rodata" else elves.NOBITS,
                one.flags, one.address, size=one.size,
            )
            for one in image.sections[1:]
        ]  # fmt: skip
        parts.append(elves.Part("__ksymtab"))
        built = elves.Elf(64 if wide else 32, elves.X86_64 if wide else elves.I386, elves.EXEC, parts).build()
        for target in ("kallsyms", "vmlinuz"):
            _put(target, f"kallsyms-{name.replace(' ', '-')}", built)


def _kernel_tables() -> None:
    elves, tests, orc = (
        _test_module("elves"),
        _test_module("image/test_tables"),
        _test_module("image/test_orc"),
    )
    code = bytes.fromhex("e90000000090") * 40
    for bits in (64, 32):
        upper = tests.UPPER[bits]
        parts = [elves.Part(".text", code, flags=6, address=upper + tests.TEXT)]

        def add(
            name: str, fill: object, bits: int = bits, upper: int = upper, parts: list[object] = parts
        ) -> None:
            place = tests.Place(bits)
            fill(place)  # type: ignore[operator]
            at = upper + tests.TABLE + 0x1000 * len(parts)
            moved = tests.Place(bits)
            moved.data = b""
            parts.append(elves.Part(name, place.data, address=at, flags=2))

        add("__ex_table", lambda p: [p.relative(5 * i, 5 * i + 5).raw("I", 3) for i in range(8)])
        add(
            ".altinstructions",
            lambda p: [p.relative(5 * i, 100 + 5 * i).raw("HBB", 7, 5, i) for i in range(6)],
        )
        if bits == 64:
            add("__bug_table", lambda p: [p.relative(5 * i).raw("IHH", 4, 7, i) for i in range(8)])
            add(".parainstructions", lambda p: [p.pointer(5 * i).raw("BB6x", 1, 5) for i in range(4)])
        add("__jump_table", tests.keys(4, bits))
        parts += [*elves.symbols(bits, [("start_kernel", upper + tests.TEXT, 1)], len(parts) + 1)]
        parts.append(elves.Part("__ksymtab"))
        machine = elves.X86_64 if bits == 64 else elves.I386
        built = elves.Elf(bits, machine, elves.EXEC, parts).build()
        for target in ("tables", "code", "check"):
            _put(target, f"kernel-tables-{bits}", built)
    for version in orc.VERSIONS:
        one, two = orc.tables(orc.LOGICAL, version).sections
        parts = [elves.Part(".text", code, flags=6, address=orc.TEXT)]
        parts += [*elves.symbols(64, [("start_kernel", orc.TEXT, 1)], 2), elves.Part("__ksymtab")]
        parts += [elves.Part(s.name, s.data.tobytes(), address=s.address, flags=2) for s in (one, two)]
        _put("orc", f"orc-{version[0]}.{version[1]}", elves.Elf(64, elves.X86_64, elves.EXEC, parts).build())


def _types() -> None:
    tests = _test_module("image/test_btf")
    _put("btf", "small", tests.encode(tests.SMALL))
    chain = [(tests.Kind.TYPEDEF, f"t{i}", i + 2, [], False) for i in range(40)]
    _put("btf", "chain", tests.encode([*chain, *tests.SMALL]))


def _instructions() -> None:
    from stackfit.image.load import load_image

    sources = {
        "x86_64": _FIXTURES / "sample/bin/x86_64/vmlinux",
        "i386": _FIXTURES / "sample/bin/i386/vmlinux",
        "arm": _FIXTURES / "firmware/rtos-cortex-m4f.elf",
        "aarch64": _FIXTURES / "firmware/rtos-aarch64.elf",
        "riscv32": _FIXTURES / "firmware/rtos-riscv32.elf",
        "riscv64": _FIXTURES / "firmware/rtos-riscv32.elf",
    }
    for name, path in sources.items():
        code = b"".join(one.data.tobytes() for one in load_image(path).sections if one.executable)
        _put(name, "code", code[:4096])
        _put(name, "numbers", bytes(range(256)) * 8)


def _recordings() -> None:
    parse, trace = _test_module("measure/test_parse"), _test_module("pages/test_trace")
    for number, text in enumerate([parse.STACK, *_RECORDED]):
        _put("recording", f"recording-{number}", text.encode())
    edges = lzma.decompress((_FIXTURES / "recordings/calledges-i386/judgement.csv.xz").read_bytes())
    _put("recording", "edges", b"\n".join(edges.split(b"\n")[:40]))
    _put("traces", "traces", json.dumps(_TRACES).encode())
    for name, data in (
        ("csv", trace.CSV),
        ("tracefs", trace.TRACEFS),
        ("trace-cmd", trace.trace_cmd()),
        ("perf", trace.perf_script()),
    ):
        _put("events", name, data if isinstance(data, bytes) else data.encode())
    place = _FIXTURES / "recordings/pagetrace-i386"
    files = [place / f"{name}-1" for name in ("buddyinfo", "pagetypeinfo", "zoneinfo")]
    for path in [*files, place / "vmstat-1", place / "meminfo-1"]:
        _put("procfs", path.name, path.read_bytes())
    _put("capture", "capture", b"\n@@\n".join(path.read_bytes() for path in files))
    flags = gzip.decompress((place / "kpageflags-1.gz").read_bytes())
    _put("kpageflags", "kpageflags", flags[:8192])


_RECORDED = (
    "[  12.0] RIP: 0010:panic_here+0x12/0x30\n[  12.1] RSP: 0018:ffff EFLAGS: 00010246\n"
    "[  12.1] Call Trace:\n"
    "[  12.1]  <IRQ>\n[  12.1]  ? show_stack+0x10/0x20\n[  12.1]  handle_irq+0x10/0x20 [virtio_net]\n"
    "[  12.1]  </IRQ>\n[  12.1]  <TASK>\n[  12.2]  do_syscall_64+0x3b/0x90\n[  12.2]  </TASK>\n",
    "bash 12 [000] 100.0:     cycles:\n\tffffffff81234567 vfs_write+0x235 ([kernel.kallsyms])\n"
    "\tffffffffc0234567 ext4_write+0x5 ([ext4])\n\t    7f0000000000 write+0x14 (/usr/lib/libc.so.6)\n\n",
    "# tracer: function\n  bash-12 [000] ..... 100.2: vfs_read+0x0/0x3f0 <-ksys_read+0x6b/0xf0\n"
    "  bash-12 [000] ..... 100.3: fput <-ksys_read\n  bash-12 [000] ..... 100.0: <stack trace>\n"
    " => __alloc_pages+0x1dc/0x330\n => folio_alloc <ffffffff81234567>\n => ext4_write_begin [ext4]\n",
)
_TRACES = {
    "schema": "stackfit.traces/1",
    "image": {"machine": "x86_64", "release": "6.1.0", "build_id": "00ff"},
    "modules": [{"name": "ext4", "build_id": None}],
    "places": ["0xffffffff81000010", "ext4:.text+0x10", "0xffffffff81000000"],
    "edges": [[0, 2, 1, 5], [None, 2, 1, 1]],
    "chains": [
        {"name": "a", "kind": "stack-tracer", "rows": [[2, 0, 96, 48, False], [2, None, 48, 48, True]]}
    ],
    "marks": [
        {
            "stack": "process",
            "owner": "init (1)",
            "bytes": 4000,
            "size": 16384,
            "kind": "user",
            "name": "init",
        }
    ],
    "left_out": {"addresses in user mode": 3},
}


def _dumps() -> None:
    tests = _test_module("measure/test_dump")
    memory = tests.Memory(64)
    tests.stack(memory, tests.VMALLOC, [40, 35, 37, 33], tests.STACK - 1000)
    memory.map(tests.DIRECT + (1 << 21), 1 << 21, large=True)
    _put("core", "amd64", tests.core(bytes(memory.bytes), 0))
    low = tests.Memory(16)
    for page in range(16):
        struct.pack_into("<I", low.bytes, 4096 + 4 * page, page * 4096 | 3)
    struct.pack_into("<I", low.bytes, 4 * 0x300, 4096 | 3)
    struct.pack_into("<I", low.bytes, 4 * 4096, tests.STACK_END_MAGIC)
    struct.pack_into("<I", low.bytes, 4 * 4096 + 8000, 1)
    _put("core", "i386", tests.core(bytes(low.bytes), 0, machine=3))
    text = b"OSRELEASE=6.1.0\nSYMBOL(swapper_pg_dir)=c0000000\nSYMBOL(_stext)=c1000000\nBUILD-ID=00ff\n"
    noted = bytearray(tests.core(bytes(low.bytes), 0, machine=3))
    noted[-4096 : -4096 + len(text)] = text
    _put("core", "vmcoreinfo", bytes(noted))


def _toml() -> None:
    for target, directory in (
        ("layout", "layouts/presets"), ("assumptions", "assumptions"), ("scenario", "machine/scenarios"),
        ("costs", "machine/costs"), ("era", "pages/eras"),
    ):  # fmt: skip
        for path in sorted((_PACKAGE / directory).glob("*.toml")):
            _put(target, path.name, path.read_bytes())
    _put("project", "stackfit.toml", _PROJECT.encode())


_PROJECT = """image = "vmlinuz"
modules = ["lib"]
debug = "vmlinux"
layouts = ["linux-x86_64", "own/layout.toml"]
assume = ["a.toml"]
without = ["x"]
hops = "unlimited"
indirect = "typed"
hypervisor = "none"
baseline = "b.db"
fail-on = ["exceeds", "budget", "growth:64"]
[budget]
at = "bound"
context = { "syscall *" = 4096 }
task = { "kworker*" = 2048 }
[budget.module]
ext4 = 3000
"""


def _rest() -> None:
    from stackfit.analysis import analyse
    from stackfit.store.write import write_database

    path = _FIXTURES / "firmware/rtos-cortex-m4f.elf"
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "d.db"
        write_database(analyse([path]), out)
        _put("database", "cortex-m", out.read_bytes())
        out.unlink()
        sample = _FIXTURES / "sample/bin/i386"
        write_database(analyse([sample / "vmlinux"], [sample / "vendor_blob.ko"]), out)
        _put("database", "i386", out.read_bytes())
    from fuzz.targets import ANSWER
    from stackfit.cache.store import open_store

    with tempfile.TemporaryDirectory() as directory:
        store = open_store(directory)
        store.save("00ff", ANSWER)
        _put("cache", "answer", store.entries()[0][0].read_bytes())
    tests = _test_module("measure/test_census")
    rows = tests.census_rows(tests.MARKS, "x86_64", "linux-x86_64", "6.1.0", "00ff")
    _put("census", "census", tests.parquet_bytes(rows))
    _put("census-text", "census", tests.csv_bytes(rows))
    _put(
        "usage",
        "usage",
        b'object,function,bytes,kind\na/b.o,f,16,static\nc.o,g,48,dynamic\nd.o,h,8,"dynamic,bounded"\n',
    )
    built = {
        "schema": "stackfit.kernel/1", "name": "x", "variant": "a", "configs": ["a"], "release": "6.1.0",
        "compiler": "gcc 12", "seconds": 1.0, "cpu_seconds": None, "jobs": 2, "cache": False, "objects": 3,
        "patches": {"a.patch": "00ff"},
    }  # fmt: skip
    _put("built", "kernel.json", json.dumps(built).encode())


def main() -> None:
    sys.path.insert(0, str(_TESTS))
    shutil.rmtree(_CORPUS, ignore_errors=True)
    for step in (
        _images,
        _kallsyms,
        _kernel_tables,
        _types,
        _instructions,
        _recordings,
        _dumps,
        _toml,
        _rest,
    ):
        step()
    size = sum(path.stat().st_size for path in _CORPUS.rglob("*") if path.is_file())
    print(f"{size >> 10} KiB in {_CORPUS}")


if __name__ == "__main__":
    main()

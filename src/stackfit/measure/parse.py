"""Recordings as text: ftrace's `stack_trace` and `trace`, trace-cmd, `perf script`, the kernel's log, lists
of call edges.

Formats are told by content; one file may hold several stacks, of several formats. What is not understood is
counted and left out, never guessed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

from stackfit.image.compression import MAXIMUM_OUTPUT
from stackfit.image.load import MODULE_SUFFIXES
from stackfit.image.model import InputError
from stackfit.measure.model import ChainKind, Place, RecordedChain, RecordedRow, Recording
from stackfit.pages.procfs import read_bytes, unpacked

__all__ = ["MAX_FILE", "parse_recording", "place_of", "read_text"]

MAX_FILE = 512 << 20  # bytes on disk; unpacked: compression.most_output
MAX_LINE = 65536
MAX_ROWS = 4096  # of one chain: the deepest stack there is has fewer
_TRACE_CMD = b"\x17\x08\x44tracing"  # trace-cmd.dat(5)
_REPORT_TIMEOUT = 600  # seconds
UNRELIABLE = "stack entries marked unreliable (?)"
USER = "addresses in user mode"

_NAME = r"[A-Za-z_.$][\w.$]{0,510}"
_SYMBOL = rf"(?P<symbol>{_NAME})\+0x(?P<offset>[0-9a-f]{{1,8}})(?:/0x(?P<size>[0-9a-f]{{1,8}}))?"
_MODULE = r"(?:\s+\[(?P<module>[\w-]{1,64})(?: [0-9a-f]{40})?\])?"
# `  3)     4096      88   allocate_slab+0x334/0x490 [module]`  (kernel/trace/trace_stack.c:t_show)
_STACK_ROW = re.compile(
    rf"\s*(?P<row>\d{{1,4}})\)\s+(?P<depth>-?\d{{1,9}})\s+(?P<bytes>-?\d{{1,9}})\s+{_SYMBOL}{_MODULE}\s*$"
)
_STACK_HEAD = re.compile(r"\s*Depth\s+Size\s+Location\s+\(\d+ entries\)")
# ` => vfs_write+0x235/0x3f0 [module] <ffffffff81234567>`  (kernel/trace/trace_output.c:seq_print_ip_sym)
_EVENT_ROW = re.compile(
    rf"\s*=>\s+(?:{_SYMBOL}|(?P<bare>{_NAME})){_MODULE}(?:\s+[<(][0-9a-f]{{8,16}}[>)])?\s*$"
)
# `bash-1 [000] 12.345: kernel_stack: \t=> vfs_write`: trace-cmd report puts the first row into the head.
_EVENT_BEGIN = re.compile(r"\s*\S.{0,200}:\s+(?:kernel_stack|<stack trace ?>):?\s+(?P<row>=>\s.{1,600})$")
_TRAMPOLINE = "ftrace_trampoline"  # the tracer's own, above the function that was traced
_EVENT_HEAD = re.compile(r"\s*(?:.{1,200}:\s+)?<(?P<user>user )?stack trace>\s*$")
# `bash-1 [000] d..1. 12.345: callee <-caller`, with or without offsets  (trace_fn_trace)
_CALL = re.compile(
    rf":\s+(?P<callee>{_NAME})(?:\+0x(?P<callee_offset>[0-9a-f]{{1,8}})/0x[0-9a-f]{{1,8}})?(?:\s+\[(?P<callee_module>[\w-]{{1,64}})\])?(?:\s+<[0-9a-f]{{8,16}}>)?"
    rf"\s+<--?\s*(?P<caller>{_NAME})(?:\+0x(?P<offset>[0-9a-f]{{1,8}})/0x(?P<size>[0-9a-f]{{1,8}}))?{_MODULE}(?:\s+<[0-9a-f]{{8,16}}>)?\s*$"
)
# `\tffffffff81234567 vfs_write+0x235 ([kernel.kallsyms])`
_PERF_ROW = re.compile(
    rf"\s+(?P<ip>[0-9a-f]{{6,16}})\s+(?:{_SYMBOL}|(?P<bare>{_NAME}|\[unknown\]))\s+\((?P<file>[^()]*(?:\([^()]*\)[^()]*)?)\)\s*$"
)
# Lines of the kernel's log: `[   12.345678]`, `<4>` and a journal's prefix before them.
_LOG_HEAD = re.compile(r"(?:^|[\s\]:])Call [Tt]race:\s*$")
_LOG_ROW = re.compile(
    r"(?:^|[\s\]>:])(?P<unreliable>\? )?(?:\[<[0-9a-f]{8,16}>\]\s+)?(?P<unreliable_too>\? )?"
    rf"{_SYMBOL}{_MODULE}\s*(?:\([A-Z]+\))?$"
)
_LOG_AT = re.compile(rf"\b[RE]IP: (?:[0-9a-f]{{4}}:)?(?:\[<[0-9a-f]+>\] )?{_SYMBOL}{_MODULE}\s*$")
_LOG_STACK = re.compile(
    r"(?P<end></)?(?:<)?(?P<name>TASK|IRQ|SOFTIRQ|NMI|#DF|#DB|#MC|#VC2?|ENTRY|EOI|EOE)>\s*$"
)
_LOG_REGISTERS = re.compile(
    r"(?:^|[\s\]])(?:RSP|RAX|RDX|RBP|RDI|RSI|R\d\d|EAX|EBX|ESI|EDI|ESP|EBP|DS|CS|FS|CR\d|DR\d"
    r"|ORIG_RAX|EFLAGS|Code|PKRU)\b ?:"
)
_EDGE_HEAD = ("return_address", "callee")
_EDGE_PLACE = re.compile(
    r"0x(?P<address>[0-9a-f]{1,16})$|(?P<module>[\w-]{1,64}):(?P<section>[\w.]{1,64})\+0x(?P<offset>[0-9a-f]{1,8})$"
)


def read_text(path: Path) -> str:
    """A recording's text, unpacked if it is compressed; of a trace-cmd file what `trace-cmd report` prints.
    InputError: not there, too large, no trace-cmd.
    """
    raw = read_bytes(path, MAX_FILE)
    if raw.startswith(_TRACE_CMD):
        return _reported(path)
    data = unpacked(str(path), raw)
    return data.decode("utf-8", "replace")


def _reported(path: Path) -> str:
    program = shutil.which("trace-cmd")
    if program is None:
        raise InputError(
            str(path), "a trace-cmd file: apt-get install trace-cmd, or give what trace-cmd report prints"
        )
    command = [program, "report", "-i", str(path.absolute())]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_REPORT_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(str(path), f"trace-cmd report: {str(error)[:120]}") from None
    if done.returncode or len(done.stdout) > MAXIMUM_OUTPUT:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        cause = said[-1][:120] if said else f"status {done.returncode}"
        raise InputError(str(path), f"trace-cmd report: {cause}")
    return done.stdout.decode("utf-8", "replace")


def parse_recording(path: str, text: str) -> Recording:
    """The chains and call edges in a text. InputError: there is none, or a line is no row of its table."""
    first = next((line for line in text.splitlines()[:8] if line.strip()), "")
    if first.split(",")[:2] == list(_EDGE_HEAD):
        return _edge_list(path, text)
    reader = _Reader(path)
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > MAX_LINE:
            raise InputError(path, f"line {number} is longer than {MAX_LINE} characters")
        reader.line(number, line)
    return reader.recording()


def place_of(text: str) -> Place | None:
    """A link address `0x…`, or `MODULE:SECTION+0x…`; None: neither."""
    match = _EDGE_PLACE.match(text)
    if match is None:
        return None
    if match["address"] is not None:
        return Place(address=int(match["address"], 16))
    return Place(
        module=match["module"].replace("-", "_"), section=match["section"], offset=int(match["offset"], 16)
    )


def _edge_list(path: str, text: str) -> Recording:
    """CSV with the columns return_address, callee and, if it likes, count."""
    pairs: list[tuple[Place | None, Place | None, Place, int]] = []
    known: dict[str, Place | None] = {}
    rows = enumerate(text.splitlines(), 1)
    columns = 0
    for number, line in rows:
        if not line.strip():
            continue
        fields = line.strip().split(",")
        if not columns:
            columns = len(fields)
            if columns > 3 or fields[2:] not in ([], ["count"]):
                raise InputError(path, f"line {number}: columns are return_address,callee[,count]")
            continue
        if len(fields) != columns:
            raise InputError(path, f"line {number}: {len(fields)} fields, not {columns}")
        places = []
        for field in fields[:2]:
            if field not in known:
                known[field] = place_of(field)
            place = known[field]
            if place is None:
                raise InputError(path, f"line {number}: {field[:60]!r} is neither 0x… nor MODULE:SECTION+0x…")
            places.append(place)
        count = fields[2] if columns == 3 else "1"
        if not count.isascii() or not count.isdigit() or len(count) > 18:
            raise InputError(path, f"line {number}: {count[:60]!r} is not a number")
        pairs.append((places[0], None, places[1], int(count)))
    if not pairs:
        raise InputError(path, "a list of call edges without any")
    return Recording(path, "call edges", pairs=tuple(pairs))


def _symbol_place(match: re.Match[str]) -> Place:
    """The place that the groups of _SYMBOL and _MODULE name."""
    groups = match.groupdict()
    size, module = groups.get("size"), groups.get("module") or ""
    return Place(
        symbol=groups["symbol"],
        offset=int(groups["offset"], 16),
        size=int(size, 16) if size else -1,
        module=module.replace("-", "_"),
    )


class _Reader:
    """Line by line; `_open` is the format of the chain that is being read."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.chains: list[RecordedChain] = []
        self.pairs: Counter[tuple[Place | None, Place | None, Place]] = Counter()
        self.left_out: Counter[str] = Counter()
        self.title = ""  # the last line that says what follows
        self._open: ChainKind | None = None
        self._rows: list[RecordedRow] = []
        self._skip = False  # a user stack, or one of a stack that is not the task's
        self._interrupted = False  # the next row of a log is what an exception interrupted
        self._at: Place | None = None  # RIP of a dump, before its Call Trace

    def line(self, number: int, line: str) -> None:
        match = _STACK_ROW.match(line)
        if match is not None:
            self._stack_row(number, match)
            return
        if _STACK_HEAD.match(line):
            self._close()
            return
        if line.lstrip().startswith("-----"):
            return
        head = _EVENT_HEAD.match(line)
        if head is not None:
            self._close()
            self._open, self._skip = ChainKind.EVENT, bool(head["user"])
            return
        begun = _EVENT_BEGIN.match(line)
        if begun is not None:
            self._close()
            self._open = ChainKind.EVENT
            line = begun["row"]
        if self._open is ChainKind.EVENT and line.lstrip().startswith("=>"):
            self._event_row(line)
            return
        match = _PERF_ROW.match(line)
        if match is not None:
            self._perf_row(match)
            return
        if _LOG_HEAD.search(line):
            self._close()
            self._open = ChainKind.DUMP
            return
        if self._open is ChainKind.DUMP:
            if self._log_row(line):
                return
        elif (at := _LOG_AT.search(line)) is not None:
            self._at = _symbol_place(at)
            return
        self._other(line)

    def recording(self) -> Recording:
        self._close()
        kinds = list(dict.fromkeys(chain.kind.label for chain in self.chains))
        if self.pairs:
            kinds.append("function events")
        if not kinds:
            raise InputError(
                self.path,
                "no recording: neither ftrace's stack_trace or trace, perf script, a kernel log with a call"
                " trace, a list of call edges, nor a traces file",
            )
        pairs = tuple((*key, count) for key, count in self.pairs.items())
        return Recording(self.path, ", ".join(kinds), tuple(self.chains), pairs, (), dict(self.left_out))

    # ------------------------------------------------------------ formats

    def _stack_row(self, number: int, match: re.Match[str]) -> None:
        row = int(match["row"])
        if row == 0 or self._open is not ChainKind.STACK_TRACER:
            self._close()
            self._open = ChainKind.STACK_TRACER
        if row != len(self._rows):
            raise InputError(self.path, f"line {number}: row {row} of a stack where {len(self._rows)} is due")
        depth, size = int(match["depth"]), int(match["bytes"])
        if not 0 <= size <= depth <= 1 << 20:
            raise InputError(self.path, f"line {number}: depth {depth} and size {size} cannot be")
        self._add(RecordedRow(_symbol_place(match), depth, size))

    def _event_row(self, line: str) -> None:
        match = _EVENT_ROW.match(line)
        if self._skip:
            self.left_out[USER] += 1
        elif match is None:
            self.left_out["rows of a stack that name no symbol"] += 1
            self._close()
        elif match["symbol"]:
            self._add(RecordedRow(_symbol_place(match)))
        elif self._rows or match["bare"] != _TRAMPOLINE:
            module = (match["module"] or "").replace("-", "_")
            self._add(RecordedRow(Place(symbol=match["bare"], module=module)))

    def _perf_row(self, match: re.Match[str]) -> None:
        if self._open is not ChainKind.PERF:
            self._close()
            self._open = ChainKind.PERF
        file = match["file"]
        kernel = file.startswith("[") or file.endswith(MODULE_SUFFIXES) or "vmlinu" in file
        if not kernel or file in ("[unknown]", "[vdso]", "[stack]", "[heap]", "[vsyscall]"):
            self.left_out[USER] += 1
            return
        module = ""
        if file.startswith("[") and not file.startswith(("[kernel", "[guest.kernel")):
            module = file.strip("[]")
        elif ".ko" in file:
            module = file.rpartition("/")[2].partition(".ko")[0]
        module = module.replace("-", "_")
        if match["symbol"]:
            place = _symbol_place(match)._replace(module=module)
            self._add(RecordedRow(place))
        elif match["bare"] == "[unknown]":
            self.left_out["rows of a stack that name no symbol"] += 1
            self._close()
        else:
            self._add(RecordedRow(Place(symbol=match["bare"], module=module)))

    def _log_row(self, line: str) -> bool:
        """A line of a call trace; False: the trace has ended before it."""
        stack = _LOG_STACK.search(line)
        if stack is not None:
            # Each stack's part is a chain of its own; `</IRQ>` ends one.
            if self._rows:
                self._close()
                self._open = ChainKind.DUMP
            return True
        if _LOG_REGISTERS.search(line):
            return True
        at = _LOG_AT.search(line)
        if at is not None:
            self._add(RecordedRow(_symbol_place(at), interrupted=True))
            return True
        match = _LOG_ROW.search(line)
        if match is None:
            return False
        if match["unreliable"] or match["unreliable_too"]:
            self.left_out[UNRELIABLE] += 1
            return True
        if not self._rows and self._at is not None:
            self._add(RecordedRow(self._at))
            self._at = None
        self._add(RecordedRow(_symbol_place(match)))
        return True

    def _other(self, line: str) -> None:
        if self._open is not ChainKind.EVENT or line.strip():
            self._close()
        call = _CALL.search(line)
        if call is not None:
            self._call(call)
        elif line.strip():
            self.title = line.strip(" #=@\t")[:80]

    def _call(self, match: re.Match[str]) -> None:
        callee = Place(symbol=match["callee"], module=(match["callee_module"] or "").replace("-", "_"))
        module = (match["module"] or "").replace("-", "_")
        caller = Place(symbol=match["caller"], module=module)
        back = None
        if match["offset"]:
            back = Place(
                symbol=match["caller"],
                offset=int(match["offset"], 16),
                size=int(match["size"], 16),
                module=module,
            )
        self.pairs[back, None if back else caller, callee] += 1

    # ------------------------------------------------------------ chains

    def _add(self, row: RecordedRow) -> None:
        if len(self._rows) >= MAX_ROWS:
            raise InputError(self.path, f"a stack of more than {MAX_ROWS} rows")
        self._rows.append(row)

    def _close(self) -> None:
        if self._open is not None and self._rows:
            name = f"{Path(self.path).name} #{len(self.chains) + 1}"
            if self.title and self._open is ChainKind.STACK_TRACER:
                name += f" ({self.title})"
            self.chains.append(RecordedChain(name, self._open, tuple(self._rows)))
        self._open, self._skip = None, False
        self._rows = []

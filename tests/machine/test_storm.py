"""The `[interrupts]` table: an example on two layouts, and refusal of what is not in its format."""

from __future__ import annotations

import copy
import csv
import math
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackfit.image.model import InputError
from stackfit.layouts import load_layout
from stackfit.machine import interrupts_loop
from stackfit.machine.interrupts_model import Storm
from stackfit.machine.storm import overflow_chance, parse_storm, run_storm

RECORDING = Path(__file__).parents[2] / "fixtures" / "recordings" / "stack-tracer-amd64.csv"

STORM = """
[interrupts]
cpus = 1
hours = 0.05
nested_handlers = 1
evidence = "assumed"
rates_from = "a gigabit network card without interrupt mitigation, a busy disk, HZ = 1000"

[interrupts.process]
busy = 0.4
duration_us = 50
[interrupts.process.depth]
evidence = "assumed"
source = '''
every row of the chains of 16 workloads in fixtures/recordings/stack-tracer-amd64.csv (not the filtered ones
and mkswap), rounded up to 128 bytes, named after the workload with most rows there; calls last alike'''
chains = [
    ["boot", 256, 16], ["swap-tcp", 640, 2], ["swap-tcp", 768, 2], ["odirect-ext4", 1024, 2],
    ["swap-tcp", 1152, 6], ["files-ext4", 1280, 27], ["mounts", 1408, 18], ["files-ext4", 1536, 10],
    ["boot", 1664, 21], ["boot", 1792, 19], ["boot", 1920, 20], ["files-ext4", 2048, 14],
    ["mounts", 2176, 10], ["files-ext4", 2304, 14], ["boot", 2432, 12], ["swapoff", 2560, 10],
    ["boot", 2688, 14], ["swapoff", 2816, 20], ["swap-tcp", 2944, 16], ["boot", 3072, 18],
    ["tcp6", 3200, 18], ["boot", 3328, 18], ["boot", 3456, 8], ["boot", 3584, 10], ["swapoff", 3712, 4],
    ["swap-files", 3840, 9], ["swap-tcp", 3968, 3], ["boot", 4096, 3], ["boot", 4224, 2],
    ["swap-files", 4352, 1], ["boot", 4480, 2], ["boot", 4608, 2], ["swap-files", 4736, 2],
    ["swap-files", 4864, 2],
]
[interrupts.process.depth.scale]
factor = 0.7267
word = 4
source = '''
Linux 6.1's deepest chain, ext4 write to swap-out, random stack offset on: i386 3,488 B, amd64 4,800 B'''

[[interrupts.source]]
name = "eth0"
kind = "device"
per_second = 20000
duration_us = 5
entry = 76
enables_irqs = true
[interrupts.source.depth]
evidence = "assumed"
source = "up to the mark of i386 6.1's hardirq stacks after light work, about 1,000 B; evenly spread below"
between = [200, 1000]
step = 4
[interrupts.source.softirq]
name = "net-rx"
probability = 0.9
duration_us = 15
[interrupts.source.softirq.depth]
evidence = "assumed"
source = "up to the mark of i386 6.1's softirq stacks after light work, 2,200 B; evenly below"
between = [200, 2200]
step = 4

[[interrupts.source]]
name = "disk"
kind = "device"
per_second = 2000
duration_us = 8
entry = 76
enables_irqs = true
[interrupts.source.depth]
evidence = "assumed"
source = "as eth0"
between = [200, 1000]
step = 4
[interrupts.source.softirq]
name = "block"
probability = 0.9
duration_us = 10
[interrupts.source.softirq.depth]
evidence = "assumed"
source = "half of net-rx's"
between = [200, 1100]
step = 4

[[interrupts.source]]
name = "timer"
kind = "system-vector"
per_second = 1000
arrival = "periodic"
duration_us = 3
entry = 76
[interrupts.source.depth]
evidence = "assumed"
source = "evenly spread up to 600 B; not measured"
between = [100, 600]
step = 4
[interrupts.source.softirq]
name = "timers"
probability = 0.3
duration_us = 8
[interrupts.source.softirq.depth]
evidence = "assumed"
source = "half of net-rx's"
between = [200, 1100]
step = 4

[[interrupts.source]]
name = "watchdog"
kind = "nmi"
per_second = 1
duration_us = 3
entry = 76
[interrupts.source.depth]
evidence = "assumed"
source = "evenly spread up to 400 B; not measured"
between = [100, 400]
step = 4
"""

Table = dict[str, Any]


def table() -> Table:
    """The example as read."""
    return copy.deepcopy(tomllib.loads(STORM)["interrupts"])  # type: ignore[no-any-return]


def parsed(given: Table) -> Storm:
    return parse_storm(given, "storm.toml")


# ---------------------------------------------------------------- the example


def test_the_examples_depths_are_those_of_the_recording() -> None:
    counts: Counter[int] = Counter()
    names: dict[int, Counter[str]] = {}
    with RECORDING.open(newline="") as file:
        for row in csv.DictReader(file):
            if not row["chain"].startswith("f-") and row["chain"] != "mkswap":
                above = -(-int(row["depth"]) // 128) * 128
                counts[above] += 1
                names.setdefault(above, Counter())[row["chain"]] += 1
    most = {depth: min(seen, key=lambda name: (-seen[name], name)) for depth, seen in names.items()}
    stated = table()["process"]["depth"]["chains"]
    assert stated == [[most[depth], depth, counts[depth]] for depth in sorted(counts)]
    depth = parsed(table()).process.depth
    assert depth.greatest == 3536 and depth.chain(3536) == "swap-files"  # 4,864 × 0.7267
    assert depth.evidence == "assumed"


def test_the_example_says_what_it_states() -> None:
    storm = parsed(table())
    assert [source.name for source in storm.sources] == ["eth0", "disk", "timer", "watchdog"]
    eth0, _, timer, _ = storm.sources
    assert eth0.enables_irqs and eth0.softirq is not None and eth0.softirq.name == "net-rx"
    assert timer.periodic and not timer.fixed and not timer.enables_irqs
    assert (storm.cpus, storm.hours, storm.nested_handlers) == (1, 0.05, 1)


@pytest.mark.skipif(not interrupts_loop.__file__.endswith(".so"), reason="needs millions of events")
def test_the_storm_on_shared_and_on_separate_stacks() -> None:
    storm = parsed({**table(), "hours": 0.01})
    shared, separate = load_layout("linux-2.6-8k"), load_layout("linux-2.6-4k")
    on_shared, on_separate = run_storm(storm, shared, 1), run_storm(storm, separate, 1)
    use = {one.name: one for one in on_separate.stacks}
    assert on_shared.stacks[0].greatest is not None and use["softirq"].greatest is not None
    assert on_shared.stacks[0].greatest > 6000 and on_shared.stacks[0].overflows == 0
    assert use["softirq"].greatest < 3400 and use["hardirq"].greatest is not None
    # Most of 4 KiB is what the deepest system calls of 6.1 need; the timer's vector stays on top of them.
    assert use["process"].overflows > 0
    rare, often = overflow_chance(storm, shared, 1), overflow_chance(storm, separate, 1)
    assert often.chance is not None and often.chance > 0.99 and set(often.stacks) == {"process"}
    assert often.chains[0].contexts == ("system call", "timer")
    # The run on the shared layout saw no overflow: they are once in years.
    assert rare.per_hour is not None and rare.per_hour < 1e-3 and rare.high < 0.02
    assert rare.deepest["process"] == 3536 + 76 + 2200 + 2 * 1076 + 476


def test_syscalls_per_second_give_the_busy_share() -> None:
    given = table()
    del given["process"]["busy"]
    given["process"]["syscalls_per_second"] = 8000
    assert parsed(given).process.busy == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("stated", "values", "evidence"),
    [
        ({"bytes": 1200, "evidence": "proved"}, [1200], "proved"),
        ({"between": [4, 12], "step": 4, "evidence": "assumed"}, [4, 8, 12], "assumed"),
        ({"weights": [[900, 1], [400, 9.5]], "evidence": "assumed"}, [400, 900], "assumed"),
        ({"chains": [["write", 900, 1]], "evidence": "measured"}, [900], "measured"),
        ({"samples": [[896, 12], [1024, 3]]}, [896, 1024], "measured"),
        (
            {"samples": [[899, 1]], "scale": {"factor": 0.5, "word": 4, "source": "s"}},
            [452],
            "assumed",
        ),
        (
            {
                "samples": [[100, 1]],
                "tail": {"probability": 0.5, "ratio": 0, "step": 16, "source": "s"},
            },
            [100, 116],
            "assumed",
        ),
    ],
)
def test_every_form_of_depth(stated: Table, values: list[int], evidence: str) -> None:
    given = table()
    given["process"]["depth"] = {"source": "a test", **stated}
    depth = parsed(given).process.depth
    assert depth.values.tolist() == values and depth.evidence == evidence


# ---------------------------------------------------------------- refusals


def edit(path: str, value: object) -> Callable[[Table], None]:
    def change(given: Table) -> None:
        *way, last = path.split(".")
        at: Any = given
        for key in way:
            at = at[int(key)] if key.isdigit() else at[key]
        if value is None:
            del at[last]
        else:
            at[last] = value

    return change


REFUSED = [
    ("proces", {}, "proces: unknown key; did you mean 'process'"),
    ("process.busy", -0.1, "interrupts.process.busy: -0.1 is not between"),
    ("process.busy", math.nan, "interrupts.process.busy: nan is not between"),
    ("process.busy", True, "interrupts.process.busy: must be a number"),
    ("process.busy", None, "interrupts.process.busy: exactly one"),
    ("process.syscalls_per_second", 1.0, "interrupts.process.busy: exactly one"),
    ("process.duration_us", 0, "interrupts.process.duration_us: 0 is not between"),
    ("process.depth", None, "interrupts.process.depth: missing"),
    ("process.depth.bytes", 4, "interrupts.process.depth: exactly one of"),
    ("process.depth.evidence", "open", "interrupts.process.depth.evidence: 'open' is none of"),
    ("process.depth.source", " ", "interrupts.process.depth.source: must not be empty"),
    ("process.depth.chains", [["write", -4, 1]], "interrupts.process.depth: a depth of -4 bytes"),
    ("process.depth.chains", [["write", 4, -1]], "interrupts.process.depth.chains: a weight"),
    ("process.depth.chains", [["write", 4]], "interrupts.process.depth.chains: row 1"),
    ("process.depth.chains", [], "interrupts.process.depth.chains: must have 1 to"),
    ("process.depth.scale.factor", math.inf, "interrupts.process.depth.scale.factor: inf is not"),
    ("process.depth.scale.wort", 4, "interrupts.process.depth.scale.wort: unknown key"),
    ("process.depth.tail", {"probability": 0.1, "ratio": 1, "step": 1, "source": "s"}, "a tail needs"),
    ("source.0.per_second", -1, "interrupts.source #1.per_second: -1 is not between"),
    ("source.0.per_second", math.nan, "interrupts.source #1.per_second: nan is not between"),
    ("source.0.per_second", "many", "interrupts.source #1.per_second: must be a number"),
    ("source.0.kind", "devcie", "interrupts.source #1.kind: 'devcie' is none of"),
    ("source.0.entry", 1.5, "interrupts.source #1.entry: must be a whole number"),
    ("source.0.enables_irqs", 1, "interrupts.source #1.enables_irqs: must be true or false"),
    ("source.0.softirq.probability", 1.1, "interrupts.source #1.softirq.probability: 1.1 is not"),
    ("source.0.depth.between", [1000, 200], "interrupts.source #1.depth: from 1000 to 200"),
    ("source.0.depth.step", 3, "interrupts.source #1.depth: from 200 to 1000"),
    ("source.1.name", "eth0", "source #2.name: 'eth0' is there already"),
    ("source.2.arrival", "often", "interrupts.source #3.arrival: 'often' is none of"),
    ("source.3.softirq", {}, "interrupts.source #4.softirq: only device"),
    ("source.3.enables_irqs", True, "interrupts.source #4.enables_irqs: only device"),
    ("source", {}, "source: written as [[source]]"),
    ("hours", 0, "interrupts.hours: 0 is not between"),
    ("cpus", 0, "interrupts.cpus: 0 is not between"),
    ("nested_handlers", 99, "interrupts.nested_handlers: 99 is not between"),
    ("rates_from", None, "interrupts.rates_from: missing"),
    ("evidence", None, "interrupts.evidence: missing"),
]


@pytest.mark.parametrize(("path", "value", "message"), REFUSED, ids=[f"{p}={v}" for p, v, _ in REFUSED])
def test_what_is_wrong_is_named_with_file_and_key(path: str, value: object, message: str) -> None:
    given = table()
    edit(path, value)(given)
    with pytest.raises(InputError) as refused:
        parsed(given)
    said = str(refused.value)
    assert said.startswith("storm.toml: ") and message.removeprefix("source: ") in said and "\n" not in said


def test_system_calls_that_take_all_the_time_are_refused() -> None:
    given = table()
    del given["process"]["busy"]
    given["process"]["syscalls_per_second"] = 30_000
    with pytest.raises(InputError, match="30000 calls of 50 us each"):
        parsed(given)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**20) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def paths(given: object, way: tuple[str, ...] = ()) -> list[str]:
    """Every key of the example, at every level."""
    keys = given if isinstance(given, dict) else dict(enumerate(given)) if isinstance(given, list) else {}
    return [
        path
        for key, value in keys.items()
        for path in [".".join((*way, str(key))), *paths(value, (*way, str(key)))]
        if len(path) < 60
    ]


PATHS = sorted(path for path in paths(table()) if ".chains." not in path and not path[-1].isdigit())


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PATHS), JUNK)
def test_damage_is_refused_in_one_line_or_harmless(path: str, junk: object) -> None:
    given = table()
    edit(path, junk)(given)
    try:
        storm = parsed(given)
    except InputError as error:
        assert str(error).startswith("storm.toml: ") and str(error).isprintable()
    else:
        assert all(math.isfinite(source.rate) and source.rate >= 0 for source in storm.sources)

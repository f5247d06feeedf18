#!/usr/bin/env python3
"""Page operations a second of the page allocator's model, next to what memory allows in the same run.

    per-CPU lists      order 0 taken and given back through the per-CPU lists, watermarks checked each time
    free lists, n      blocks of order n taken and given back with splitting and merging, no per-CPU lists
    a mix              orders 0 to 3, all three migratetypes, a third of the blocks held, given back at random
    replay             the recorded events of fixtures/recordings, checks against /proc/buddyinfo included

An operation is one block taken or given back. Physical limit: reading the 4-byte array of the allocator's
list nodes at random places, one read an operation (numpy.take); no allocator that keeps lists can do better.
CPU seconds of one process on one core; of several rounds the one with the least counts.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from stackfit.pages import allocator_constants as c
from stackfit.pages import buddy
from stackfit.pages.replay import Recording, read_recording, replay
from stackfit.pages.zone import Zone

REPOSITORY = Path(__file__).resolve().parent.parent
RECORDINGS = REPOSITORY / "fixtures" / "recordings"
ROUNDS = 3
PAGES = 1 << 18  # 1 GiB
BLOCKS = 1 << 15  # taken before they are given back


def zone(per_cpu: bool) -> Zone:
    """All free, movable."""
    made = Zone("Normal", 0, PAGES, 10, c.STEAL_CLAIM, True, [0])
    made.managed = PAGES
    made.watermark_rule = c.WATERMARK_LISTS
    made.minimum, made.low, made.high = 1000, 1250, 1500
    for block in range(PAGES >> 10):
        made.set_block_type(block, c.MOVABLE)
        made.put(block << 10, 10, c.MOVABLE)
    if per_cpu:
        made.per_cpu_orders, made.per_cpu_high, made.per_cpu_batch = 4, 1250, 63
        made.per_cpu_scaled = True
    return made


def cpu(work: Callable[[], int], rounds: int) -> tuple[float, int]:
    """Least CPU seconds of several rounds, and operations of one."""
    best, operations = float("inf"), 0
    for _ in range(rounds):
        start = time.process_time()
        operations = work()
        best = min(best, time.process_time() - start)
    return best, operations


def pairs(per_cpu: bool, order: int, operations: int = 1 << 21) -> Callable[[], int]:
    """Blocks of one order taken, then given back, until as many operations are done."""

    def work() -> int:
        made, pages = zone(per_cpu), np.zeros(min(BLOCKS, PAGES >> (order + 1)), np.int32)
        done = 0
        while done < operations:
            taken = made.allocate_many(order, c.MOVABLE, made.low, 0, pages)
            made.release_many(pages[:taken], order)
            done += 2 * taken
        return done

    return work


def mix() -> Callable[[], int]:
    """A chunk of each order and type taken; chunks given back in another order than they were taken."""
    random = np.random.Generator(np.random.PCG64(1))
    plan = [(int(order), int(kind)) for order, kind in zip(
        random.choice(4, 6000, p=[0.7, 0.15, 0.1, 0.05]), random.integers(3, size=6000), strict=True
    )]  # fmt: skip
    victims = random.random(6000)

    def work() -> int:
        made, held, done = zone(True), list[tuple[np.ndarray, int]](), 0
        for (order, kind), chance in zip(plan, victims, strict=True):
            pages = np.zeros(256, np.int32)
            taken = made.allocate_many(order, kind, made.low, 0, pages)
            held.append((random.permutation(pages[:taken]), order))
            done += taken
            while made.free < PAGES * 2 // 3:
                chunk, size = held.pop(int(chance * len(held)))
                made.release_many(chunk, size)
                done += chunk.size
        return done

    return work


def random_reads() -> Callable[[], int]:
    random = np.random.Generator(np.random.PCG64(1))
    nodes = np.arange(PAGES, dtype=np.int32)
    places = random.integers(PAGES, size=1 << 21).astype(np.intp)

    def work() -> int:
        np.take(nodes, places)
        return places.size

    return work


def replay_all(recording: Recording) -> int:
    """Every interval alone and from the first snapshot on: each event twice."""
    return len(replay(recording).intervals)


def main() -> int:
    parser = argparse.ArgumentParser(description="The allocator's page operations a second.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"default {ROUNDS}")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there; - is standard output")
    options = parser.parse_args()
    seconds, reads = cpu(random_reads(), options.rounds)
    limit = reads / seconds
    rows: dict[str, dict[str, float]] = {}
    works = {
        "per-CPU lists, order 0": pairs(True, 0),
        **{f"free lists, order {order}": pairs(False, order) for order in (0, 1, 3)},
        "a mix of orders and types": mix(),
    }
    for name, work in works.items():
        seconds, operations = cpu(work, options.rounds)
        rate = operations / seconds
        rows[name] = {"operations_per_second": rate, "of_random_reads": rate / limit}
    recordings = sorted(path.parent for path in RECORDINGS.glob("*/events*"))
    for path in recordings:
        recording = read_recording(path)
        seconds, _ = cpu(partial(replay_all, recording), options.rounds)
        rows[f"replay of {path.name}"] = {"seconds": seconds}
    compiled = not str(buddy.__file__).endswith(".py")
    if options.json:
        document = {"compiled": compiled, "random_reads_per_second": limit, "rows": rows}
        text = json.dumps(document, indent=1) + "\n"
        if options.json == "-":
            sys.stdout.write(text)
            return 0
        Path(options.json).write_text(text, encoding="utf-8")
    state = "compiled" if compiled else "UNCOMPILED"
    print(f"{state} modules; {limit / 1e6:.0f} M random reads/s in {PAGES * 4 >> 20} MiB")
    for name, row in rows.items():
        if "seconds" in row:
            print(f"{name:32} {row['seconds']:8.3f} CPU s")
        else:
            rate, share = row["operations_per_second"], row["of_random_reads"]
            print(f"{name:32} {rate / 1e6:8.1f} M operations/s, {share:.0%} of random reads")
    return 0


if __name__ == "__main__":
    sys.exit(main())

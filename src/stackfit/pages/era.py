"""The rules of one kernel version's page allocator, as data (eras/*.toml).

    name = "linux-6.1"
    kernel = "6.1.192"              the source that was read
    evidence = "checked"            held against recordings of a real kernel; "assumed": only read
    mobility = true                 free lists by migratetype (2.6.24 and later)
    steal = "claim"                 __rmqueue_fallback: "none", "first" (2.6.24), "claim" (4.2 and later)
    tail_hint = true                a block that will soon merge goes to its list's end
    per_cpu_orders = 4              orders below this have per-CPU lists
    per_cpu_high = "low-watermark"  their limit: the low watermark's pages, or "six-batches"
    per_cpu_scaled = true           frees in a row give back more and more
    watermark = "lists"             zone_watermark_ok above order 0: "flat", "halving", "lists"
    min_free_kb = 0                 vm.min_free_kbytes after boot; 0: by the square root of memory
    low_above_min = "scaled"        low and high watermark: "scaled" (a quarter of min, or 0.1 % of the zone),
                                    "quarters" (min 5/4 and 3/2), "multiples" (min twice and three times)
    reserve_ratio = { DMA = 256 }   lowmem_reserve_ratio by zone; an empty table: no reserve
    boost = true                    watermark boost after stealing
    highatomic = true               pageblocks kept for atomic requests
    compaction = true
    lumpy = false                   lumpy reclaim
    working_set = true              pages are kept that are used twice, or come back soon after they were
    taken
                                    (3.15 and later; for anonymous memory 5.9); false: every page used once
    kswapd_order = true             kswapd is woken for an order; false: it only sees to free pages
    retry = "reclaimable"           what makes a request reclaim again: "reclaimable" memory that would help
                                    (4.7 and later), or any "progress" made
    reclaim_retries = 16            with "reclaimable": passes without progress before the OOM killer
    not_modelled = ""               what of that kernel's rules is known to be left out, for people
    [source]                        where each rule stands, for people

All keys are needed. Errors: InputError naming file and key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from stackfit.pages import allocator_constants as constants
from stackfit.tomlfile import Table, find, names_in, read_toml

__all__ = ["ERAS", "Era", "load_era"]

_DIRECTORY = Path(__file__).parent / "eras"
ERAS = names_in(_DIRECTORY)
_STEAL = {"none": constants.STEAL_NONE, "first": constants.STEAL_FIRST, "claim": constants.STEAL_CLAIM}
_WATERMARK = {
    "flat": constants.WATERMARK_FLAT,
    "halving": constants.WATERMARK_HALVING,
    "lists": constants.WATERMARK_LISTS,
}


@dataclass(frozen=True)
class Era:
    """See the module's text; `steal_rule` and `watermark_rule` are the numbers of the compiled code."""

    name: str
    kernel: str
    evidence: str
    mobility: bool
    steal: str
    tail_hint: bool
    per_cpu_orders: int
    per_cpu_high: str
    per_cpu_scaled: bool
    watermark: str
    min_free_kb: int
    low_above_min: str
    reserve_ratio: Mapping[str, int]
    boost: bool
    highatomic: bool
    compaction: bool
    lumpy: bool
    working_set: bool
    kswapd_order: bool
    retry: str
    reclaim_retries: int
    not_modelled: str
    source: Mapping[str, str]

    @property
    def steal_rule(self) -> int:
        return _STEAL[self.steal]

    @property
    def watermark_rule(self) -> int:
        return _WATERMARK[self.watermark]

    @property
    def assumption(self) -> str | None:
        """What an output has to say where the rules were only read; None: they were checked."""
        if self.evidence == "checked":
            return None
        rest = f"; not modelled: {self.not_modelled}" if self.not_modelled else ""
        return (
            f"{self.name}: the page allocator's rules are read from the source of {self.kernel}, not held"
            f" against a running kernel{rest}"
        )


def load_era(name: str) -> Era:
    """A shipped era by name, or a TOML file. InputError: there is none, or a key is wrong."""
    path = find(name, _DIRECTORY, "an era")
    table = Table(str(path), read_toml(path))
    ratios, sources = table.table("reserve_ratio"), table.table("source")
    if ratios is None or sources is None:
        raise table.error("reserve_ratio" if ratios is None else "source", "missing")
    era = Era(
        name=table.text("name"),
        kernel=table.text("kernel"),
        evidence=table.choice("evidence", ("checked", "assumed")),
        mobility=_flag(table, "mobility"),
        steal=table.choice("steal", _STEAL),
        tail_hint=_flag(table, "tail_hint"),
        per_cpu_orders=table.integer("per_cpu_orders", 1, constants.PER_CPU_ORDERS),
        per_cpu_high=table.choice("per_cpu_high", ("low-watermark", "six-batches")),
        per_cpu_scaled=_flag(table, "per_cpu_scaled"),
        watermark=table.choice("watermark", _WATERMARK),
        min_free_kb=table.integer("min_free_kb", 0, 1 << 20),
        low_above_min=table.choice("low_above_min", ("scaled", "quarters", "multiples")),
        reserve_ratio={zone: ratios.integer(zone, 0, 1 << 20) for zone in ratios},
        boost=_flag(table, "boost"),
        highatomic=_flag(table, "highatomic"),
        compaction=_flag(table, "compaction"),
        lumpy=_flag(table, "lumpy"),
        working_set=_flag(table, "working_set"),
        kswapd_order=_flag(table, "kswapd_order"),
        retry=table.choice("retry", ("reclaimable", "progress")),
        reclaim_retries=table.integer("reclaim_retries", 1, 1000),
        not_modelled=table.text("not_modelled", ""),
        source={rule: sources.text(rule) for rule in sources},
    )
    ratios.done()
    sources.done()
    table.done()
    for rule in fields(Era):
        if rule.name not in ("name", "kernel", "evidence", "not_modelled", "source", *era.source):
            raise sources.error(rule.name, "missing: every rule says where it stands")
    return era


def _flag(table: Table, key: str) -> bool:
    if key not in table:
        raise table.error(key, "missing (true or false is required)")
    return table.flag(key, False)

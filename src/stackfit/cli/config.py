"""stackfit.toml: what a project checks and allows itself, so that CI is the one line `stackfit check`.

Paths in it are relative to the file's directory. Options on the command line win over it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stackfit.choices import MOST_HOPS, UNLIMITED, Hypervisor, Indirect
from stackfit.cli.failing import FailOn, fail_on_words
from stackfit.decision.gate import AT, BUDGET, KINDS, Budget
from stackfit.layouts.loader import read_declared
from stackfit.layouts.model import Declared
from stackfit.tomlfile import Table, read_toml
from stackfit.verdict.allocation import Margin, parse_margin
from stackfit.verdict.model import Verdict

__all__ = ["NAME", "Config", "apply_config", "find_config", "load_config"]

NAME = "stackfit.toml"
_MOST_BYTES = 1 << 30  # no budget of a stack is larger


@dataclass(frozen=True)
class Config:
    """None and empty: not said."""

    path: str
    image: str | None
    modules: tuple[str, ...]
    debug: str | None
    traces: tuple[str, ...]
    layouts: tuple[str, ...]
    assume: tuple[str, ...]
    without: tuple[str, ...]
    hops: int | None
    indirect: str | None
    hypervisor: str | None
    baseline: str | None
    margin: Margin | None
    witness: tuple[str, ...]
    fail_on: FailOn
    budgets: tuple[Budget, ...]
    declared: Declared


def find_config(named: str | None, ignore: bool) -> Config | None:
    """The file named, else the one in the working directory, if there is one."""
    if ignore:
        return None
    if named is not None:
        return load_config(Path(named))
    path = Path(NAME)
    return load_config(path) if path.exists() else None


def load_config(path: Path) -> Config:
    """Read and check it. InputError names file and key; an unknown key comes with the nearest known one."""
    table = Table(str(path), read_toml(path))
    base = path.parent

    def place(name: str) -> str | None:
        return str(base / table.text(name)) if name in table else None

    def places(name: str) -> tuple[str, ...]:
        return tuple(str(base / one) for one in table.texts(name, ()))

    budgets = tuple(_budgets(table.table("budget")))
    config = Config(
        path=str(path),
        image=place("image"),
        modules=places("modules"),
        debug=place("debug"),
        traces=places("traces"),
        layouts=tuple(_layout(base, one) for one in table.texts("layouts", ())),
        assume=places("assume"),
        without=table.texts("without", ()),
        hops=_hops(table),
        indirect=_choice(table, "indirect", [one.value for one in Indirect]),
        hypervisor=_choice(table, "hypervisor", [one.value for one in Hypervisor]),
        baseline=place("baseline"),
        margin=_stated_margin(table),
        witness=places("witness"),
        fail_on=_fail_on(table, bool(budgets)),
        budgets=budgets,
        declared=read_declared(table, str(path)),
    )
    table.done()
    if config.fail_on.growth is not None and config.baseline is None:
        raise table.error("fail-on", "growth is held against a baseline; there is none")
    return config


def _layout(base: Path, name: str) -> str:
    """A preset's name as it is, a file relative to the configuration."""
    return str(base / name) if "/" in name or name.endswith(".toml") else name


def _hops(table: Table) -> int | None:
    if table.is_text("hops"):
        table.choice("hops", ["unlimited"])
        return UNLIMITED
    return table.integer("hops", 0, MOST_HOPS) if "hops" in table else None


def _stated_margin(table: Table) -> Margin | None:
    """`margin = 64`, or `margin = "10%"`."""
    if "margin" not in table:
        return None
    text = table.text("margin") if table.is_text("margin") else str(table.integer("margin", 0, _MOST_BYTES))
    try:
        return parse_margin(text)
    except ValueError as error:
        raise table.error("margin", str(error)) from None


def _choice(table: Table, key: str, options: list[str]) -> str | None:
    return table.choice(key, options) if key in table else None


def _fail_on(table: Table, budgets: bool) -> FailOn:
    if "fail-on" not in table:
        words = [Verdict.EXCEEDS.value, Verdict.MAY_EXCEED.value, *([BUDGET] if budgets else [])]
    else:
        words = list(table.texts("fail-on"))
    try:
        return fail_on_words(words)
    except argparse.ArgumentTypeError as error:
        raise table.error("fail-on", str(error)) from None


def _budgets(table: Table | None) -> Iterator[Budget]:
    if table is None:
        return
    at = table.choice("at", AT, AT[0])
    for kind in KINDS:
        inner = table.table(kind)
        if inner is not None:
            for pattern in inner:
                yield Budget(kind, pattern, inner.integer(pattern, 0, _MOST_BYTES), at)
    table.done()


def apply_config(options: argparse.Namespace, config: Config) -> None:
    """Put what the file says where the command line says nothing. An image there takes the place of all that
    the file says of images; assumptions of both count, those of the command line over the others."""
    if not options.images:
        options.images = [config.image] if config.image is not None else []
        options.modules = options.modules or list(config.modules)
        options.debug = options.debug or config.debug
        options.traces = options.traces or list(config.traces)
        options.witness = options.witness or list(config.witness)
    options.layout = options.layout or list(config.layouts)
    options.assume = [*config.assume, *options.assume]
    options.without = [*config.without, *options.without]
    options.hops = config.hops if options.hops is None else options.hops
    options.indirect = options.indirect or config.indirect
    options.hypervisor = options.hypervisor or config.hypervisor
    options.baseline = options.baseline or config.baseline
    if getattr(options, "margin", None) is None:
        options.margin = config.margin
    options.declared = config.declared
    if options.fail_on is None:
        options.fail_on = config.fail_on

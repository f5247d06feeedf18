"""What places of function pointers hold, asked for by name, in small programs compiled here."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackfit.calls.held import Held
from stackfit.calls.resolve import Indirect, resolve_indirect
from stackfit.frames.analyse import analyse_frames
from stackfit.image.link import link
from stackfit.image.pointers import code_pointers
from stackfit.image.tables import read_tables
from stackfit.isa.code import decode_program
from toolchain import compiled

SOURCE = """
#define NOINLINE __attribute__((noinline, noclone, noipa))
extern void spend(void *); extern void sink(void *, void *);
struct work { long pending; union { void (*func)(struct work *); long plain; }; };
static NOINLINE void in_data(struct work *w) { spend(w); }
static NOINLINE void by_code(struct work *w) { spend(w); }
static NOINLINE void handed(struct work *w) { spend(w); }
static NOINLINE void somewhere(struct work *w) { spend(w); }
static NOINLINE void called(struct work *w) { spend(w); }
struct work declared = { .func = in_data };
NOINLINE void init(struct work *w) { w->func = by_code; spend(w); }
NOINLINE void queue(struct work *w, void (*func)(struct work *)) { w->func = func; spend(w); }
NOINLINE void driver(struct work *w) { queue(w, handed); called(w); spend(w); }
NOINLINE void hide(void *place) { sink(place, somewhere); spend(place); }
NOINLINE void run(struct work *w) { w->func(w); spend(w); }
"""


def held(
    directory: Path, places: list[str], mode: Indirect = Indirect.TYPED
) -> tuple[dict[str, Held], list[str]]:
    image = compiled(directory, SOURCE, 64, "-O2", "-gbtf", "-mcmodel=kernel", "-mno-red-zone")
    if image.section(".BTF") is None:
        pytest.skip("this gcc writes no BTF")
    program = link([image])
    code, tables, pointers = decode_program(program), read_tables(program), code_pointers(program)
    frames = analyse_frames(code, tables, pointers)
    found = resolve_indirect(program, code, tables, frames, pointers, mode, places).held
    return dict(found), code.functions.names


def test_a_field_holds_what_data_code_and_callers_put_there(tmp_path: Path) -> None:
    found, names = held(tmp_path, ["struct work.func"])
    one = found["struct work.func"]
    assert [names[index] for index in one.functions] == ["in_data", "by_code", "handed"]
    # Its address goes where nothing is known of, `called` is never registered.
    assert [names[index] for index in one.loose] == ["somewhere"]
    assert {names[index] for index in one.alike} == {"somewhere"}
    namers = {names[function]: [names[one] for one in code] for function, code in one.namers.items()}
    assert namers == {"by_code": ["init"], "handed": ["driver"], "somewhere": ["hide"]}


def test_a_parameter_holds_what_its_callers_hand_over(tmp_path: Path) -> None:
    found, names = held(tmp_path, ["parameter 2 of queue"])
    assert [names[index] for index in found["parameter 2 of queue"].functions] == ["handed"]


def test_places_that_the_program_has_not_are_left_out(tmp_path: Path) -> None:
    places = ["struct work.gone", "struct gone.func", "parameter 1 of gone"]
    assert held(tmp_path, places)[0] == {}


def test_strict_holds_nothing(tmp_path: Path) -> None:
    assert held(tmp_path, ["struct work.func"], Indirect.STRICT)[0] == {}


def test_a_text_that_names_no_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither"):
        held(tmp_path, ["work.func"])

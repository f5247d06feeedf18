"""Assumption sets: what the shipped one holds, how sets combine, and what a wrong file says."""

# ruff: noqa: E501 - tables of cases, one case a line

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stackfit.assumptions import (
    AssumptionSet,
    Budget,
    Candidates,
    Cut,
    VersionRange,
    combine,
    load_assumptions,
    release_version,
    shipped_names,
)
from stackfit.image.model import InputError, Machine

WHY = 'reason = "because"\nsource = "kernel/x.c:f"\n'


def write(directory: Path, text: str, name: str = "set.toml") -> Path:
    path = directory / name
    path.write_text(text)
    return path


def refusal(directory: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        load_assumptions(write(directory, text))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(directory / "set.toml"))
    return message.removeprefix(f"{directory / 'set.toml'}: ")


def cut(function: str, charge: int, **more: Any) -> Cut:
    return Cut(function=function, charge=charge, reason="r", source="s", **more)


# ---- the shipped set


def test_linux_is_shipped_and_every_entry_says_why() -> None:
    assert "linux" in shipped_names()
    for name in shipped_names():
        loaded = load_assumptions(name)
        assert loaded.name == name
        for entry in loaded.entries:
            assert len(entry.reason) > 20
            assert ":" in entry.source  # file:function


def test_linux_on_debians_amd64_kernel() -> None:
    linux = load_assumptions("linux").select("6.1.0-56-cloud-amd64", Machine.X86_64)
    direct = linux.budget("__alloc_pages_direct_reclaim")
    assert direct is not None and direct.times == 1
    frame = linux.dynamic("do_syscall_64")
    assert frame is not None and frame.bytes == 1056  # 24 + (0x3ff + 15 & 0x7f8), as in its machine code
    switch = linux.budget("__schedule")
    assert switch is not None and switch.times == 1
    assert linux.cut("panic") is not None
    assert linux.dynamic("do_int80_syscall_32") is None
    assert linux.hops is None


def test_linux_gives_each_machine_its_own_frame() -> None:
    linux = load_assumptions("linux")
    sizes = {}
    for machine in (Machine.X86_64, Machine.I386):
        frame = linux.select("6.1.0", machine).dynamic("__do_fast_syscall_32")
        assert frame is not None
        sizes[machine] = frame.bytes
    assert sizes == {Machine.X86_64: 1064, Machine.I386: 1052}
    assert linux.select("6.1.0", None).dynamic("__do_fast_syscall_32") is None


def test_linux_before_the_random_offset() -> None:
    assert (
        load_assumptions("linux").select("5.10.0-30-amd64", Machine.X86_64).dynamic("do_syscall_64") is None
    )


# ---- reading


def test_all_kinds_of_entries(tmp_path: Path) -> None:
    text = (
        'name = "mine"\ndescription = "d"\n'
        f"[hops]\nmost = 3\n{WHY}"
        f'[[budget]]\nfunction = "f"\ntimes = 2\n{WHY}'
        f'[[cut]]\nfunction = "panic*"\nmatch = "glob"\ncharge = 0\n{WHY}'
        f'[[sleeps]]\nfunction = "schedule"\n{WHY}'
        f'[[dynamic]]\nfunction = "g"\nbytes = 512\nmachine = "i386"\nversions = ">=5.10,<6.2"\n{WHY}'
        f'[[candidates]]\nfield = "struct file_operations.read_iter"\nfunctions = ["a", "b"]\n{WHY}'
        f'[[candidates]]\nsite = "vfs_read+0x5a"\nfunctions = []\n{WHY}'
        f'[[candidates]]\nfunction = "h"\nfunctions = ["a"]\n{WHY}'
    )
    loaded = load_assumptions(write(tmp_path, text))
    assert (loaded.name, loaded.hops, loaded.hops_reason) == ("mine", 3, "because")
    assert loaded.budgets == (Budget(function="f", times=2, reason="because", source="kernel/x.c:f"),)
    assert loaded.dynamics[0].machine is Machine.I386
    assert loaded.sleeping("schedule") is not None and loaded.sleeping("f") is None
    assert len(list(loaded.entries)) == 7
    found = loaded.candidates_for(field="struct file_operations.read_iter", function="h")
    assert found is not None and found.functions == ("a", "b")
    at_site = loaded.candidates_for(site="vfs_read+0x5a", function="h")
    assert at_site is not None and at_site.functions == ()
    assert loaded.candidates_for(function="absent") is None


def test_entries_are_left_out_by_their_name(tmp_path: Path) -> None:
    text = f"""
[[cut]]
name = "no-oops"
function = "oops"
charge = 8
{WHY}
[[candidates]]
name = "no-oops"
field = "struct a.b"
functions = []
charge = 64
places = ["struct c.d", "parameter 2 of f"]
{WHY}
[[cut]]
function = "panic"
charge = 8
{WHY}"""
    loaded = load_assumptions(write(tmp_path, text))
    assert loaded.names == ("no-oops",)
    (candidates,) = loaded.candidates
    assert (candidates.charge, candidates.places) == (64, ("struct c.d", "parameter 2 of f"))
    left = loaded.without(["no-oops"])
    assert [entry.subject for entry in left.entries] == ["panic"]
    with pytest.raises(InputError, match=r"no assumption is named no-ops \(near: no-oops\)"):
        loaded.without(["no-ops"])


def test_name_defaults_to_the_files(tmp_path: Path) -> None:
    loaded = load_assumptions(write(tmp_path, "", "board.toml"))
    assert (loaded.name, list(loaded.entries), loaded.hops) == ("board", [], None)


def test_patterns_only_where_said(tmp_path: Path) -> None:
    text = f'[[cut]]\nfunction = "panic*"\nmatch = "glob"\ncharge = 1\n{WHY}[[cut]]\nfunction = "panic_x"\ncharge = 2\n{WHY}'
    loaded = load_assumptions(write(tmp_path, text))
    assert [
        (c.charge if (c := loaded.cut(name)) else None) for name in ("panic", "panic_x", "Panic", "a_panic")
    ] == [
        1,
        2,
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[budget]]\ntimes = 1\n" + WHY, "budget #1.function: missing (a text is required)"),
        ('[[budget]]\nfunction = "f"\n' + WHY, "budget #1.times: missing (a whole number is required)"),
        ('[[budget]]\nfunction = "f"\ntimes = 0\n' + WHY, "budget #1.times: 0 is not between 1 and 1000"),
        ('[[budget]]\nfunction = "f"\ntimes = 1\nsource = "s"\n', "budget #1.reason: missing (a text is required)"),
        ('[[budget]]\nfunction = "f"\ntimes = 1\nreason = "r"\n', "budget #1.source: missing (a text is required)"),
        ('[[budget]]\nfunction = "f"\ntimes = 1\nreason = "TODO: why"\nsource = "s"\n', "budget #1.reason: 'TODO: why' is a placeholder"),
        ('[[cut]]\nfunction = "f"\ncharge = 1\nreason = "r"\nsource = " todo"\n', "cut #1.source: 'todo' is a placeholder"),
        ('[[budget]]\nfunction = "f"\ntimes = 1\nreason = " "\nsource = "s"\n', "budget #1.reason: must not be empty"),
        ('[[budget]]\nfunction = "f"\ntimse = 1\n' + WHY, "budget #1.times: missing"),
        ('[[budget]]\nfunction = "f"\ntimes = 1\nversion = "6"\n' + WHY, "budget #1.version: unknown key; did you mean 'versions'?"),
        ('[[cut]]\nfunction = "f"\ncharge = -1\n' + WHY, "cut #1.charge: -1 is not between 0 and"),
        ('[[cut]]\nfunction = "f*"\ncharge = 1\n' + WHY, "cut #1.function: 'f*' is a pattern: say match = \"glob\""),
        ('[[cut]]\nfunction = "f g"\ncharge = 1\n' + WHY, "cut #1.function: 'f g' is not a function's name"),
        ('[[cut]]\nfunction = "f"\nmatch = "globe"\ncharge = 1\n' + WHY, "did you mean 'glob'?"),
        ('[[cut]]\nfunction = "f"\nmachine = "x86-64"\ncharge = 1\n' + WHY, "did you mean 'x86_64'?"),
        ('[[cut]]\nfunction = "f"\ncharge = 1\nversions = "6.1"\n' + WHY, "cut #1.versions: '6.1': not a version range such as"),
        ('[[cut]]\nfunction = "f"\ncharge = 1\nversions = ">6,<5"\n' + WHY, "cut #1.versions: '>6,<5': holds for no version"),
        ('[[dynamic]]\nfunction = "f"\nbytes = -1\n' + WHY, "dynamic #1.bytes: -1 is not between 0 and"),
        ('[[dynamic]]\nfunction = "f"\nbytes = "8"\n' + WHY, "dynamic #1.bytes: must be a whole number"),
        ('[[candidates]]\nfunctions = ["a"]\n' + WHY, "candidates #1: needs exactly one of function, site and field, and has none"),
        ('[[candidates]]\nfunction = "f"\nsite = "f+0x1"\nfunctions = ["a"]\n' + WHY, "and has function and site"),
        ('[[candidates]]\nsite = "f"\nfunctions = ["a"]\n' + WHY, "candidates #1.site: 'f' is not FUNCTION+0xOFFSET"),
        ('[[candidates]]\nfield = "file.read"\nfunctions = ["a"]\n' + WHY, "candidates #1.field: 'file.read' is not 'struct TAG.MEMBER'"),
        ('[[candidates]]\nfield = "struct f.m"\nmatch = "glob"\nfunctions = ["a"]\n' + WHY, "only function names can be patterns"),
        ('[[candidates]]\nfield = "struct f.m"\nfunctions = ["a", "a"]\n' + WHY, "candidates #1.functions: 'a' is there more than once"),
        ('[[candidates]]\nfield = "struct f.m"\nfunctions = "a"\n' + WHY, "candidates #1.functions: must be a list of texts"),
        ('[[candidates]]\nfield = "struct f.m"\nfunctions = []\nplaces = ["f.m"]\n' + WHY, "candidates #1.places: 'f.m' is not 'struct TAG.MEMBER'"),
        ('[[candidates]]\nfield = "struct f.m"\nfunctions = []\nplaces = ["struct a.b.c"]\n' + WHY, "candidates #1.places: 'struct a.b.c' is not 'struct TAG.MEMBER'"),
        ('[[cut]]\nname = "No oops"\nfunction = "f"\ncharge = 1\n' + WHY, "cut #1.name: 'No oops' is not made of"),
        ("[hops]\nmost = 3\n", "hops.reason: missing"),
        ("[hops]\nmost = -1\n" + WHY, "hops.most: -1 is not between 0 and"),
        ("hops = 3\n", "hops: must be a table"),
        ("[[budgets]]\n", "budgets: unknown key; did you mean 'budget'?"),
        ("[budget]\n", "budget: must be written as [[budget]]"),
        ("budget = [1]\n", "budget: must be written as [[budget]]"),
        ("name = ", "not TOML"),
    ],
)  # fmt: skip
def test_wrong_file(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(tmp_path, text)


def test_two_entries_about_one_function(tmp_path: Path) -> None:
    one = f'[[cut]]\nfunction = "f"\ncharge = 1\n{WHY}'
    assert refusal(tmp_path, one + one) == "cut #2: 'f' already has cut #1 for the same kernel"
    assert "cut #2" in refusal(tmp_path, one + one.replace("charge = 1", 'charge = 1\nversions = ">=6"'))
    # another kind, other versions, another machine: not the same
    load_assumptions(write(tmp_path, one + one.replace("cut", "budget").replace("charge", "times")))
    old, new = (one + f'versions = "{v}"\n' for v in ("<6", ">=6"))
    load_assumptions(write(tmp_path, old + new))
    assert "cut #2" in refusal(tmp_path, old + new.replace(">=6", ">=5.19"))
    load_assumptions(write(tmp_path, one + 'machine = "i386"\n' + one + 'machine = "x86_64"\n'))


def test_no_such_set(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"neither a file nor a shipped assumption set .* did you mean 'linux'\?"
    ):
        load_assumptions("linus")
    with pytest.raises(InputError, match="cannot be read"):
        load_assumptions(tmp_path / "absent.toml")


# ---- versions


@pytest.mark.parametrize(
    ("versions", "release", "applies"),
    [
        ("", None, True),
        ("", "strange", True),
        (">=5.10", None, False),
        (">=5.10", "strange", False),
        (">=5.10,<6.2", "6.1.0-56-cloud-amd64", True),
        (">=5.10,<6.2", "6.2.0-rc1", False),
        (">=5.10,<6.2", "5.9.16", False),
        (">=5.10", "5.10", True),
        (">5.10", "5.10.0", False),
        (">5.10", "5.10.1", True),
        ("<=6.1", "6.1.0-50-686", True),
        ("<=6.1", "6.1.1", False),
        ("==6.1", "6.1.0", True),
        ("==6.1", "6.1.192", False),
        ("==6.1.*", "6.1.192", True),
        ("==6.1.*", "6.10.1", False),
        ("==6.1.*", "6.2.0", False),
        (">= 5.10 , < 6.2", "6.1", True),
        ("<10", "6.12.3", True),
        (">=2.6.6", "2.6.32-5-686", True),
    ],
)
def test_versions(versions: str, release: str | None, applies: bool) -> None:
    assert cut("f", 1, versions=versions).applies(release) is applies


@pytest.mark.parametrize(
    "text", ["6.1", "~=6.1", "!=6.1", ">=6.x", ">=6.1.*", ">=", ",", ">=6,", "==*", ">6,<=6", "<0"]
)
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(ValueError):
        VersionRange.parse(text)


def test_release_version() -> None:
    assert release_version("6.1.0-56-cloud-amd64") == (6, 1)
    assert release_version("5.10.200") == (5, 10, 200)
    assert release_version("v6.1") is None


NUMBERS = st.lists(st.integers(0, 3), min_size=1, max_size=3)
CLAUSES = st.lists(st.tuples(st.sampled_from([">=", ">", "<=", "<", "=="]), NUMBERS), min_size=1, max_size=3)


def holds(clauses: list[tuple[str, list[int]]], release: list[int]) -> bool:
    """The definition, clause by clause, on versions padded with zeros."""

    def pad(version: list[int]) -> list[int]:
        return version + [0] * (4 - len(version))

    tests = {
        ">=": lambda a, b: a >= b,
        ">": lambda a, b: a > b,
        "<=": lambda a, b: a <= b,
        "<": lambda a, b: a < b,
        "==": lambda a, b: a == b,
    }
    return all(tests[operator](pad(release), pad(version)) for operator, version in clauses)


def dotted(version: list[int]) -> str:
    return ".".join(map(str, version))


@given(CLAUSES, NUMBERS)
def test_a_range_is_the_conjunction_of_its_clauses(
    clauses: list[tuple[str, list[int]]], release: list[int]
) -> None:
    text = ",".join(operator + dotted(version) for operator, version in clauses)
    try:
        parsed = VersionRange.parse(text)
    except ValueError:
        assert not holds(clauses, release)
        return
    version = release_version(dotted(release))
    assert version is not None
    assert (version in parsed) == holds(clauses, release)


@given(CLAUSES, CLAUSES, NUMBERS)
def test_a_version_in_both_means_overlap(
    one: list[tuple[str, list[int]]], two: list[tuple[str, list[int]]], release: list[int]
) -> None:
    if holds(one, release) and holds(two, release):
        ranges = [VersionRange.parse(",".join(o + dotted(v) for o, v in clauses)) for clauses in (one, two)]
        assert ranges[0].overlaps(ranges[1])
        assert ranges[1].overlaps(ranges[0])


def test_ranges_that_only_touch_do_not_overlap() -> None:
    assert not VersionRange.parse("<6").overlaps(VersionRange.parse(">=6"))
    assert VersionRange.parse("<=6").overlaps(VersionRange.parse(">=6"))


# ---- combining


def test_the_later_set_wins_per_function() -> None:
    shipped = AssumptionSet("a", cuts=(cut("f", 1), cut("g", 2)), hops=4, hops_reason="why")
    mine = AssumptionSet("b", cuts=(cut("f", 10),))
    both = combine(shipped, mine)
    assert both.name == "a + b"
    assert [(c.function, c.charge) for c in both.cuts] == [("g", 2), ("f", 10)]
    assert (both.hops, both.hops_reason) == (4, "why")
    assert combine(both, AssumptionSet("c", hops=1)).hops == 1
    assert combine() == AssumptionSet("")


def test_a_later_entry_for_some_kernels_leaves_the_others_alone() -> None:
    both = combine(
        AssumptionSet("a", cuts=(cut("f", 1),)), AssumptionSet("b", cuts=(cut("f", 9, versions=">=6"),))
    )
    charges = {}
    for release in ("5.10.0", "6.1.0"):
        found = both.select(release, None).cut("f")
        assert found is not None
        charges[release] = found.charge
    assert charges == {"5.10.0": 1, "6.1.0": 9}


def test_a_later_set_replaces_all_of_a_functions_variants() -> None:
    shipped = AssumptionSet("a", cuts=(cut("f", 1, versions="<6"), cut("f", 2, versions=">=6")))
    assert combine(shipped, AssumptionSet("b", cuts=(cut("f", 9),))).cuts == (cut("f", 9),)


def test_both_variants_of_a_later_set_stay() -> None:
    variants = (cut("f", 1, machine=Machine.I386), cut("f", 2, machine=Machine.X86_64))
    assert combine(AssumptionSet("a"), AssumptionSet("b", cuts=variants)).cuts == variants


def test_candidates_about_different_things_do_not_meet() -> None:
    site = Candidates(site="f+0x1", functions=("a",), reason="r", source="s")
    function = Candidates(function="f", functions=("b",), reason="r", source="s")
    both = combine(AssumptionSet("a", candidates=(site,)), AssumptionSet("b", candidates=(function,)))
    assert both.candidates == (site, function)
    assert both.candidates_for(function="f", site="f+0x1") is site
    assert both.candidates_for(function="f", site="f+0x9") is function


# ---- any dictionary: a set, or one line

TEXTS = st.one_of(
    st.sampled_from(["f", "f*", "glob", "exact", ">=6.1", "==6.1.*", "x86_64", "struct f.m", "f+0x1f"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
KEYS = st.one_of(
    st.sampled_from(
        ["function", "times", "charge", "bytes", "reason", "source", "versions", "machine", "match", "functions", "field", "site"]
    ),
    TEXTS,
)  # fmt: skip
VALUES = st.one_of(st.booleans(), st.integers(-3, 2**40), st.floats(0, 9), TEXTS, st.lists(TEXTS, max_size=3))
ENTRIES = st.builds(
    lambda extra, base: base | extra,
    st.dictionaries(KEYS, VALUES, max_size=4),
    st.just({"function": "f", "reason": "r", "source": "s"}),
)
SETS = st.dictionaries(
    st.one_of(st.sampled_from(["budget", "cut", "dynamic", "candidates", "hops", "name"]), TEXTS),
    st.one_of(st.lists(ENTRIES, max_size=3), ENTRIES, VALUES),
    max_size=4,
)
NEEDED = {
    "budget": {"times": 1},
    "cut": {"charge": 8},
    "dynamic": {"bytes": 8},
    "candidates": {"functions": ["a"]},
}


def to_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{to_toml(k)} = {to_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(SETS, st.booleans(), st.sampled_from(["6.1.0-56-cloud-amd64", "", None]))
def test_any_dictionary_is_a_set_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any], complete: bool, release: str | None
) -> None:
    if complete:
        for key, needed in NEEDED.items():
            if isinstance(tree.get(key), list):
                tree[key] = [needed | item if isinstance(item, dict) else item for item in tree[key]]
    text = "".join(f"{to_toml(key)} = {to_toml(value)}\n" for key, value in tree.items())
    try:
        loaded = load_assumptions(write(tmp_path_factory.getbasetemp(), text))
    except InputError as error:
        assert "\n" not in str(error)
        assert "not TOML" not in str(error)
        return
    for entry in loaded.select(release, Machine.X86_64).entries:
        assert entry.reason and entry.source and entry.subject
        assert not (release is None and entry.versions)
    assert all(budget.times >= 1 for budget in loaded.budgets)
    assert all(one.charge >= 0 for one in loaded.cuts)
    assert combine(loaded, loaded).cuts == loaded.cuts


# ---- the reference


def test_the_documents_example_loads(tmp_path: Path) -> None:
    document = Path(__file__).parents[2] / "docs" / "assumptions.md"
    (example,) = [part.split("```")[0] for part in document.read_text().split("```toml\n")[1:]]
    loaded = combine(load_assumptions("linux"), load_assumptions(write(tmp_path, example)))
    assert loaded.hops == 4
    assert loaded.cut("acme_fatal_bus") is not None
    assert loaded.budget("try_to_free_pages") is not None

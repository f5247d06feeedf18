"""Candidates of indirect calls in small programs compiled here, with the types that gcc writes as BTF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stackfit.calls.graph import build_calls
from stackfit.calls.model import CallKind, Reason, Rung
from stackfit.calls.resolve import Indirect, Resolved, resolve_indirect
from stackfit.frames.analyse import analyse_frames
from stackfit.image.link import link
from stackfit.image.pointers import code_pointers
from stackfit.image.tables import read_tables
from stackfit.isa.code import decode_program
from stackfit.isa.effects import Operation
from toolchain import compiled

COMMON = """
typedef unsigned long size_t;
#define NOINLINE __attribute__((noinline, noclone, noipa))
struct file;
struct operations { int (*open)(struct file *); long (*read)(struct file *, char *, long); };
struct file { int mode; const struct operations *op; void *data; };
extern void *allocate(size_t); extern void spend(void *); extern void sink(void *, void *);
"""


def resolve(
    directory: Path, source: str, mode: Indirect = Indirect.TYPED
) -> dict[str, list[tuple[Rung, list[str], str] | None]]:
    """Function → (rung, names of the candidates, place) of each of its indirect calls, in order; None:
    open."""
    image = compiled(directory, COMMON + source, 64, "-O2", "-gbtf", "-mcmodel=kernel", "-mno-red-zone")
    if image.section(".BTF") is None:
        pytest.skip("this gcc writes no BTF")
    program = link([image])
    code, tables = decode_program(program), read_tables(program)
    pointers = code_pointers(program)
    frames = analyse_frames(code, tables, pointers)
    found = resolve_indirect(program, code, tables, frames, pointers, mode).sites
    names, answers = code.functions.names, dict[str, list[tuple[Rung, list[str], str] | None]]()
    for row in range(len(code)):
        if code.instructions.operation[row] in (Operation.CALL_INDIRECT, Operation.JUMP_INDIRECT):
            one: Resolved | None = found.get(row)
            answers.setdefault(names[code.function[row]], []).append(
                None if one is None else (one.rung, sorted(names[x] for x in one.candidates), one.place)
            )
    return answers


def only(
    answers: dict[str, list[tuple[Rung, list[str], str] | None]], name: str
) -> tuple[Rung, list[str], str]:
    (answer,) = answers[name]
    assert answer is not None
    return answer


FILES = """
static NOINLINE int a_open(struct file *f) { return f->mode; }
static NOINLINE long a_read(struct file *f, char *b, long n) { return n; }
static NOINLINE long b_read(struct file *f, char *b, long n) { return n + 1; }
const struct operations a = { a_open, a_read }, b = { .read = b_read };
NOINLINE long do_read(struct file *f, char *to, long n) { return f->op->read(f, to, n) + 1; }
NOINLINE int do_open(struct file *f) { return f->op->open(f) + 1; }
"""


def test_a_field_has_what_initialised_structs_hold_there(tmp_path: Path) -> None:
    answers = resolve(tmp_path, FILES)
    assert only(answers, "do_read") == (Rung.FIELD, ["a_read", "b_read"], "struct operations.read")
    assert only(answers, "do_open") == (Rung.FIELD, ["a_open"], "struct operations.open")


def test_strict_trusts_no_type(tmp_path: Path) -> None:
    assert resolve(tmp_path, FILES, Indirect.STRICT) == {"do_read": [None], "do_open": [None]}


def test_signature_trusts_the_prototype_alone(tmp_path: Path) -> None:
    source = (
        FILES
        + """
    struct other { long (*peek)(struct file *, char *, long); };
    static NOINLINE long c_peek(struct file *f, char *b, long n) { return n + 2; }
    const struct other c = { c_peek };
    NOINLINE long use(const struct other *o, struct file *f) { return o->peek(f, 0, 0) + 1; }
    """
    )
    assert only(resolve(tmp_path, source), "do_read")[1] == ["a_read", "b_read"]
    rung, members, _ = only(resolve(tmp_path, source, Indirect.SIGNATURE), "do_read")
    assert (rung, members) == (Rung.SIGNATURE, ["a_read", "b_read", "c_peek"])


def test_code_that_stores_a_function_registers_it(tmp_path: Path) -> None:
    source = """
    struct timer { struct timer *next; void (*function)(struct timer *); };
    static NOINLINE void late(struct timer *t) { spend(t); }
    static NOINLINE void early(struct timer *t) { spend(t); }
    NOINLINE void set(struct timer *t) { t->function = late; }
    NOINLINE void setup(struct timer *t, void (*function)(struct timer *)) { t->function = function; }
    NOINLINE void both(struct timer *t) { setup(t, early); spend(t); }
    NOINLINE void run(struct timer *t) { t->function(t); spend(t); }
    """
    assert only(resolve(tmp_path, source), "run") == (Rung.FIELD, ["early", "late"], "struct timer.function")


def test_a_default_that_meets_an_argument_is_not_lost(tmp_path: Path) -> None:
    source = """
    struct action { long pad; int (*handler)(int, void *); };
    static NOINLINE int fallback(int n, void *d) { return n; }
    static NOINLINE int mine(int n, void *d) { return n + 1; }
    NOINLINE int request(struct action *a, int (*handler)(int, void *)) {
        if (!handler) { spend(a); handler = fallback; }
        a->handler = handler;
        spend(a);
        return 0;
    }
    NOINLINE int probe(struct action *a) { request(a, mine); return request(a, 0) + 1; }
    NOINLINE int fire(struct action *a) { return a->handler(1, a) + 1; }
    """
    assert only(resolve(tmp_path, source), "fire")[1] == ["fallback", "mine"]


def test_an_argument_has_what_callers_hand_over(tmp_path: Path) -> None:
    source = """
    static NOINLINE int less(const void *a, const void *b) { return a < b; }
    static NOINLINE int more(const void *a, const void *b) { return a > b; }
    NOINLINE int sort(char *base, long n, int (*compare)(const void *, const void *)) {
        int r = 0;
        while (n--) { r += compare(base, base + n); spend(base); }
        return r;
    }
    NOINLINE int one(char *b) { return sort(b, 3, less) + 1; }
    NOINLINE int two(char *b) { return sort(b, 3, more) + 1; }
    """
    assert only(resolve(tmp_path, source), "sort")[:2] == (Rung.PARAMETER, ["less", "more"])


def test_constant_tables_need_no_types(tmp_path: Path) -> None:
    source = """
    static NOINLINE long zero(long n) { return n; }
    static NOINLINE long one(long n) { return n + 1; }
    static long (*const table[])(long) = { zero, one };
    NOINLINE long dispatch(unsigned long n, long x) { return table[n & 1](x) + 1; }
    """
    for mode in Indirect:
        assert only(resolve(tmp_path, source, mode), "dispatch")[:2] == (Rung.GLOBAL, ["one", "zero"])


def test_allocated_memory_gets_the_type_of_its_uses(tmp_path: Path) -> None:
    source = (
        FILES
        + """
    struct job { struct file *file; long (*work)(struct job *); long pad[4]; };
    static NOINLINE long walk(struct job *j) { return 1; }
    NOINLINE void queue(struct job *j) { spend(j); }
    NOINLINE void start(void) { struct job *j = allocate(sizeof *j); j->work = walk; queue(j); }
    NOINLINE long work(struct job *j) { return j->work(j) + 1; }
    NOINLINE long again(void) { struct job *j = allocate(8); queue(j); return j->work(j) + 1; }
    """
    )
    answers = resolve(tmp_path, source)
    assert only(answers, "work") == only(answers, "again") == (Rung.FIELD, ["walk"], "struct job.work")


def test_a_function_that_goes_where_nothing_is_known_may_be_anywhere_its_prototype_fits(
    tmp_path: Path,
) -> None:
    source = (
        FILES
        + """
    static NOINLINE long stray_read(struct file *f, char *b, long n) { return n + 3; }
    NOINLINE void hide(void *somewhere) { sink(somewhere, stray_read); spend(somewhere); }
    """
    )
    answers = resolve(tmp_path, source)
    assert only(answers, "do_read")[1] == ["a_read", "b_read", "stray_read"]
    assert only(answers, "do_open")[1] == ["a_open"]


def test_container_of_finds_the_structs_around(tmp_path: Path) -> None:
    source = """
    struct node { struct node *next; long key; };
    struct holder { struct node node; int (*poke)(struct holder *); };
    struct keeper { struct node node; long (*peek)(struct node *); };
    static NOINLINE int poked(struct holder *h) { return 1; }
    static NOINLINE long peeked(struct node *n) { return 2; }
    struct holder h = { .poke = poked };
    struct keeper k = { .peek = peeked };
    NOINLINE int visit(struct node *n) { struct holder *h = (void *)n; return h->poke(h) + 1; }
    NOINLINE long other(struct keeper *k) { return k->peek(&k->node) + 1; }
    NOINLINE int same(struct holder *h) { return h->poke(h) + 1; }
    """
    answers = resolve(tmp_path, source)
    rung, members, place = only(answers, "visit")
    assert rung is Rung.CONTAINER and members == ["peeked", "poked"]
    assert place == "struct node +16, in struct holder.poke, struct keeper.peek"
    assert only(answers, "same")[1] == ["poked"]


def test_what_nothing_fills_is_open_and_named(tmp_path: Path) -> None:
    source = "NOINLINE int call(struct file *f) { return f->op->open(f) + 1; }"
    assert only(resolve(tmp_path, source), "call") == (Rung.FIELD, [], "struct operations.open")


def test_a_pointer_of_unknown_type_stays_open(tmp_path: Path) -> None:
    source = (
        FILES + "NOINLINE long blind(long (**f)(long)) { return ((long (**)(long))*(void **)f)[2](1) + 1; }"
    )
    assert resolve(tmp_path, source)["blind"] == [None]


def test_a_struct_on_the_stack_is_filled_too(tmp_path: Path) -> None:
    source = """
    struct walk { int (*step)(struct walk *); long count; };
    static NOINLINE int stepped(struct walk *w) { return 1; }
    NOINLINE int drive(struct walk *w) { return w->step(w) + 1; }
    NOINLINE int whole(void) { struct walk w = { stepped, 3 }; return drive(&w) + 1; }
    """
    assert only(resolve(tmp_path, source), "drive")[1] == ["stepped"]


def test_functions_of_one_name_may_have_each_others_prototype(tmp_path: Path) -> None:
    """Two static functions of one name (two files of a kernel): BTF says not which is which."""
    source = """
    struct port { unsigned (*in)(struct port *, int); };
    static NOINLINE unsigned twin(struct port *p, int n) { return n; }
    const struct port first = { twin };
    asm(".text\\n.type twin, @function\\n");
    NOINLINE unsigned read_port(struct port *p) { return p->in(p, 1) + 1; }
    """
    assert only(resolve(tmp_path, source), "read_port")[1] == ["twin"]


def test_the_only_struct_with_the_members_in_use_is_the_type(tmp_path: Path) -> None:
    source = """
    struct lock { int owner; int depth; };
    struct steps { int (*show)(void *); };
    struct sequence { long size; long at; struct lock lock; const struct steps *op; };
    struct decoy { long size; long at; struct lock lock; long op; };
    static NOINLINE int shown(void *x) { return 1; }
    const struct steps s = { shown };
    extern void give(struct decoy *);
    NOINLINE void lock(struct lock *l) { spend(l); }
    NOINLINE int next(struct file *f) {
        struct sequence *q = f->data;
        lock(&q->lock);
        return q->op->show(q) + 1;
    }
    NOINLINE void other(struct decoy *d) { lock(&d->lock); }
    NOINLINE int use(struct sequence *q) { return q->op->show(q) + 1; }
    """
    assert only(resolve(tmp_path, source), "next") == (Rung.FIELD, ["shown"], "struct steps.show")


def test_of_several_such_structs_none_is_the_type(tmp_path: Path) -> None:
    source = """
    struct lock { int owner; int depth; };
    struct steps { int (*show)(void *); };
    struct moves { int (*move)(void *); };
    struct sequence { long size; long at; struct lock lock; const struct steps *op; };
    struct decoy { long size; long at; struct lock lock; const struct moves *op; };
    static NOINLINE int shown(void *x) { return 1; }
    static NOINLINE int moved(void *x) { return 2; }
    const struct steps s = { shown };
    const struct moves m = { moved };
    NOINLINE void lock(struct lock *l) { spend(l); }
    NOINLINE int next(struct file *f) {
        struct sequence *q = f->data;
        lock(&q->lock);
        return q->op->show(q) + 1;
    }
    NOINLINE int use(struct sequence *q, struct decoy *d) { return q->op->show(q) + d->op->move(d); }
    """
    assert resolve(tmp_path, source)["next"] == [None]


def test_an_object_on_the_stack_may_change_in_a_call_that_knows_it(tmp_path: Path) -> None:
    source = """
    struct t { long n; int (*cb)(int); };
    static NOINLINE int one(int n) { return n; }
    static NOINLINE int two(int n) { return n + 1; }
    NOINLINE void change(struct t *t) { t->cb = two; }
    NOINLINE int run(int n) { struct t t = { n, one }; change(&t); return t.cb(n) + 1; }
    """
    for mode in Indirect:
        (answer,) = resolve(tmp_path, source, mode)["run"]
        assert answer is None or {"one", "two"} <= set(answer[1])


def test_a_callback_in_an_object_on_the_stack_outlives_the_calls_of_a_loop(tmp_path: Path) -> None:
    source = """
    struct t { long n; int (*cb)(int); };
    static NOINLINE int one(int n) { return n; }
    NOINLINE int each(struct t *t) { return t->cb(t->n) + 1; }
    NOINLINE int walk(long n, int (*cb)(int)) {
        struct t t = { 0, cb };
        int sum = 0;
        for (t.n = 0; t.n < n; t.n++) sum += each(&t);
        return sum;
    }
    NOINLINE int run(long n) { return walk(n, one) + 1; }
    """
    assert "one" in only(resolve(tmp_path, source), "each")[1]


def test_a_store_through_a_pointer_to_a_function_pointer_may_be_into_any_field(tmp_path: Path) -> None:
    source = """
    struct t { long n; int (*cb)(int); };
    static NOINLINE int one(int n) { return n; }
    static NOINLINE int two(int n) { return n + 1; }
    const struct t start = { 1, one };
    NOINLINE void set(int (**place)(int), int (*f)(int)) { *place = f; }
    NOINLINE void fill(struct t *t) { set(&t->cb, two); spend(t); }
    NOINLINE int run(const struct t *t, int n) { return t->cb(n) + 1; }
    """
    assert only(resolve(tmp_path, source), "run")[1] == ["one", "two"]


def test_a_struct_that_only_a_typedef_names_is_one_place(tmp_path: Path) -> None:
    source = """
    typedef struct { long a; int (*cb)(int); } part;
    struct whole { long x; part p; };
    static NOINLINE int one(int n) { return n; }
    NOINLINE void set(part *p) { p->cb = one; }
    NOINLINE int run(struct whole *w, int n) { return w->p.cb(n) + 1; }
    """
    assert only(resolve(tmp_path, source), "run")[1] == ["one"]


def test_arguments_stand_in_registers_as_the_abi_says(tmp_path: Path) -> None:
    source = """
    struct pair { long a, b; };
    struct t { int (*cb)(int); };
    static NOINLINE int one(int n) { return n; }
    static NOINLINE int two(int n) { return n + 1; }
    NOINLINE int after(struct pair p, int (*f)(int), long n) { spend(&p); return f(n) + 1; }
    NOINLINE int one_way(void) { struct pair p = { 1, 2 }; return after(p, one, 3) + 1; }
    NOINLINE int other_way(void) { struct pair p = { 1, 2 }; return after(p, two, 3) + 1; }
    """
    assert only(resolve(tmp_path, source), "after")[:2] == (Rung.PARAMETER, ["one", "two"])


def test_what_a_tail_call_returns_is_returned(tmp_path: Path) -> None:
    source = """
    typedef int (*function)(int);
    static NOINLINE int one(int n) { return n; }
    static NOINLINE int two(int n) { return n + 1; }
    NOINLINE function inner(int n) { spend(0); return one; }
    NOINLINE function pick(int n) { if (n > 3) return inner(n + 1); return two; }
    NOINLINE int run(int n) { return pick(n)(n) + 1; }
    """
    assert only(resolve(tmp_path, source), "run")[1] == ["one", "two"]


def test_an_object_that_code_fills_by_name_is_read_by_type(tmp_path: Path) -> None:
    source = """
    struct item { struct item *next; int (*cb)(int); };
    static NOINLINE int one(int n) { return n; }
    static struct item mine;
    struct item *head;
    NOINLINE void add(void *item) { sink(&head, item); }
    NOINLINE void start(void) { mine.cb = one; add(&mine); }
    NOINLINE int run(struct item *i, int n) { return i->cb(n) + 1; }
    """
    assert only(resolve(tmp_path, source), "run")[1] == ["one"]


def test_a_union_without_a_name_may_hold_a_function_of_any_of_its_members_prototypes(tmp_path: Path) -> None:
    source = """
    struct buffer {
        long n;
        union { void (*destructor)(struct buffer *); struct { long a, b; }; long *list; };
    };
    static NOINLINE void mine(struct buffer *b) { spend(b); }
    NOINLINE void own(void *somewhere) { sink(somewhere, mine); spend(somewhere); }
    NOINLINE void release(struct buffer *b) { b->destructor(b); spend(b); }
    """
    assert only(resolve(tmp_path, source), "release")[1] == ["mine"]


def test_a_union_of_callbacks_in_a_table_holds_what_code_stores_there(tmp_path: Path) -> None:
    source = """
    struct step { const char *name; union { int (*single)(unsigned); int (*multi)(unsigned, void *); }; };
    struct step steps[4];
    NOINLINE struct step *table(long state) { return steps + state; }
    static NOINLINE int online(unsigned cpu) { return cpu; }
    static NOINLINE int stray(unsigned cpu) { return cpu + 1; }
    struct other { int (*read)(unsigned); };
    NOINLINE void install(long state, int (*startup)(unsigned)) { table(state)->single = startup; spend(0); }
    NOINLINE void setup(void) { install(3, online); spend(0); }
    NOINLINE int invoke(struct step *s, unsigned cpu) { return s->single(cpu) + 1; }
    NOINLINE int read(struct other *o, unsigned n) { return o->read(n) + 1; }
    NOINLINE void hide(void *somewhere) { sink(somewhere, stray); spend(somewhere); }
    """
    answers = resolve(tmp_path, source)
    assert only(answers, "invoke")[1] == ["online", "stray"]
    # The union is where it goes: it is a candidate of no other field.
    assert only(answers, "read")[1] == ["stray"]


def test_a_function_in_a_member_that_is_no_function_pointer_is_in_no_other_field(tmp_path: Path) -> None:
    source = """
    struct point { const char *name; void *iterator; };
    struct other { long (*read)(long); };
    static NOINLINE long iterate(long n) { return n; }
    struct point here = { "here", iterate };
    NOINLINE void enable(struct point *p) { spend(p); }
    NOINLINE void all(void) { enable(&here); spend(0); }
    NOINLINE long read(struct other *o) { return o->read(1) + 1; }
    NOINLINE void copy(struct other *o, struct point *p) { OPERATION; spend(o); }
    """
    assert only(resolve(tmp_path, source.replace("OPERATION", "o->read(2)")), "read")[1] == []
    # Read from there and stored, it is something unknown: any function of the prototype.
    answers = resolve(tmp_path, source.replace("OPERATION", "o->read = p->iterator"))
    assert only(answers, "read")[:2] == (Rung.SIGNATURE, ["iterate"])


def test_what_a_call_of_unknown_prototype_is_handed_is_in_its_parameters_alone(tmp_path: Path) -> None:
    source = """
    struct other { long (*read)(long); };
    static NOINLINE long given(long n) { return n; }
    NOINLINE long visit(long (*f)(long), long n) { return f(n) + 1; }
    void *visitors[] = { visit };
    NOINLINE long blind(long n) { return ((long (*)(void *, long))visitors[n])(given, n) + 1; }
    NOINLINE long read(struct other *o) { return o->read(1) + 1; }
    """
    answers = resolve(tmp_path, source)
    assert only(answers, "visit")[1] == ["given"]
    assert only(answers, "read")[1] == []


def test_what_is_left_in_the_result_register_of_a_function_without_result_goes_nowhere(
    tmp_path: Path,
) -> None:
    source = """
    struct hook { long (*call)(long); struct hook *next; };
    struct other { long (*read)(long); };
    static NOINLINE long hooked(long n) { return n; }
    struct hook first = { hooked };
    NOINLINE void walk(struct hook *h) { while (h) { if (h->call) h->call(1); h = h->next; } }
    NOINLINE void all(void) { walk(&first); spend(0); }
    NOINLINE long read(struct other *o) { return o->read(1) + 1; }
    """
    assert only(resolve(tmp_path, source), "read")[1] == []


def test_a_conditional_move_chooses_one_of_two(tmp_path: Path) -> None:
    source = """
    struct other { long (*read)(long); };
    static NOINLINE long one(long n) { return n; }
    static NOINLINE long two(long n) { return n + 1; }
    NOINLINE void choose(struct other *o, long which) { o->read = which ? one : two; spend(o); }
    NOINLINE long read(struct other *o) { return o->read(1) + 1; }
    """
    assert only(resolve(tmp_path, source), "read") == (Rung.FIELD, ["one", "two"], "struct other.read")


def test_an_object_on_the_stack_is_changed_through_its_own_type(tmp_path: Path) -> None:
    source = """
    struct port { long flags; long (*in)(struct port *); };
    static NOINLINE long slow(struct port *p) { return p->flags; }
    static NOINLINE long never(struct port *p) { return p->flags + 1; }
    NOINLINE void prepare(struct port *p) { spend(p); }
    NOINLINE long use(struct port *p) { return p->in(p) + 1; }
    NOINLINE long probe(long n) { struct port p = { n, slow }; prepare(&p); return use(&p) + 1; }
    struct other { void *data; } holder = { never };
    NOINLINE void hold(struct other *o) { spend(o); }
    NOINLINE void held(void) { hold(&holder); spend(0); }
    """
    assert only(resolve(tmp_path, source), "use") == (Rung.FIELD, ["slow"], "struct port.in")


def test_what_a_module_without_types_stores_is_told_to_be_unknown(tmp_path: Path) -> None:
    kernel = """
    struct work { long pending; long (*func)(long); };
    static NOINLINE long own(long n) { return n; }
    NOINLINE void init(struct work *w) { w->func = own; spend(w); }
    NOINLINE long run(struct work *w) { return w->func(1) + 1; }
    """
    module = """
    struct work { long pending; long (*func)(long); };
    static NOINLINE long added(long n) { return n; }
    NOINLINE void setup(struct work *w) { w->func = added; spend(w); }
    """
    flags = ("-O2", "-mcmodel=kernel", "-mno-red-zone")
    (tmp_path / "module").mkdir()
    first = compiled(tmp_path, COMMON + kernel, 64, *flags, "-gbtf")
    if first.section(".BTF") is None:
        pytest.skip("this gcc writes no BTF")
    second = compiled(tmp_path / "module", COMMON + module, 64, *flags)
    for images, strangers in (([first, second], ["added"]), ([first], [])):
        program = link(images)
        code, tables, pointers = decode_program(program), read_tables(program), code_pointers(program)
        frames = analyse_frames(code, tables, pointers)
        resolution = resolve_indirect(program, code, tables, frames, pointers)
        assert [code.functions.names[one] for one in resolution.strangers] == strangers
        calls = build_calls(program, code, tables, frames, [], resolution=resolution)
        (run,) = code.functions.named("run")
        reasons = {
            Reason(int(calls.reason[site]))
            for site in np.flatnonzero((calls.function == run) & (calls.kind == CallKind.INDIRECT)).tolist()
        }
        assert reasons == {Reason.UNTYPED if strangers else Reason.NONE}


def test_a_global_pointer_has_the_type_that_it_is_used_as(tmp_path: Path) -> None:
    source = (
        FILES
        + """
    struct file *current;
    extern struct file *find(void);
    void *untyped;
    NOINLINE void set(void *from) { sink(&current, from); }
    NOINLINE long use(struct file *f) { spend(f); return f->mode; }
    NOINLINE long run(char *to, long n) {
        use(current);
        return current->op->read(current, to, n) + 1;
    }
    NOINLINE long lost(long n) { struct file *f = untyped; return f->op->read(0, 0, n) + 1; }
    """
    )
    answers = resolve(tmp_path, source)
    assert only(answers, "run") == (Rung.FIELD, ["a_read", "b_read"], "struct operations.read")
    assert answers["lost"] == [None]


def test_a_copied_object_is_of_the_type_of_its_original(tmp_path: Path) -> None:
    source = """
    struct driver { long pad[40]; int (*start)(long); int (*stop)(char); };
    static NOINLINE int one_start(long n) { return n; }
    static NOINLINE int one_stop(char n) { return n; }
    static NOINLINE int two_start(long n) { return n + 1; }
    static const struct driver one = { .start = one_start, .stop = one_stop };
    static struct driver live;
    NOINLINE void choose(void) { __builtin_memcpy(&live, &one, sizeof live); spend(0); }
    NOINLINE void change(void) { live.start = two_start; spend(0); }
    NOINLINE int run(long n) { return live.start(n) + 1; }
    NOINLINE int end(long n) { return live.stop(n) + 1; }
    """
    answers = resolve(tmp_path, source)
    assert only(answers, "run") == (Rung.FIELD, ["one_start", "two_start"], "struct driver.start")
    assert only(answers, "end") == (Rung.FIELD, ["one_stop"], "struct driver.stop")


def test_a_store_through_a_member_is_into_the_struct_around(tmp_path: Path) -> None:
    source = """
    struct sock { long key; long more; };
    struct netlink { struct sock sock; long pad; void (*input)(long); };
    struct packet { struct sock sock; long pad; int (*other)(long); };
    struct unrelated { void (*input)(long); };
    static NOINLINE void mine(long n) { spend(0); }
    NOINLINE void open(struct sock *s) { ((struct netlink *)s)->input = mine; spend(s); }
    NOINLINE int deliver(struct netlink *n) { n->input(1); return 1; }
    NOINLINE int foreign(struct unrelated *n) { n->input(1); return 1; }
    """
    answers = resolve(tmp_path, source)
    assert only(answers, "deliver") == (Rung.FIELD, ["mine"], "struct netlink.input")
    assert only(answers, "foreign")[1] == []


def test_an_array_by_its_elements_of_which_the_first_are_empty(tmp_path: Path) -> None:
    source = """
    struct step { const char *name; int (*up)(unsigned); int (*down)(unsigned); long state; };
    struct other { int (*read)(unsigned); };
    static NOINLINE int online(unsigned cpu) { return cpu; }
    static NOINLINE int offline(unsigned cpu) { return cpu; }
    static struct step steps[6] = { [2] = { "two", online, offline }, [4] = { "four", online, 0 } };
    NOINLINE int up(long state, unsigned cpu) { return steps[state].up(cpu) + 1; }
    NOINLINE int read(struct other *o, unsigned n) { return o->read(n) + 1; }
    """
    answers = resolve(tmp_path, source)
    assert only(answers, "up")[1] == ["online"]
    assert only(answers, "read")[1] == []


def test_a_variable_that_only_instructions_name_keeps_its_functions(tmp_path: Path) -> None:
    source = """
    struct unit { long pad[3]; int (*go)(long); int (*halt)(long, long); };
    struct other { int (*read)(long); };
    static NOINLINE int first(long n) { return n; }
    static NOINLINE int second(long n) { return n + 1; }
    static NOINLINE int seen(long n) { return n + 2; }
    static struct unit hidden, shared;
    NOINLINE void choose(void) { hidden.go = first; shared.go = seen; spend(&shared); }
    NOINLINE void change(void) { hidden.go = second; }
    NOINLINE int run(long n) { return hidden.go(n) + 1; }
    NOINLINE int read(struct other *o, long n) { return o->read(n) + 1; }
    """
    answers = resolve(tmp_path, source)
    assert only(answers, "run")[1] == ["first", "second"]
    assert only(answers, "read")[1] == ["seen"]  # whose object's address goes elsewhere


def test_to_compare_with_a_function_puts_it_nowhere(tmp_path: Path) -> None:
    source = (
        FILES
        + """
    NOINLINE long known(struct file *f, char *b, long n) { return n + 5; }
    NOINLINE int is_known(struct operations *o) { return o->read == known; }
    NOINLINE long direct(struct file *f) { return known(f, 0, 3) + 1; }
    """
    )
    assert only(resolve(tmp_path, source), "do_read")[1] == ["a_read", "b_read"]

// Large tables: a real table of which only the rows on screen exist; sorted, searched, filtered, by keyboard too.

const ROW_HEIGHT = 25;  // pixels; report.css sets the same
const SPARE_ROWS = 8;  // above and below the screenful
const PRINTED_ROWS = 60;

class DataTable {
  constructor(place, key, spec, open) {
    this.key = key;
    this.spec = spec;
    this.open = open;
    this.columns = spec.columns.map(expand);
    this.shown = this.columns.filter((column) => column.kind !== "hidden");
    this.size = this.columns.length ? this.columns[0].values.length : 0;
    this.rows = Array.from({ length: this.size }, (_, row) => row);
    this.sorted = { key: spec.order, descending: true };
    this.current = 0;
    this.printing = false;
    this.build(place);
    this.update();
  }

  column(key) {
    return this.columns.find((column) => column.key === key);
  }

  // ---------------------------------------------------------------- construction

  build(place) {
    const id = `table-${this.key}`;
    this.search = make("input", {
      type: "search", id: `${id}-search`, autocomplete: "off", spellcheck: "false", "aria-describedby": `${id}-help`,
      placeholder: this.example(), oninput: () => this.update(),
    });
    this.count = make("output", { for: `${id}-search`, "aria-live": "polite" });
    const help = make("span", { id: `${id}-help`, class: "visually-hidden" },
      "Words that a row must have, and comparisons of columns such as frame>1000. Arrow keys move between rows, Enter opens one.");
    const bar = make("div", { class: "toolbar" },
      field("Search", this.search), help, ...this.filters(id), this.count);
    this.head = make("tr", { "aria-rowindex": 1 });
    this.body = make("tbody", { onclick: (event) => this.click(event), onkeydown: (event) => this.move(event) });
    const widths = make("colgroup", {}, ...this.shown.map((one) => make("col", { style: `width:${one.width + 2}ch` })));
    this.table = make("table", { class: "large", role: "grid", "aria-label": this.spec.title, id },
      widths, make("thead", {}, this.head), this.body);
    this.view = make("div", { class: "viewport", onscroll: () => this.render() }, this.table);
    this.note = make("p", { class: "note print-only" });
    place.append(bar, this.view, this.note);
    this.shown.forEach((column) => this.head.append(this.heading(column)));
    new ResizeObserver(() => this.render()).observe(this.view);
    addEventListener("beforeprint", () => this.print(true));
    addEventListener("afterprint", () => this.print(false));
  }

  example() {
    const number = [this.column(this.spec.order), ...this.shown].find((one) => one.kind === "bytes");
    return number ? `words, ${number.key}>1000` : "words";
  }

  heading(column) {
    const button = make("button", { type: "button", onclick: () => this.sort(column) }, column.label);
    if (column.hint) button.title = column.hint;
    const side = ["bytes", "number", "address"].includes(column.kind) ? "right" : "left";
    return make("th", { scope: "col", class: side, "data-key": column.key }, button);
  }

  filters(id) {
    this.choices = {};
    const built = [];
    for (const column of this.shown.filter((one) => one.kind === "choice")) {
      const texts = [...new Set(column.values)].sort();
      if (texts.length < 2) continue;
      const select = make("select", { id: `${id}-${column.key}`, onchange: () => this.update() },
        make("option", { value: "" }, "all"), ...texts.map((text) => make("option", { value: `=${text}` }, text)));
      if (this.spec.only[column.key]) select.value = `=${this.spec.only[column.key]}`;
      this.choices[column.key] = select;
      built.push(field(column.label, select));
    }
    return built;
  }

  // ---------------------------------------------------------------- what is shown

  // Each row's texts in lower case; made when first searched.
  haystack() {
    if (!this.lower) {
      const texts = this.columns.filter((one) => ["text", "code", "choice", "hidden"].includes(one.kind));
      this.lower = Array.from({ length: this.size }, (_, row) =>
        texts.map((one) => one.values[row]).join("\n").toLowerCase());
    }
    return this.lower;
  }

  tests() {
    const tests = [];
    for (const [key, select] of Object.entries(this.choices)) {
      const values = this.column(key).values;
      const wanted = select.value.slice(1);
      if (select.value) tests.push((row) => values[row] === wanted);
    }
    for (const word of this.search.value.toLowerCase().split(/\s+/).filter(Boolean)) {
      const [, key, operator, number] = /^(\w+)(>=|<=|>|<|=)(\d+)$/.exec(word) || [];
      const column = key && this.column(key);
      if (column && ["bytes", "number"].includes(column.kind)) {
        tests.push(comparison(column.values, operator, Number(number)));
      } else {
        const lower = this.haystack();
        tests.push((row) => lower[row].includes(word));
      }
    }
    return tests;
  }

  update() {
    const tests = this.tests();
    this.rows = [];
    for (let row = 0; row < this.size; row++) if (tests.every((test) => test(row))) this.rows.push(row);
    this.order();
    this.current = 0;
    this.view.scrollTop = 0;
    this.count.textContent = this.rows.length === this.size
      ? `${grouped(this.size)} ${this.spec.noun}`
      : `${grouped(this.rows.length)} of ${grouped(this.size)} ${this.spec.noun}`;
    this.render(true);
  }

  sort(column) {
    const same = this.sorted.key === column.key;
    const numbers = ["bytes", "number"].includes(column.kind);
    this.sorted = { key: column.key, descending: same ? !this.sorted.descending : numbers };
    this.order();
    this.render(true);
  }

  order() {
    const { key, descending } = this.sorted;
    const values = this.column(key).values;
    const sign = descending ? -1 : 1;
    const compare = typeof values.find((value) => value !== null) === "string"
      ? (a, b) => (a < b ? -1 : a > b ? 1 : 0)
      : (a, b) => a - b;
    this.rows.sort((a, b) => {
      const [left, right] = [values[a], values[b]];
      if (left === null || right === null) return (left === null) - (right === null) || a - b;  // no value: last
      return sign * compare(left, right) || a - b;
    });
    for (const cell of this.head.children) {
      const how = cell.dataset.key === key ? (descending ? "descending" : "ascending") : "none";
      cell.setAttribute("aria-sort", how);
    }
  }

  // ---------------------------------------------------------------- drawing

  render(changed) {
    const visible = Math.ceil(this.view.clientHeight / ROW_HEIGHT);
    let first = Math.max(0, Math.floor(this.view.scrollTop / ROW_HEIGHT) - SPARE_ROWS);
    let last = Math.min(this.rows.length, first + visible + 2 * SPARE_ROWS);
    if (this.printing) [first, last] = [0, Math.min(this.rows.length, PRINTED_ROWS)];
    if (!changed && first === this.first && last === this.last) return;
    const focused = this.body.contains(document.activeElement);
    [this.first, this.last] = [first, last];
    const rows = [spacer(first)];
    for (let at = first; at < last; at++) rows.push(this.row(at));
    rows.push(spacer(this.printing ? 0 : this.rows.length - last));
    if (!this.rows.length) rows.push(make("tr", {}, make("td", { colspan: this.shown.length, class: "faint" }, "nothing found")));
    this.body.replaceChildren(...rows);
    this.table.setAttribute("aria-rowcount", this.rows.length + 1);
    if (focused) this.focus(false);
  }

  row(at) {
    const row = this.rows[at];
    const line = make("tr", { "aria-rowindex": at + 2, "data-at": at, tabindex: at === this.current ? 0 : -1 });
    if (this.spec.opens) line.classList.add("opens");
    for (const column of this.shown) {
      const text = cellText(column, row);
      const right = ["bytes", "number", "address"].includes(column.kind);
      const kind = `${right ? "right" : "left"}${column.kind === "code" || column.kind === "address" ? " code" : ""}`;
      line.append(make("td", { class: kind, role: "gridcell", title: right ? null : text }, text));
    }
    return line;
  }

  print(on) {
    this.printing = on;
    const left = this.rows.length - PRINTED_ROWS;
    this.note.textContent = left > 0
      ? `The first ${PRINTED_ROWS} of ${grouped(this.rows.length)} ${this.spec.noun} in this order; the file has all.` : "";
    this.render(true);
  }

  // ---------------------------------------------------------------- pointer and keyboard

  click(event) {
    const line = event.target.closest("tr[data-at]");
    if (!line) return;
    this.current = Number(line.dataset.at);
    this.openCurrent();
  }

  move(event) {
    const page = Math.max(1, Math.floor(this.view.clientHeight / ROW_HEIGHT) - 2);
    const last = this.rows.length - 1;
    const steps = {
      ArrowDown: this.current + 1, ArrowUp: this.current - 1, PageDown: this.current + page,
      PageUp: this.current - page, Home: 0, End: last,
    };
    if (event.key === "Enter" || event.key === " ") this.openCurrent();
    else if (event.key in steps) this.current = Math.min(Math.max(steps[event.key], 0), last);
    else return;
    event.preventDefault();
    this.focus(true);
  }

  focus(scroll) {
    if (scroll) {
      const top = this.current * ROW_HEIGHT;
      const room = this.view.clientHeight - 2 * ROW_HEIGHT;
      if (top < this.view.scrollTop) this.view.scrollTop = top;
      else if (top > this.view.scrollTop + room) this.view.scrollTop = top - room;
      this.render(true);
    }
    const line = this.body.querySelector(`tr[data-at="${this.current}"]`);
    if (line) line.focus({ preventScroll: true });
  }

  openCurrent() {
    if (this.spec.opens && this.rows.length) this.open(this.spec.opens, this.rows[this.current]);
  }
}

function comparison(values, operator, number) {
  const holds = {
    ">": (value) => value > number, "<": (value) => value < number, "=": (value) => value === number,
    ">=": (value) => value >= number, "<=": (value) => value <= number,
  }[operator];
  return (row) => values[row] !== null && holds(values[row]);
}

function spacer(rows) {
  return make("tr", { class: "spacer", "aria-hidden": true },
    make("td", { style: `height:${rows * ROW_HEIGHT}px` }));
}

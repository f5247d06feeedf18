// The panel beside the tables: one context or one frame. What is open is in the address (#context/3), so that the
// browser's own Back leads to the one before.

class Details {
  constructor(chains) {
    this.chains = chains;
    this.panel = document.getElementById("details");
    addEventListener("hashchange", () => this.show());
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !this.panel.hidden) this.close();
    });
    this.show();
  }

  open(kind, row) {
    this.opener = document.activeElement;
    const hash = `#${kind}/${row}`;
    if (location.hash === hash) this.show();
    else location.hash = hash;
  }

  close() {
    this.panel.hidden = true;
    document.body.classList.remove("with-details");
    history.replaceState(null, "", location.pathname + location.search);
    if (this.opener && this.opener.isConnected) this.opener.focus({ preventScroll: true });
  }

  show() {
    const [, kind, digits] = /^#(context|frame)\/(\d+)$/.exec(location.hash) || [];
    const row = Number(digits);
    const table = kind && this.chains[kind === "context" ? "contexts" : "frames"];
    if (!table || row >= table.size) return;
    this.panel.replaceChildren(make("button", { type: "button", class: "close", "aria-label": "Close details", onclick: () => this.close() }, "×"));
    this.panel.hidden = false;
    document.body.classList.add("with-details");
    if (kind === "context") this.context(row);
    else this.frame(row);
    this.panel.focus({ preventScroll: true });
    this.panel.scrollTop = 0;
  }

  facts(pairs) {
    return make("dl", { class: "facts" }, ...pairs.map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text))));
  }

  link(kind, row, text) {
    return make("a", { href: `#${kind}/${row}`, class: "code" }, text);
  }

  // ---------------------------------------------------------------- a context

  context(row) {
    const { chains } = this;
    const data = chains.data.contexts;
    const facts = ["layout", "stack", "measured", "composed", "found", "direct", "bound"].map((key) => {
      const column = chains.contexts.column(key);
      return [column.label, cellText(column, row)];
    });
    if (data.entry[row] >= 0) facts.push(["entry", this.link("frame", data.entry[row], chains.frameName(data.entry[row]))]);
    const plot = make("div", { class: "plot", role: "img", "aria-label": "The ladder of this context: the numbers above, and its bound at each number of indirect calls" });
    this.panel.append(make("h2", {}, chains.title(row)), this.facts(facts), make("h3", {}, "Ladder"), plot);
    if (data.open[row].length) {
      this.panel.append(make("h3", {}, "Open below it"), make("ul", {}, ...data.open[row].map(([reason, count]) =>
        make("li", {}, `${grouped(count)} × ${chains.data.reasons[reason]}`))));
    }
    this.chain("Deepest direct chain", data.chain[row]);
    this.chain("Composed: every call was seen", data.composed[row]);
    chains.drawLadder(plot, row);
  }

  chain(title, number) {
    const rows = this.chains.rows(number);
    if (!rows.length) return;
    const lines = rows.map((one) => {
      const name = this.chains.frameName(one.row);
      const module = this.chains.module(one.row);
      const how = ["direct", "end", "entry"].includes(one.kind) ? "" : one.kind;
      const evidence = one.evidence === "proved" ? "" : ` (${one.evidence})`;
      return make("tr", {},
        make("td", { class: "right" }, grouped(one.total)), make("td", { class: "right" }, grouped(one.bytes)),
        make("td", {}, one.row < 0 ? name : this.link("frame", one.row, name), module ? ` [${module}]` : ""),
        make("td", { class: evidence ? "doubt" : "faint" }, how + evidence));
    });
    const heads = [["total", "right"], ["bytes", "right"], ["function", "left"], ["then by", "left"]];
    this.panel.append(make("h3", {}, `${title}: ${rows.length} frames`), make("table", { class: "chain", "aria-label": title },
      make("thead", {}, make("tr", {}, ...heads.map(([text, side]) => make("th", { scope: "col", class: side }, text)))),
      make("tbody", {}, ...lines)));
  }

  // ---------------------------------------------------------------- a frame

  frame(row) {
    const { chains } = this;
    const facts = chains.frames.columns.filter((column) => !["name", "aliases"].includes(column.key))
      .map((column) => [column.label, cellText(column, row) || "(kernel)"]);
    const aliases = chains.frames.column("aliases").values[row];
    if (aliases) facts.push(["also named", aliases]);
    this.panel.append(make("h2", { class: "code" }, chains.frameName(row)), this.facts(facts));
    const found = chains.through(row);
    const title = found.length ? `On the deepest direct chain of ${grouped(found.length)} context${found.length > 1 ? "s" : ""}` : "On no context's deepest direct chain";
    this.panel.append(make("h3", {}, title), make("ul", { class: "links" }, ...found.map((context) =>
      make("li", {}, this.link("context", context, chains.title(context)), `  ${bytesText(chains.value("found", context))} on ${chains.value("stack", context)}`))));
  }
}
